"""Residual blocks: the worked numbers, the norm of what is left, and the bytes."""

from itertools import pairwise

import pytest
import torch

from workbench.offload.formats.residual import Residual, magnitude_factors
from workbench.offload.store.blocks import parts_of


def relative(left: list[float]) -> list[float]:
    return [(one / left[0]) ** 0.5 for one in left[1:]]


def test_the_worked_matrix():
    matrix = torch.tensor([[3.0, -1.0], [2.0, 0.0]])
    form, out = Residual(levels=2), [torch.empty(2, 2)]
    pages, left = form.encode([matrix])
    form.decode(pages[:1], out)
    # half precision keeps three digits and a half.
    assert torch.allclose(out[0], torch.tensor([[3.0652, -0.7236], [1.8944, 0.4472]]), atol=2e-3)
    assert relative(left)[0] == pytest.approx(0.1444, abs=1e-3)
    form.decode(pages, out)
    assert torch.allclose(out[0], matrix, atol=2e-3)
    below, right = magnitude_factors(matrix.double(), 1)
    assert below.mul(right).tolist() == [
        pytest.approx([3.0652, 0.7236], abs=1e-4),
        pytest.approx([1.8944, 0.4472], abs=1e-4),
    ]


def test_the_worked_matrix_where_its_columns_were_scaled():
    scale = torch.tensor([4.0, 0.5])
    matrix = torch.tensor([[3.0, -1.0], [2.0, 0.0]]) / scale
    form, out = Residual(levels=2), [torch.empty(2, 2)]
    pages, left = form.encode([matrix], [scale])
    form.decode(pages[:1], out)
    assert torch.allclose(out[0] * scale, torch.tensor([[3.0652, -0.7236], [1.8944, 0.4472]]), atol=2e-3)
    # the norm is that of scaled columns, 14, as if there were no scale.
    assert left[0] == pytest.approx(14) and relative(left)[0] == pytest.approx(0.1444, abs=1e-3)
    form.decode(pages, out)
    assert torch.allclose(out[0] * scale, torch.tensor([[3.0, -1.0], [2.0, 0.0]]), atol=2e-3)


def inputs_of_uneven_size() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(400, 48, generator=generator) * torch.logspace(-2, 1, 48)


def test_a_text_misses_less_where_columns_are_scaled_by_its_inputs():
    matrix, x = torch.randn(32, 48, generator=torch.Generator().manual_seed(1)), inputs_of_uneven_size()
    scale, form, out = x.square().mean(0).sqrt(), Residual(levels=4), [torch.empty(32, 48)]
    missed = {}
    for name, scales in (("plain", None), ("scaled", [scale])):
        pages, left = form.encode([matrix], scales)
        for level in range(1, 5):
            form.decode(pages[:level], out)
            missed[name, level] = float((x @ (out[0] - matrix).T).square().sum() / len(x))
            if scales is not None:
                # columns are independent here, so the norm that is kept is what the text misses.
                assert left[level] == pytest.approx(missed[name, level], rel=0.05)
    # 0.85, 0.72, 0.63 and 0.52 of it on this seed.
    assert all(missed["scaled", level] < 0.95 * missed["plain", level] for level in range(1, 5))


def test_columns_of_one_size_are_decomposed_as_they_are():
    matrix, form = torch.randn(12, 9, generator=torch.Generator().manual_seed(1)), Residual(levels=3, rank=2)
    plain, scaled = form.encode([matrix, matrix[0]]), form.encode([matrix, matrix[0]], [torch.full((9,), 8.0), None])
    for one, two in zip(plain.pages, scaled.pages, strict=True):
        assert all(map(torch.equal, one, two))


