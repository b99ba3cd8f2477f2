"""The counting sort is that of the reference, and the tiles cover every row once."""

import pytest

CASES = [
    "ragged",
    "an_expert_without_rows",
    "all_in_one_expert",
    "one_choice",
    "all_experts",
    "no_tokens",
    "one_token",
    "no_choices",
    "foreign_ids",
    "all_absent",
    "the_same_expert_twice",
]


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_that_of_the_reference(case, interpreted, all_true):
    all_true(interpreted("plan_equal", case=case))


def test_ids_may_be_int32(interpreted, all_true):
    all_true(interpreted("plan_equal", case="foreign_ids", dtype="int32"))


@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "all_absent", "all_in_one_expert"])
def test_slots_counted_in_a_launch_of_their_own(case, interpreted, all_true):
    all_true(interpreted("plan_equal", case=case, counts_apart=True))


def test_more_slots_than_a_program_counts_at_once(interpreted, all_true):
    all_true(interpreted("plan_equal", case="many", block=1024, counts_apart=False))


@pytest.mark.parametrize(
    ("tokens", "experts", "kernels"),
    [
        (4096, 16, ["_place"]),
        (8192, 31, ["_place"]),
        (8192, 64, ["_count", "_place"]),
        (8193, 31, ["_count", "_place"]),
    ],
)
def test_few_slots_take_one_launch(tokens, experts, kernels, compiled):
    words = {"tokens": tokens, "experts": experts, "top_k": 2, "width": 64, "features": 64, "dtype": "bfloat16"}
    launched = compiled("engine_launches", **words)["kernels"]
    assert launched[: launched.index("_up")] == kernels


def test_a_tile_past_all_rows_has_none(interpreted, all_true):
    all_true(interpreted("tiles_without_rows"))


@pytest.mark.parametrize("block", [1, 16])
def test_tiles_cover_every_row_once(block, interpreted, all_true):
    all_true(interpreted("tiles_cover", block_m=block))


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, "many", "many_skewed"])
def test_the_plan_on_a_gpu(case, on_gpu, all_true):
    for block in (128, 1024):
        for counts_apart in (False, True):
            all_true(on_gpu("plan_equal", case=case, block=block, counts_apart=counts_apart))
