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


@pytest.mark.parametrize("block", [1, 16])
def test_tiles_cover_every_row_once(block, interpreted, all_true):
    all_true(interpreted("tiles_cover", block_m=block))


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, "many", "many_skewed"])
def test_the_plan_on_a_gpu(case, on_gpu, all_true):
    all_true(on_gpu("plan_equal", case=case, block=128))
    all_true(on_gpu("plan_equal", case=case, block=1024))
