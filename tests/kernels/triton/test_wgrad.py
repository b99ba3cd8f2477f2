"""Weight gradients with either side gathered: written, or added to what is there."""

import pytest

EXACT = ("zeros_where_empty", "none_returned", "ordered")
CASES = ["all_in_one_expert", "foreign_ids", "an_expert_without_rows", "one_token"]


@pytest.mark.parametrize("gathers", ["left", "right"])
@pytest.mark.parametrize("case", ["all_in_one_expert", "foreign_ids", "an_expert_without_rows"])
def test_float32(case, gathers, interpreted, small_errors):
    small_errors(interpreted("wgrad_errors", case=case, dtype="float32", gathers=gathers), "float32", exact=EXACT)


def test_float16(interpreted, small_errors):
    small_errors(interpreted("wgrad_errors", case="ragged", dtype="float16", gathers="left"), "float16", exact=EXACT)


def test_the_largest_expert_has_the_first_place(interpreted, all_true):
    all_true(interpreted("every_place_has_its_expert"))


@pytest.mark.parametrize("case", CASES)
def test_both_gradients_of_a_layer_in_one_launch(case, interpreted, small_errors):
    small_errors(interpreted("both_wgrad_errors", case=case, dtype="float32"), "float32", exact=EXACT)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_both_with_the_configurations_of_the_table(dtype, interpreted, small_errors):
    words = {"case": "ragged", "dtype": dtype, "config": False}
    small_errors(interpreted("both_wgrad_errors", **words), dtype, exact=EXACT)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", [*CASES, "many", "many_skewed"])
def test_both_on_a_gpu(case, dtype, on_gpu, small_errors):
    for config in (True, False):
        words = {"case": case, "dtype": dtype, "config": config}
        small_errors(on_gpu("both_wgrad_errors", **words), dtype, exact=EXACT)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("gathers", ["left", "right"])
@pytest.mark.parametrize("case", ["all_in_one_expert", "foreign_ids", "many", "many_skewed"])
def test_on_a_gpu(case, gathers, dtype, on_gpu, small_errors):
    small_errors(on_gpu("wgrad_errors", case=case, dtype=dtype, gathers=gathers), dtype, exact=EXACT)
