"""One page that shows a run to someone who has neither the run nor a network: `report.html`."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from workbench.payloads.container import header_of
from workbench.payloads.expert_flow import expert_flow_payload
from workbench.payloads.expert_load import expert_load_payload
from workbench.payloads.loss_curves import loss_curves_payload
from workbench.payloads.offload_timeline import offload_timeline_payload
from workbench.payloads.residency import residency_payload
from workbench.payloads.shadow_router import shadow_router_payload
from workbench.payloads.token_strip import token_strip_payload
from workbench.trace.schema import Trace
from workbench.view._facts import RunFacts, run_facts
from workbench.view.bundle import script
from workbench.view.files import write_whole
from workbench.view.theme import css_variables

__all__ = ["TextSample", "write_report"]

_VIEWS: dict[str, Callable[[Trace], bytes]] = {
    "loss_curves": loss_curves_payload,
    "expert_load": expert_load_payload,
    "token_strip": token_strip_payload,
}
# Shown where the trace holds something for them.
_IF_RECORDED: dict[str, Callable[[Trace], bytes]] = {
    "expert_flow": expert_flow_payload,
    "shadow_router": shadow_router_payload,
    "residency": residency_payload,
    "offload_timeline": offload_timeline_payload,
}
_LINKS = {
    "loss_curves": "Is it learning?",
    "expert_load": "Which experts work?",
    "token_strip": "Where do tokens go?",
    "expert_flow": "Which experts go together?",
    "shadow_router": "What would the shadow do?",
    "residency": "Where are the experts?",
    "offload_timeline": "What does offloading cost?",
}


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """A text that the model wrote, with what a reader needs to judge it.

    Attributes:
        prompt: what the model was given.
        text: what the model added.
        settings: how it was sampled, in words without a full stop.
        trained_seconds: training time of the model that wrote it [s]; None means the whole run.
    """

    prompt: str
    text: str
    settings: str = ""
    trained_seconds: float | None = None


def write_report(trace: Trace, path: str | Path, *, title: str, samples: Sequence[TextSample] = ()) -> Path:
    """One self-contained HTML file with the views, the facts of the run and texts; it opens offline.

    The file asks the network for nothing, and its content policy forbids it to. It is written beside and renamed, so an
    older report survives a full disk.

    Args:
        trace: what was recorded; a missing group leaves a sentence where its view would be.
        path: the file to write; its folder is created.
        title: heading of the page.
        samples: generated texts, shown as what they are.

    Returns:
        The path of the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    page = _page(trace, title, samples)
    write_whole(target, page)
    return target


def _page(trace: Trace, title: str, samples: Sequence[TextSample]) -> str:
    facts = run_facts(trace)
    payloads = _payloads(trace)
    code = script(*payloads)
    assert "</script" not in code.lower(), "a view would end its own script element"
    template = Template(files("workbench.view").joinpath("report.html").read_text("utf-8"))
    return template.substitute(
        title=escape(title),
        variables=_variables(),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}",
        script=code,
        lead=f'<p class="lead">{escape(facts.sentence)}</p>' if facts.sentence else "",
        made=escape(facts.made),
        links="".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in _links(payloads, samples).items()),
        headline="".join(
            f"<li class='card'><b>{escape(v)}</b><span>{escape(k)}</span></li>" for k, v in facts.headline
        ),
        views="".join(f'<div id="{name}" data-show="{name}" data-payload="payload-{name}"></div>' for name in payloads),
        payloads="".join(_data_block(name, payload) for name, payload in payloads.items()),
        samples=_samples(samples, facts),
        facts=_list(facts.rows),
        settings=_settings(facts),
        domains=_domain_table(facts),
        notes="".join(f"<p>{escape(text)}</p>" for text in _notes(list(payloads.values()))),
    )


def _payloads(trace: Trace) -> dict[str, bytes]:
    """Views by name: those that every report has, and those that have something to show."""
    others = {name: build(trace) for name, build in _IF_RECORDED.items()}
    shown = {name: payload for name, payload in others.items() if header_of(payload)["empty"] is None}
    return {name: build(trace) for name, build in _VIEWS.items()} | shown


def _links(views: Iterable[str], samples: Sequence[TextSample]) -> dict[str, str]:
    return {
        **{name: _LINKS[name] for name in views},
        **({"samples": "What does it write?"} if samples else {}),
        "facts": "What was run",
    }


def _variables() -> str:
    dark = css_variables(":root", "dark")
    return f"{css_variables(':root', 'light')}\n@media (prefers-color-scheme: dark) {{ {dark} }}"


def _data_block(name: str, payload: bytes) -> str:
    text = base64.b64encode(payload).decode()
    return f'<script type="text/plain" id="payload-{name}">{text}</script>\n'


def _samples(samples: Sequence[TextSample], facts: RunFacts) -> str:
    if not samples:
        return ""
    figures = []
    for sample in samples:
        label = facts.authorship(sample.trained_seconds)
        caption = f"{label} Sampling: {sample.settings}." if sample.settings else label
        figures.append(
            f'<figure class="sample card"><figcaption>{escape(caption)}</figcaption>'
            f"<pre>{escape(sample.prompt)}<mark>{escape(sample.text)}</mark></pre></figure>"
        )
    note = '<p class="note">Plain: the prompt. Bold: what the model added.</p>'
    title = '<h2 id="samples">What does it write?</h2>'
    return f'<section aria-labelledby="samples">{title}{note}{"".join(figures)}</section>'


def _list(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows)


def _settings(facts: RunFacts) -> str:
    if not facts.settings:
        return ""
    title = f"<summary>All {len(facts.settings)} settings</summary>"
    return f'<details>{title}<dl class="facts">{_list(facts.settings)}</dl></details>'


def _domain_table(facts: RunFacts) -> str:
    if not facts.domains:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>"
        for name, values in facts.domains
    )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("Domain", *facts.domain_columns))
    return (
        '<section aria-labelledby="domains"><h2 id="domains">Held-out loss by domain</h2><div class="card scroll">'
        f'<table class="sums"><caption>{escape(facts.domain_caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _notes(payloads: Sequence[bytes]) -> list[str]:
    """Every statement on sampling once, in the order of the views."""
    said = [text for payload in payloads for text in header_of(payload)["statements"]]
    return ["Every number on this page was read from the trace of this run.", *dict.fromkeys(said)]
