"""Sums over a token's rows; rows of nobody and weights of absent slots are NaN and are not read."""

import pytest


@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "all_absent", "no_choices"])
def test_float32(case, interpreted, small_errors):
    small_errors(interpreted("combine_errors", case=case, dtype="float32"), "float32", exact=("is_wide",))


def test_float16(interpreted, small_errors):
    small_errors(interpreted("combine_errors", case="foreign_ids", dtype="float16"), "float16", exact=("is_wide",))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "all_absent", "no_choices", "many"])
def test_on_a_gpu(case, dtype, on_gpu, small_errors):
    small_errors(on_gpu("combine_errors", case=case, dtype=dtype), dtype, exact=("is_wide",))
