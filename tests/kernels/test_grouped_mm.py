"""Every group of rows times its own matrix, against the reference: values and every gradient."""

import pytest
import torch
from workbench_kernels import grouped_mm
from workbench_kernels.reference import grouped_mm_ref

COUNTS = {
    "ragged": [3, 1, 4],
    "empty_groups": [0, 2, 0, 3, 0],
    "one_group": [5],
    "all_in_the_last": [0, 0, 6],
    "no_rows": [0, 0],
    "one_row": [0, 1],
}


@pytest.fixture(params=COUNTS)
def counts(request) -> torch.Tensor:
    return torch.tensor(COUNTS[request.param])


def test_it_agrees_with_its_reference(counts, draw, agree):
    rows, weight = draw(int(counts.sum()), 3), draw(len(counts), 4, 3)
    agree(grouped_mm(rows, weight, counts), grouped_mm_ref(rows, weight, counts), (rows, weight))


def test_gradients_are_those_of_finite_differences(counts):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(int(counts.sum()), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(counts), 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    if len(rows):
        assert torch.autograd.gradcheck(lambda r, w: grouped_mm(r, w, counts), (rows, weight))


def test_neither_rows_nor_matrices_need_be_contiguous(draw, agree):
    counts = torch.tensor([2, 0, 3])
    rows, weight = draw(3, 5), draw(3, 3, 4)
    ours = grouped_mm(rows.t(), weight.transpose(1, 2), counts)
    agree(ours, grouped_mm_ref(rows.t(), weight.transpose(1, 2), counts), (rows, weight))


def test_an_upstream_gradient_need_not_be_contiguous():
    rows, weight = torch.ones(3, 2, requires_grad=True), torch.ones(2, 4, 2, requires_grad=True)
    grouped_mm(rows, weight, torch.tensor([1, 2])).sum().backward()
    assert rows.grad.tolist() == [[4, 4]] * 3
    assert weight.grad.tolist() == [[[1, 1]] * 4, [[2, 2]] * 4]


@pytest.mark.parametrize("frozen", ["rows", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen):
    leaves = {"rows": torch.ones(3, 2, requires_grad=True), "weight": torch.ones(2, 4, 2, requires_grad=True)}
    leaves[frozen].requires_grad_(False)
    grouped_mm(leaves["rows"], leaves["weight"], torch.tensor([1, 2])).sum().backward()
    assert {name: leaf.grad is not None for name, leaf in leaves.items()} == {
        "rows": frozen != "rows",
        "weight": frozen != "weight",
    }


def test_a_nan_stays_in_its_row():
    rows = torch.ones(4, 2)
    rows[1, 0] = torch.nan
    assert grouped_mm(rows, torch.ones(2, 3, 2), torch.tensor([2, 2])).isnan().all(-1).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_autocast_computes_in_its_dtype(assert_close):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 8, generator=generator, requires_grad=True)
    weight = torch.randn(2, 4, 8, generator=generator, requires_grad=True)
    counts = torch.tensor([2, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = grouped_mm(rows, weight, counts)
        twice = grouped_mm(grouped_mm(rows, weight, counts), torch.ones(2, 3, 4), counts)
        reference = grouped_mm_ref(rows, weight, counts)
    assert ours.dtype == twice.dtype == reference.dtype == torch.bfloat16
    got, expected = (torch.autograd.grad(out.float().sum(), (rows, weight)) for out in (ours, reference))
    assert_close(ours, reference)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, theirs, dtype=torch.bfloat16)


@pytest.mark.parametrize(("counts", "total"), [([1, 1], 2), ([2, 2], 4)])
def test_counts_must_add_up(counts, total):
    with pytest.raises(ValueError, match=rf"^counts must sum to the number of rows 3, got {total}$"):
        grouped_mm(torch.ones(3, 2), torch.ones(2, 4, 2), torch.tensor(counts))


def test_the_same_input_gives_the_same_bits():
    rows, weight = torch.randn(40, 16, requires_grad=True), torch.randn(4, 24, 16, requires_grad=True)
    counts = torch.tensor([17, 0, 3, 20])
    runs = [torch.autograd.grad(grouped_mm(rows, weight, counts).sin().sum(), (rows, weight)) for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
