"""Products of the PyTorch engine: dtypes, libraries and gradients of matrices."""

import pytest
import torch
from workbench_kernels import products
from workbench_kernels.parts import Part, Piece
from workbench_kernels.products import WeightGradient, add_product, cast, product, product_dtype, sum_dtype, wide_dtype

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.fixture
def cpu_with(monkeypatch):
    """A CPU with such instructions, as far as PyTorch says."""

    def pretend(*, tiles=False, pairs=False, wide=True, onednn=True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: pairs)
        monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: wide)
        monkeypatch.setattr(products, "_has_onednn", lambda: onednn)

    return pretend


@pytest.mark.parametrize(
    ("cpu", "dtype", "multiplied_in", "exactly_in"),
    [
        ({}, FLOAT64, FLOAT64, FLOAT64),
        ({"tiles": True}, FLOAT32, FLOAT32, FLOAT32),
        ({"tiles": True}, BFLOAT16, BFLOAT16, BFLOAT16),
        ({"pairs": True}, BFLOAT16, BFLOAT16, FLOAT32),
        ({}, BFLOAT16, FLOAT32, FLOAT32),
        ({"pairs": True, "onednn": False}, BFLOAT16, FLOAT32, FLOAT32),
        ({"tiles": True, "pairs": True}, FLOAT16, FLOAT32, FLOAT32),
    ],
)
def test_half_precision_is_multiplied_as_fast_as_the_cpu_can(cpu_with, cpu, dtype, multiplied_in, exactly_in):
    cpu_with(**cpu)
    tensor = torch.empty(1, dtype=dtype)
    assert (product_dtype(tensor), wide_dtype(tensor)) == (multiplied_in, exactly_in)
    assert product_dtype(tensor.to("meta")) == wide_dtype(tensor.to("meta")) == dtype


def test_sums_are_in_float32_or_float64():
    found = [sum_dtype(torch.empty(1, dtype=dtype)) for dtype in (FLOAT64, FLOAT32, BFLOAT16, FLOAT16)]
    assert found == [FLOAT64, FLOAT32, FLOAT32, FLOAT32]


def test_only_another_dtype_is_copied():
    tensor = torch.ones(2, 3)
    assert cast(tensor, FLOAT32, "a") is tensor
    assert cast(tensor, BFLOAT16, "a").tolist() == tensor.tolist()


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(37, 65, generator=generator), torch.randn(65, 29, generator=generator)


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1)], ids=str)
def test_both_libraries_multiply_float32_in_any_orientation(cpu_with, factors, turned, onednn, distance):
    if onednn and not products._has_onednn():
        pytest.skip("this PyTorch was built without oneDNN")
    cpu_with(onednn=onednn)
    left, right = (one.t().contiguous().t() if i in turned else one for i, one in enumerate(factors))
    exact = left.double() @ right.double()
    out = torch.full((37, 29), torch.nan)
    assert product(left, right, out=out) is out
    assert distance(out, exact) < 5e-7
    assert distance(add_product(left, right, out=out), 2 * exact) < 5e-7


def test_float32_takes_the_library_that_uses_the_whole_width(cpu_with, factors, monkeypatch):
    asked = []
    monkeypatch.setattr(products, "_onednn", lambda left, right: asked.append(1) or left @ right)
    for cpu in ({"wide": False}, {"onednn": False}, {}):
        cpu_with(**cpu)
        product(*factors, out=torch.empty(37, 29))
    assert len(asked) == 1
    product(factors[0].double(), factors[1].double(), out=torch.empty(37, 29, dtype=FLOAT64))
    product(torch.empty(0, 65), factors[1], out=torch.empty(0, 29))
    assert len(asked) == 1


@pytest.mark.parametrize(("is_exact", "least", "most"), [(False, 1e-3, 2.5e-3), (True, 0, 1e-5)])
def test_an_exact_product_is_not_rounded_to_the_dtype_of_its_factors(factors, is_exact, least, most, distance):
    left, right = (one.bfloat16() for one in factors)
    found = product(left, right, out=torch.empty(37, 29), is_exact=is_exact)
    assert least <= distance(found, left.double() @ right.double()) < most


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_every_piece_takes_the_matrix_of_its_expert(is_turned, dtype):
    stacked = torch.tensor([[[1.0, 2.0]], [[8.0, 8.0]], [[3.0, 4.0]]], dtype=FLOAT16)
    stacked = stacked if is_turned else stacked.mT.contiguous()
    part = Part(slice(4, 7), (Piece(0, slice(0, 1), True, True), Piece(2, slice(1, 3), False, True)))
    rows = torch.tensor([[1, 1], [1, 0], [0, 2]], dtype=dtype)
    out = products.products(part, rows, stacked, out=torch.empty(3, 1), is_turned=is_turned)
    assert out.tolist() == [[3], [3], [8]]


WHOLE = Part(slice(0, 4), (Piece(1, slice(0, 4), True, True),))
HALVES = (
    Part(slice(0, 2), (Piece(1, slice(0, 2), True, False),)),
    Part(slice(2, 4), (Piece(1, slice(0, 2), False, True),)),
)


@pytest.mark.parametrize("parts", [(WHOLE,), HALVES], ids=["whole", "halves"])
@pytest.mark.parametrize("kept", [None, 1.0])
@pytest.mark.parametrize(
    ("factors", "stored"),
    [(FLOAT64, FLOAT64), (FLOAT32, FLOAT32), (FLOAT32, BFLOAT16), (BFLOAT16, FLOAT32), (BFLOAT16, BFLOAT16)],
    ids=str,
)
def test_a_gradient_is_written_or_added_to_what_is_there(parts, kept, factors, stored):
    stacked = torch.full((2, 1, 1), torch.nan, dtype=stored)
    into = None if kept is None else torch.full_like(stacked, kept)
    gradient = WeightGradient("a", stacked, into, [0, 0, 4])
    for part in parts:
        gradient.add(part, torch.ones(part.size, 1, dtype=factors), torch.full((part.size, 1), 2.0, dtype=factors))
    assert gradient.target.flatten().tolist() == ([0, 8] if kept is None else [1, 9])
    assert into is None or gradient.target is into


def test_parts_of_a_gradient_are_rounded_once():
    # 256 + 1 is 256 in bfloat16, so one rounding at a time would lose both ones.
    gradient = WeightGradient("a", torch.empty(2, 1, 1, dtype=BFLOAT16), None, [0, 0, 6])
    pieces = ((0, 2, 256.0), (2, 4, 1.0), (4, 6, 1.0))
    for low, high, value in pieces:
        part = Part(slice(low, high), (Piece(1, slice(0, 2), low == 0, high == 6),))
        gradient.add(part, torch.full((2, 1), 0.5, dtype=BFLOAT16), torch.full((2, 1), value, dtype=BFLOAT16))
    assert gradient.target[1].item() == 258


def test_transposed_matrices_get_transposed_gradients():
    stacked = torch.empty(2, 3, 4).transpose(1, 2)
    assert WeightGradient("a", stacked, None, [0, 1, 2]).target.stride() == stacked.stride()
