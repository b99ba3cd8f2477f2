"""One page that shows a comparison of routers: a picture, every number, and how they were taken; no script."""

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from workbench.train.measures import MEASURES
from workbench.train.results import Results
from workbench.view.files import write_whole
from workbench.view.theme import css_variables

__all__ = ["write_comparison"]

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 26, 210, 1000, 24, 12
_NOTES = (
    "Held-out loss is measured in phase prefill: no noise, nothing dropped, mean over domains of bits per byte.",
    "A router that sees later tokens sees some of what it is to predict. It is shown, marked, and never ranked.",
    "All routers of a seed see the same batches in the same order. The test is a paired t-test over seeds.",
    "p is corrected by Holm's method for the number of routers; a star marks p below 0.05.",
    "Values are the mean over seeds ± the standard deviation between them.",
    "Other runs of the comparison shared the machine while tokens per second were measured: compare within this page.",
)


def write_comparison(results: Results, path: Path, *, title: str = "Routers compared") -> Path:
    """One self-contained HTML file; it opens offline, asks the network for nothing, and holds no script.

    Returns:
        The path of the file.
    """
    template = Template(files("workbench.view").joinpath("compare.html").read_text("utf-8"))
    rows = results.rows()
    page = template.substitute(
        title=escape(title),
        variables=f"{css_variables(':root', 'light')}\n@media (prefers-color-scheme: dark) "
        f"{{ {css_variables(':root', 'dark')} }}",
        lead=escape(lead(results)),
        made=escape(", ".join(f"{key} {value}" for key, value in results.facts.items())),
        plot=_plot(results, [row["router"] for row in rows]),
        legend="Each dot is a seed, the bar is their mean. Hollow: the router sees later tokens, so it is not ranked.",
        table=_table(rows, "Sorted by held-out loss, best first."),
        domains=_table(_domain_rows(results, [row["router"] for row in rows]), "Mean over seeds [bit/byte]."),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in results.facts.items()),
        notes="".join(f'<p class="note">{escape(text)}</p>' for text in (*_NOTES, *_definitions())),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path


def lead(results: Results) -> str:
    """The finding in one or two sentences, with its uncertainty."""
    ranking = results.ranking()
    if not ranking:
        return "No router could be ranked: every one sees later tokens, or a run of it failed."
    rows = {row["router"]: row for row in results.rows()}
    baseline, best = str(results.data["router"].values[0]), rows[ranking[0]]
    found = f"Lowest held-out loss: {ranking[0]} with {best['bit/byte']} bits per byte."
    if ranking[0] == baseline:
        return found
    verdict = "which stands out of the noise" if best["p"].endswith("*") else "which is within the noise"
    return f"{found} That is {best[f'against {baseline}']} against {baseline}, {verdict} (p = {best['p'].rstrip('*')})."


def _definitions() -> list[str]:
    return [f"{measure.heading}: {measure.text} [{measure.units}]." for measure in MEASURES.values()]


def _domain_rows(results: Results, order: list[str]) -> list[dict[str, str]]:
    mean = results.data["bits_per_byte"].mean("seed")
    return [
        {"router": name} | {str(d): f"{float(mean.sel(router=name, domain=d)):.3f}" for d in mean["domain"].values}
        for name in order
    ]


def _table(rows: list[dict[str, str]], caption: str) -> str:
    names = ["router", *[name for name in rows[0] if name != "router"]]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(row["router"])}</th>'
        + "".join(f"<td>{escape(row[name])}</td>" for name in names[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plot(results: Results, order: list[str]) -> str:
    loss = results.loss
    values = loss.values[np.isfinite(loss.values)]
    low, high = float(values.min()), float(values.max())
    margin = max(0.02 * (high - low), 1e-3)
    low, high = low - margin, high + margin
    height = _TOP + _ROW * len(order) + 40

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_axis(low, high, x, height)]
    future = {str(n) for n in results.data["router"].values[results.data["sees_future"].values]}
    for index, name in enumerate(order):
        y = _TOP + _ROW * (index + 0.5)
        own = loss.sel(router=name).values
        own = own[np.isfinite(own)]
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        if len(own) == 0:
            parts.append(f'<text class="muted" x="{_LEFT}" y="{y + 4:.1f}">failed</text>')
            continue
        mark = "future" if name in future else "seed"
        parts.append(f'<line class="spread" x1="{x(own.min()):.1f}" x2="{x(own.max()):.1f}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="{mark}" cx="{x(value):.1f}" cy="{y}" r="4.5"/>' for value in own]
        middle = x(float(own.mean()))
        parts.append(f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 8}" y2="{y + 8}"/>')
    label = escape(f"Held-out loss of {len(order)} routers in bits per byte; the numbers are in the tables below.")
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axis(low: float, high: float, x, height: int) -> str:  # type: ignore[no-untyped-def]
    step = 10 ** np.floor(np.log10((high - low) / 4))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= 7)
    marks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    digits = max(0, -int(np.floor(np.log10(step))))
    parts = []
    for mark in marks:
        place = f"{x(float(mark)):.1f}"
        parts.append(f'<line class="grid" x1="{place}" x2="{place}" y1="{_TOP}" y2="{height - 36}"/>')
        parts.append(f'<text class="muted" x="{place}" y="{height - 20}" text-anchor="middle">{mark:.{digits}f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="muted" x="{middle}" y="{height - 3}" text-anchor="middle">'
        "held-out loss [bit/byte], lower is better</text>"
    )
    return "".join(parts)
