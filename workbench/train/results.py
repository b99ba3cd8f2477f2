"""What a comparison found: labelled numbers, ranked, with the differences that stand out of the noise."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import numpy as np
import xarray as xr

from workbench import __version__
from workbench.core.html import table
from workbench.trace.files import save_trace
from workbench.trace.schema import GROUPS, SCHEMA, TEXT, Trace
from workbench.train.measures import MEASURES
from workbench.train.paired import holm, paired_p_values

__all__ = ["CERTAIN", "Results"]

CERTAIN = 0.05
"""Below this p-value a difference stands out of the noise."""


@final
@dataclass(frozen=True, eq=False)
class Results:
    """Measures of every router and seed.

    Args:
        data: variables over `router` and `seed`, `bits_per_byte` over `domain` too; `sees_future` and
            `failed` over `router`. NaN where a run failed.
        facts: what was compared, in words.
    """

    data: xr.Dataset
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        cells: Sequence[Mapping[str, Any]],
        *,
        routers: Sequence[str],
        seeds: Sequence[int],
        facts: Mapping[str, Any],
    ) -> "Results":
        """Results from those of the cells, one for each router and seed in any order.

        Raises:
            ValueError: no run came to an end; the message has their reasons.
        """
        place = {(cell["router"], cell["seed"]): cell for cell in cells}
        whole = [cell for cell in cells if "failed" not in cell]
        if not whole:
            raise ValueError("no run came to an end: " + "; ".join(sorted({str(c["failed"]) for c in cells})))
        domains = list(whole[0]["bits_per_byte"])
        grid = [[place[router, seed] for seed in seeds] for router in routers]
        bits = [[[cell.get("bits_per_byte", {}).get(d, np.nan) for d in domains] for cell in row] for row in grid]
        data = xr.Dataset(
            {
                "bits_per_byte": (
                    ("router", "seed", "domain"),
                    bits,
                    {"units": "bit/byte", "long_name": "held-out loss"},
                ),
                **{
                    name: (
                        ("router", "seed"),
                        [[_number(cell.get(name)) for cell in row] for row in grid],
                        {"units": measure.units, "long_name": measure.text},
                    )
                    for name, measure in MEASURES.items()
                },
                "sees_future": ("router", [any(cell.get("sees_future", False) for cell in row) for row in grid]),
                "failed": ("router", ["; ".join(sorted({c["failed"] for c in row if "failed" in c})) for row in grid]),
            },
            coords={"router": list(routers), "seed": list(seeds), "domain": domains},
        )
        return cls(data, facts)

    @property
    def loss(self) -> xr.DataArray:
        """Held-out loss of every run, mean over domains [bit/byte]."""
        return self.data["bits_per_byte"].mean("domain", keep_attrs=True)

    def p_values(self) -> xr.DataArray:
        """Paired over seeds, between every two routers; not corrected for the number of questions."""
        found = paired_p_values(self.loss.values)
        return xr.DataArray(
            found,
            dims=("router", "other"),
            coords={"router": self.data["router"].values, "other": self.data["router"].values},
            attrs={"units": "1", "long_name": "p-value of a paired t-test over seeds"},
        )

    def ranking(self) -> list[str]:
        """Routers from the lowest held-out loss up; those that see the future are not in it, nor those that failed."""
        mean = self.loss.mean("seed", skipna=False)
        is_ranked = ~self.data["sees_future"].values & np.isfinite(mean.values)
        order = np.argsort(mean.values, kind="stable")
        return [str(self.data["router"].values[i]) for i in order if is_ranked[i]]

    def rows(self) -> list[dict[str, str]]:
        """One line per router for people: rank, loss with its spread over seeds, and every measure."""
        ranking, baseline = self.ranking(), str(self.data["router"].values[0])
        corrected = holm(self.p_values().sel(other=baseline).values)
        rows = []
        for index, router in enumerate(self.data["router"].values):
            one, loss = self.data.sel(router=router), self.loss.sel(router=router).values
            rank = str(ranking.index(router) + 1) if router in ranking else ("future" if one["sees_future"] else "-")
            row = {"rank": rank, "router": str(router), "bit/byte": _spread(loss, 4)}
            row |= _against(baseline, loss - self.loss.values[0], corrected[index], is_self=index == 0)
            for name, measure in MEASURES.items():
                row[measure.heading] = _spread(one[name].values * measure.scale, measure.digits)
            rows.append(row)
        order = {router: place for place, router in enumerate(ranking)}
        return sorted(rows, key=lambda row: order.get(row["router"], len(order)))

    def trace(self) -> Trace:
        """The numbers as a trace whose one group is `compare`."""
        about = {
            "schema": SCHEMA,
            "created_at": datetime.now(UTC).isoformat(),
            "versions": json.dumps({"workbench": __version__}),
            "facts": json.dumps(dict(self.facts)),
        }
        data, p_values, names = self.data, self.p_values(), list(MEASURES)
        values = np.stack([data[name].transpose("router", "seed").values for name in names], axis=-1)
        columns = {
            "router": np.array(data["router"].values, dtype=TEXT),
            "other": np.array(data["router"].values, dtype=TEXT),
            "seed": data["seed"].values,
            "domain": np.array(data["domain"].values, dtype=TEXT),
            "measure": np.array(names, dtype=TEXT),
            "bits_per_byte": data["bits_per_byte"].values,
            "value": values,
            "unit": np.array([MEASURES[name].units for name in names], dtype=TEXT),
            "p_value": p_values.values,
            "sees_future": data["sees_future"].values,
            "failed": np.array(data["failed"].values, dtype=TEXT),
        }
        known = GROUPS["compare"].variables
        made = {name: xr.Variable(known[name].dims, column, known[name].attrs) for name, column in columns.items()}
        coords = {name: one for name, one in made.items() if known[name].is_coordinate}
        group = xr.Dataset({name: one for name, one in made.items() if name not in coords}, coords=coords)
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=about), "/compare": group})

    def save(self, path: Path) -> Path:
        """The trace as one file, `.zarr.zip` or `.nc`."""
        return save_trace(self.trace(), path)

    def __repr__(self) -> str:
        return (
            f"Results({self.data.sizes['router']} routers, {self.data.sizes['seed']} seeds, best {self.ranking()[:1]})"
        )

    def _repr_html_(self) -> str:
        rows = self.rows()
        shown = ("rank", "router", "bit/byte", *[key for key in rows[0] if key.startswith("against")])
        return table("comparison", shown, [[row[key] for key in shown] for row in rows])


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _spread(values: np.ndarray, digits: int) -> str:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return "-"
    spread = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():,.{digits}f}{spread}"


def _against(baseline: str, values: np.ndarray, p_value: float, *, is_self: bool) -> dict[str, str]:
    known = values[np.isfinite(values)]
    is_known = not is_self and len(known) > 0
    # a star stands beside what stands out of the noise, so that a table can be read at a glance.
    p = f"{p_value:.3f}{'*' if p_value < CERTAIN else ''}" if is_known and np.isfinite(p_value) else "-"
    return {f"against {baseline}": f"{known.mean():+.4f}" if is_known else "-", "p": p}