def test_every_matrix_of_a_stack_has_scales_of_its_own():
    stack, scale = torch.randn(2, 6, 5), torch.tensor([[1.0, 2, 3, 4, 5], [50, 40, 30, 20, 10]])
    form, out, alone = Residual(levels=2), [torch.empty(2, 6, 5)], [torch.empty(6, 5)]
    form.decode(form.encode([stack], [scale]).pages, out)
    form.decode(form.encode([stack[1]], [scale[1]]).pages, alone)
    assert torch.allclose(out[0][1], alone[0], rtol=5e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_sizes_far_apart_stay_within_half_precision(dtype):
    matrix, scale = torch.randn(16, 24).to(dtype), torch.logspace(-3, 3, 24)
    left = Residual(levels=6, rank=2).encode([matrix], [scale]).left
    assert all(after < before for before, after in pairwise(left)) and left[-1] < 0.05 * left[0]


def test_equal_magnitudes_are_exact_after_one_block():
    matrix = torch.where(torch.rand(16, 24, generator=torch.Generator().manual_seed(0)) < 0.5, -0.25, 0.25)
    left = Residual(levels=1).encode([matrix]).left
    assert relative(left)[0] < 1e-3
    below, right = magnitude_factors(matrix.double(), 1)
    assert (below @ right - 0.25).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(20, 33), (33, 20), (1, 9), (9, 1)])
@pytest.mark.parametrize("rank", [1, 4])
def test_a_block_takes_its_squared_singular_values_from_the_norm(shape, rank):
    left = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for _ in range(4):
        singular = torch.linalg.svdvals(left.abs())[:rank]
        below, right = magnitude_factors(left, rank)
        assert below.shape[1] == right.shape[0] == min(rank, *shape)
        said = torch.where(left >= 0, 1.0, -1.0) * (below @ right)
        before, after = left.square().sum(), (left - said).square().sum()
        assert after == pytest.approx(float(before - singular.square().sum()), abs=1e-10)
        if before > 1e-20:
            assert after < before
        left = left - said


@pytest.mark.parametrize(
    ("size", "rank", "expected"),
    [(256, 1, [0.601, 0.360, 0.241, 0.180, 0.149, 0.131]), (64, 4, [0.538, 0.296, 0.167, 0.100, 0.064, 0.043])],
)
def test_what_is_left_of_a_gaussian_matrix(size, rank, expected):
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    assert relative(Residual(levels=6, rank=rank).encode([matrix]).left) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "num_bytes"),
    [(512, 512, 16, 65536), (512, 512, 1, 34816), (256, 1024, 4, 256 * 1024 * 1.3125 / 8)],
)
def test_bytes_of_a_block(rows, columns, rank, num_bytes):
    page = Residual(levels=1, rank=rank).encode([torch.randn(rows, columns)]).pages[0]
    assert parts_of(page).num_bytes == num_bytes


def test_vectors_and_stacks_of_matrices_have_factors_of_their_own():
    tensors = [torch.randn(2, 6, 5), torch.randn(7)]
    form = Residual(levels=1, rank=2)
    page = form.encode(tensors).pages[0]
    assert [tuple(part.shape) for part in page] == [(8,), (2, 6, 2), (2, 2, 5), (1,), (1, 1, 1), (1, 1, 7)]
    out = [torch.empty_like(one) for one in tensors]
    form.decode([page], out)
    # of one row there is nothing to lose but half precision.
    assert torch.allclose(out[1], tensors[1], rtol=2e-3)
    alone = [torch.empty(6, 5)]
    form.decode(form.encode([tensors[0][1]]).pages, alone)
    assert torch.allclose(out[0][1], alone[0], atol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_factors_have_the_size_of_the_weights(size):
    matrix = torch.rand(12, 9, generator=torch.Generator().manual_seed(0)) + 1
    below, right = magnitude_factors(matrix * size, 2)
    expected, other = magnitude_factors(matrix, 2)
    assert torch.allclose(below @ right, (expected @ other) * size, rtol=1e-4)


def test_nothing_is_left_of_zeros():
    assert Residual().encode([torch.zeros(4, 6)]).left == [0, 0, 0, 0, 0]


def test_a_block_has_at_least_one_factor():
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        Residual(rank=0)
