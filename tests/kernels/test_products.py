"""Products of the PyTorch engine: dtypes, parts and gradients of matrices."""

import pytest
import torch
from workbench_kernels import products
from workbench_kernels.products import Part, WeightGradient, parts_of, product, product_dtype, sum_dtype


@pytest.mark.parametrize(
    ("dtype", "has_tiles", "expected"),
    [
        (torch.float64, False, torch.float64),
        (torch.float32, True, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.bfloat16, False, torch.float32),
        (torch.float16, True, torch.float32),
    ],
)
def test_half_precision_is_multiplied_as_fast_as_the_cpu_can(monkeypatch, dtype, has_tiles, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    assert product_dtype(torch.empty(1, dtype=dtype)) == expected
    assert product_dtype(torch.empty(1, dtype=dtype, device="meta")) == dtype


def test_sums_are_in_float32_or_float64():
    kinds = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    found = [sum_dtype(torch.empty(1, dtype=dtype)) for dtype in kinds]
    assert found == [torch.float64, torch.float32, torch.float32, torch.float32]


def test_a_product_is_written_in_the_dtype_of_its_place():
    left, right = torch.full((2, 3), 2.0, dtype=torch.bfloat16), torch.ones(3, 2, dtype=torch.bfloat16)
    assert product(left, right, out=torch.empty(2, 2)).tolist() == [[6, 6], [6, 6]]


def test_parts_cover_each_expert_and_know_the_first_and_the_last(monkeypatch):
    monkeypatch.setattr(products, "_LEAST_ROWS", 2)
    monkeypatch.setattr(products, "_PART_ELEMENTS", 6)
    found = list(parts_of([0, 3, 3, 5], torch.empty(3, 2, 4)))
    assert found == [
        (0, [Part(slice(0, 3), True, True)]),
        (2, [Part(slice(3, 5), True, True)]),
    ]
    monkeypatch.setattr(products, "_PART_ELEMENTS", 1)
    expected = [Part(slice(0, 2), True, False), Part(slice(2, 3), False, True)]
    assert next(parts_of([0, 3, 3, 5], torch.empty(3, 2, 4))) == (0, expected)
    assert expected[0].size == 2


def test_an_expert_without_rows_gets_zeros_and_a_buffer_keeps_what_it_has():
    stacked = torch.full((2, 2, 2), torch.nan)
    gradient = WeightGradient("a", stacked, None, [0, 0, 4])
    assert gradient.target[0].eq(0).all()
    kept = torch.ones(2, 1, 1)
    gradient = WeightGradient("a", torch.empty(2, 1, 1), kept, [0, 0, 4])
    for part in (Part(slice(0, 2), True, False), Part(slice(2, 4), False, True)):
        gradient.add(1, part, torch.ones(1, 2), torch.ones(2, 1))
    assert gradient.target is kept
    assert kept.flatten().tolist() == [1, 5]


def test_transposed_matrices_get_transposed_gradients():
    stacked = torch.empty(2, 3, 4).transpose(1, 2)
    assert WeightGradient("a", stacked, None, [0, 1, 2]).target.stride() == stacked.stride()
