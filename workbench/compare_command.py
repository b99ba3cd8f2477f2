"""`workbench compare`: routers under equal tokens, as a table, a page and a trace."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.train.comparison import Comparison, compare
from workbench.train.config import TrainConfig
from workbench.train.progress import steps_done
from workbench.train.results import Results
from workbench.view.compare_page import write_comparison

__all__ = ["compare_routers"]

_SHOWN = ("rank", "router", "bit/byte", "p", "experts per token", "tokens/s", "max/mean load", "dropped")


def compare_routers(
    routers: str,
    *,
    steps: int,
    seeds: int,
    model: str,
    corpus: str,
    settings: Mapping[str, Any],
    out: Path,
    jobs: int | None,
) -> None:
    """Train every router with every seed, print the table, and write it as a page and as a trace."""
    TrainConfig.check(settings)
    at_least("seeds", seeds, 1)
    comparison = Comparison(
        routers=Spec.parse_list(routers),
        steps=steps,
        seeds=tuple(range(seeds)),
        model=model,
        corpus=corpus,
        config=TrainConfig(**settings),
    )
    with steps_done(comparison.steps * len(comparison.cells())) as on_progress:
        results = compare(comparison, out, jobs=jobs, on_progress=on_progress)
    _show_comparison(results)
    page = write_comparison(results, out / "comparison.html")
    numbers = results.save(out / "comparison.zarr.zip")
    sys.stderr.write(f"report: {page.resolve()}\nnumbers: {numbers.resolve()}\n")


def _show_comparison(results: Results) -> None:
    rows = results.rows()
    shown = [name for name in rows[0] if name in _SHOWN or name.startswith("against")]
    table = Table(
        title=f"{results.facts['steps']} steps each, best held-out loss first; every measure is in the report"
    )
    for name in shown:
        table.add_column(name, justify="left" if name == "router" else "right", no_wrap=name == "router")
    for row in rows:
        # the spread over seeds is shown of the loss alone.
        cells = [row[name] if name.startswith(("bit", "against")) else row[name].split(" ± ")[0] for name in shown]
        table.add_row(*(Text(cell) for cell in cells))
    Console(width=max(110, Console().width)).print(table)
