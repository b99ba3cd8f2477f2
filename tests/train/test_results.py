"""Ranks, spreads and doubts of a comparison, from cells written by hand."""

import numpy as np
import pytest

from workbench.trace.checks import validate
from workbench.trace.files import open_trace
from workbench.train.measures import MEASURES
from workbench.train.results import Results

FACTS = {"steps": 5, "model": "tiny"}


def cell(router: str, seed: int, loss: float, **more) -> dict:
    measures = dict.fromkeys(MEASURES, 1.0)
    return {"router": router, "seed": seed, "bits_per_byte": {"a": loss, "b": loss + 1}, **measures, **more}


def results_of(losses: dict[str, list[float]], **flags) -> Results:
    cells = [
        cell(router, seed, loss, **flags.get(router, {}))
        for router, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    seeds = range(len(next(iter(losses.values()))))
    return Results.of(cells, routers=list(losses), seeds=list(seeds), facts=FACTS)


LOSSES = {"base": [3.0, 3.2, 3.1], "worse": [3.5, 3.7, 3.61], "noisy": [2.0, 3.9, 3.0], "seer": [1.0, 1.0, 1.0]}


def test_the_ranking_is_by_mean_loss_and_leaves_out_what_sees_the_future():
    results = results_of(LOSSES, seer={"sees_future": True})
    assert results.ranking() == ["noisy", "base", "worse"]
    rows = {row["router"]: row for row in results.rows()}
    assert [row["router"] for row in results.rows()] == ["noisy", "base", "worse", "seer"]
    assert rows["seer"]["rank"] == "future"
    assert rows["base"]["bit/byte"] == "3.6000 ± 0.1000"


def test_what_stands_out_has_a_star_and_what_does_not_has_none():
    rows = {row["router"]: row for row in results_of(LOSSES, seer={"sees_future": True}).rows()}
    assert rows["base"]["against base"] == rows["base"]["p"] == "-"
    assert rows["worse"]["against base"] == "+0.5033"
    assert rows["worse"]["p"].endswith("*")
    assert not rows["noisy"]["p"].endswith("*")


def test_a_failed_run_is_said_and_never_ranked():
    cells = [cell("base", 0, 3.0), {"router": "broken", "seed": 0, "failed": "loss is nan at step 3"}]
    results = Results.of(cells, routers=["base", "broken"], seeds=[0], facts=FACTS)
    assert results.ranking() == ["base"]
    rows = {row["router"]: row for row in results.rows()}
    assert rows["broken"]["rank"] == rows["broken"]["bit/byte"] == "-"
    assert str(results.data["failed"].sel(router="broken").values) == "loss is nan at step 3"


def test_if_all_failed_there_is_nothing_to_show():
    with pytest.raises(ValueError, match="no run came to an end: loss is nan"):
        Results.of([{"router": "a", "seed": 0, "failed": "loss is nan"}], routers=["a"], seeds=[0], facts=FACTS)


def test_it_is_a_valid_trace_and_comes_back_from_a_file(tmp_path):
    results = results_of(LOSSES, seer={"sees_future": True})
    assert validate(results.trace()) == []
    for name in ("a.zarr.zip", "a.nc"):
        group = open_trace(results.save(tmp_path / name))["compare"]
        assert np.array_equal(group["bits_per_byte"].values, results.data["bits_per_byte"].values)
        assert group["router"].values.tolist() == list(LOSSES)
        assert group["measure"].values.tolist() == list(MEASURES)
        assert group["sees_future"].values.tolist() == [False, False, False, True]
    assert "base" in results._repr_html_()
