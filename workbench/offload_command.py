"""`workbench generate --budget`, `workbench replay`, `workbench cacheability`."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Literal

import xarray as xr
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.data.tokenizer import Tokenizer
from workbench.host_command import generate_with_host
from workbench.model.generate import Sampling
from workbench.model.recorded import recorder_of, write_text
from workbench.offload.config import OffloadConfig
from workbench.offload.model import OffloadedModel, open_offloaded
from workbench.offload.options import config_of_text
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.replay.cacheability import cacheability_of
from workbench.offload.replay.curves import cache_curves
from workbench.offload.replay.expert_sizes import sizes_of
from workbench.offload.replay.known_links import links_of
from workbench.offload.replay.recorded import requests_of
from workbench.offload.replay.scene import Scene
from workbench.offload.replay.what_if import what_if
from workbench.offload.requests import Requests
from workbench.offload.standing import room_words
from workbench.opening import is_trace, needs_host, open_tokenizer, read_text, record_file
from workbench.session import TEMPERATURE, TOP_P
from workbench.terminal import Conversion, say, write
from workbench.trace.files import open_trace
from workbench.trace.schema import Trace
from workbench.train.run_folder import RunFolder

__all__ = ["generate_offloaded", "judge", "replay_trace"]

_UNKNOWN_BYTES, _UNKNOWN_SPEED = 1.0, 1.0
_SMALL = 2_000_000
_LINK = "pcie4"
_MEASURED_TOKENS = 4096


def generate_offloaded(
    folder: Path,
    text: str,
    options: Mapping[str, str],
    *,
    measure: Path | None,
    max_new_tokens: int,
    temperature: float | None,
    stop: tuple[str, ...],
    seed: int,
) -> None:
    """Continue a text with the experts on disk, and say what that took.

    Args:
        options: those of `OffloadConfig` by name, as texts.
        measure: a text on which to say what a lossy model loses.
    """
    config = config_of_text(options)
    # read first: a file that is not there is said before anything is written.
    measured = "" if measure is None else read_text(measure)
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=TEMPERATURE if temperature is None else temperature, top_p=TOP_P
    )
    if needs_host(folder):
        if measure is not None:
            raise ValueError("--measure compares models of our own families; leave it out for this checkpoint")
        generate_with_host(folder, text, sampling, offload=config, stop=stop, seed=seed)
        return
    with open_offloaded(folder, config, on_expert=Conversion()) as offloaded:
        tokenizer, words = open_tokenizer(folder, offloaded.model.config.vocab_size)
        say(words)
        _continue(offloaded, tokenizer, text, sampling, stop, seed)
        if measured:
            _measure(offloaded, folder, config.budget, tokenizer.encode(measured))
        say(offloaded.engine.badge)


def _continue(
    offloaded: OffloadedModel, tokenizer: Tokenizer, text: str, sampling: Sampling, stop: tuple[str, ...], seed: int
) -> None:
    engine = offloaded.engine
    say(room_words(engine))
    write(text)
    with offloaded.writing():
        written = write_text(
            offloaded.model,
            tokenizer,
            text,
            sampling,
            recorder=recorder_of(offloaded.model, tokenizer),
            stop=stop,
            seed=seed,
            on_text=write,
            events_of=offloaded.events_of,
        )
    write("\n")
    say(f"{written.num_tokens / max(written.seconds, 1e-9):.1f} tokens/s; {engine.ledger.to_text()}")


def _measure(offloaded: OffloadedModel, folder: Path, budget: int | str, token_ids: Sequence[int]) -> None:
    with open_offloaded(folder, OffloadConfig(budget=budget), on_expert=Conversion()) as exact:
        offloaded.measure_loss(exact.predict, token_ids[:_MEASURED_TOKENS])


def replay_trace(
    trace: Path,
    *,
    policies: str,
    capacities: str,
    passes: Literal["recorded", "token"],
    links: str | None,
    formats: str | None,
) -> None:
    """Drive caches of several sizes with a recorded routing, and print the hit rates of every policy.

    Args:
        links: to predict the speed over; see `links_of`.
        formats: of the experts for that; see `sizes_of`.
    """
    opened = _opened_trace(trace)
    requests = requests_of(opened, passes=passes)
    names = POLICIES.names() if policies == "all" else tuple(str(spec) for spec in Spec.parse_list(policies))
    sizes = [_capacity(piece.strip(), requests.num_pages) for piece in capacities.split(",")]
    # other processes take seconds to begin.
    jobs = 1 if len(requests) * len(names) * len(sizes) < _SMALL else None
    if links is None and formats is None:
        with _progress() as heard:
            curves = cache_curves(
                requests,
                names,
                sizes,
                block_bytes=_UNKNOWN_BYTES,
                bytes_per_second=_UNKNOWN_SPEED,
                jobs=jobs,
                on_progress=heard,
            )
        _show_curves(curves, requests)
        return
    costs, bytes_of = links_of(links or _LINK), sizes_of(formats or "exact", opened)
    scenes = {name: Scene(cost=cost) for name, cost in costs.items()}
    with _progress() as heard:
        found = what_if(requests, scenes, names, sizes, precisions=bytes_of, jobs=jobs, on_progress=heard)
    alone = {"prefetch": "none", "link": next(iter(costs)), "precision": next(iter(bytes_of))}
    _show_curves(found.sel(alone), requests)
    _show_speeds(found.sel(prefetch="none", source="recorded"), requests)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    with tqdm(unit="run", dynamic_ncols=True) as bar:

        def on_progress(done: int, of: int) -> None:
            bar.total, bar.n = of, done
            bar.refresh()

        yield on_progress


def judge(model: Path, *, text: Path | None, window: int, miss_ms: float) -> None:
    """Print what caches can expect of a model on a text."""
    report = cacheability_of(_recorded(model, text), miss_seconds=miss_ms / 1000, window=window)
    sys.stdout.write(report.to_text() + "\n")


def _recorded(model: Path, text: Path | None) -> Trace:
    if is_trace(model):
        return open_trace(model)
    if text is None:
        raise ValueError("a model needs --text FILE to route; a trace (t.zarr, t.zarr.zip, t.nc) needs none")
    return record_file(model, text, tell=say)


def _opened_trace(path: Path) -> Trace:
    return open_trace(path) if is_trace(path) else open_trace(RunFolder(path).trace)


def _capacity(text: str, pages: int) -> int:
    try:
        size = int(text) if text.isdecimal() else round(float(text.removesuffix("%")) / 100 * pages)
    except ValueError as error:
        raise ValueError(f"a capacity is a number of experts, or a share as 25%; got {text!r}") from error
    if not 1 <= size <= pages:
        raise ValueError(f"a capacity must be between 1 and all {pages} experts, got {text!r} ({size})")
    return size


def _show_curves(curves: xr.Dataset, requests: Requests) -> None:
    hits, optimum = curves["hit_rate"], curves["hit_rate"].sel(policy="min")
    table = _table(f"hit rate, {curves.attrs['over']}", ["policy"], curves, requests)
    recorded = hits.sel(source="recorded")
    for policy in curves["policy"].values[recorded.mean("capacity").argsort()[::-1].values].tolist():
        knows = ", knows the future" * _knows_the_future(policy, requests)
        table.add_row(Text(policy + knows), *_cells(recorded.sel(policy=policy)))
    table.add_section()
    table.add_row(Text("min, if tokens were independent"), *_cells(optimum.sel(source="independent")))
    if "lru" in curves["policy"].values:
        table.add_row(Text("lru, if tokens were independent"), *_cells(hits.sel(policy="lru", source="independent")))
    _print(table)


def _show_speeds(found: xr.Dataset, requests: Requests) -> None:
    """What the best policy that can run, LRU and the optimum come to over every link, in every format."""
    room = f"room as {found['precision'].values[0]} experts"
    title = f"predicted tokens/s, simulated: misses one after the other, no computation counted; {room}"
    table = _table(title, ["experts", "link", "policy"], found, requests)
    able = [one for one in found["policy"].values.tolist() if not _knows_the_future(one, requests)]
    for precision, link in product(found["precision"].values.tolist(), found["link"].values.tolist()):
        part = found.sel(precision=precision, link=link)
        best = able[part["hit_rate"].sel(policy=able).mean("capacity").values.argmax()] if able else "min"
        each = human_bytes(float(part["block_bytes"]))
        for policy in dict.fromkeys((best, *("lru",) * ("lru" in able), "min")):
            speeds = (f"{value:,.1f}" for value in part["tokens_per_second"].sel(policy=policy).values.tolist())
            table.add_row(Text(f"{precision}, {each}"), Text(link), Text(policy), *speeds)
        table.add_section()
    _print(table)
    for link, source in zip(found["link"].values.tolist(), found["link_cost"].values.tolist(), strict=True):
        say(f"{link}: {source}")


def _table(title: str, names: Sequence[str], curves: xr.Dataset, requests: Requests) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name)
    for capacity in curves["capacity"].values.tolist():
        table.add_column(f"{capacity} experts ({capacity / requests.num_pages:.0%})", justify="right")
    return table


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _knows_the_future(policy: str, requests: Requests) -> bool:
    sizes = {"num_layers": requests.num_layers, "num_experts": requests.num_experts, "top_k": requests.top_k}
    built: CachePolicy = Spec.parse(policy).build(POLICIES, CacheShape(capacity=1, **sizes))
    return built.reads_future


def _cells(values: xr.DataArray) -> Iterator[str]:
    return (f"{value:.4f}" for value in values.values.tolist())
