"""A race: the ratio is to the fastest peer, and errors stand beside times."""

import math

import torch
from workbench_kernels.bench.cases import Case
from workbench_kernels.bench.peers import ORACLE, OURS
from workbench_kernels.bench.race import Race, Result, race

SMALL = Case("small", 12, 16, 8, 4, 2)


def finished(**seconds):
    results = {name.replace("_", " "): Result((taken,)) for name, taken in seconds.items()}
    return Race(SMALL, torch.float32, "cpu", False, results)


def test_the_ratio_is_to_the_fastest_peer_and_neither_the_oracle_nor_our_fallback_is_one():
    done = finished(workbench=2.0, slow=9.0, fast=5.0, workbench_without_a_compiler=1.0, dense_products_alone=0.5)
    assert OURS in done.results and ORACLE in done.results
    assert done.ratio == 2.5


def test_without_a_peer_there_is_no_ratio():
    assert math.isnan(finished(workbench=1.0).ratio)


def test_everybody_runs_and_errors_are_those_of_float32():
    done = race(SMALL, learns=True, seconds=0)
    assert all(len(result.seconds) == 3 for result in done.results.values())
    assert all(result.error < 1e-6 and result.gradient_error < 2e-6 for result in done.results.values())


def test_the_table_says_what_was_run_and_who_did_not():
    done = finished(workbench=2.0)
    text = str(Race(SMALL, torch.float32, "cpu", False, {**done.results, "absent": Result(note="not installed")}))
    assert "small: 12 tokens, width 16, hidden 8, 4 experts, 2 per token, float32, forward, cpu" in text
    assert "| absent                       | not installed" in text
    assert "2000.00" in text
