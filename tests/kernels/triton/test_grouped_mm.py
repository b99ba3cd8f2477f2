"""Grouped products and their backward against float64; the rows of nobody become zeros."""

import pytest


@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "an_expert_without_rows", "all_absent"])
def test_float32(case, interpreted, small_errors):
    small_errors(interpreted("grouped_errors", case=case, dtype="float32"), "float32")


@pytest.mark.parametrize("case", ["ragged", "foreign_ids"])
def test_float16_with_the_configurations_of_the_table(case, interpreted, small_errors):
    small_errors(interpreted("grouped_errors", case=case, dtype="float16", config=False), "float16")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "all_absent", "many", "many_skewed"])
def test_on_a_gpu(case, dtype, on_gpu, small_errors):
    small_errors(on_gpu("grouped_errors", case=case, dtype=dtype), dtype)
    small_errors(on_gpu("grouped_errors", case=case, dtype=dtype, config=False), dtype)
