"""Every group of rows times its own matrix, against the reference: values and every gradient."""

import pytest
import torch
from workbench_kernels import grouped_mm, offsets_of
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
def offsets(request) -> torch.Tensor:
    return offsets_of(torch.tensor(COUNTS[request.param]))


@pytest.mark.parametrize("tail", [0, 2])
@pytest.mark.parametrize("has_bias", [False, True])
def test_it_agrees_with_its_reference(offsets, draw, agree, tail, has_bias):
    rows, weight, bias = draw(int(offsets[-1]) + tail, 3), draw(len(offsets) - 1, 4, 3), draw(len(offsets) - 1, 4)
    leaves = (rows, weight, bias) if has_bias else (rows, weight)
    ours = grouped_mm(rows, weight, offsets.long(), bias=bias if has_bias else None)
    agree(ours, grouped_mm_ref(rows, weight, offsets, bias if has_bias else None), leaves)
    assert ours[int(offsets[-1]) :].eq(0).all()


def test_gradients_are_those_of_finite_differences(offsets):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(int(offsets[-1]), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(offsets) - 1, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    if len(rows):
        assert torch.autograd.gradcheck(lambda r, w: grouped_mm(r, w, offsets), (rows, weight))


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_it_is_as_accurate_as_its_dtype_allows(engine, dtype, is_turned, distance, accuracy):
    generator = torch.Generator().manual_seed(0)
    offsets = offsets_of(torch.tensor([40, 0, 1, 70]))
    rows, weight = (torch.randn(shape, generator=generator) for shape in ((115, 33), (4, 29, 33)))
    weight = (weight / 33**0.5).to(dtype)
    weight = weight.mT.contiguous().mT if is_turned else weight
    leaves = rows.to(dtype).requires_grad_(), weight.requires_grad_()
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours, reference = grouped_mm(*leaves, offsets), grouped_mm_ref(*exact, offsets)
    upstream = torch.randn(ours.shape, generator=generator).to(dtype)
    of_out, of_gradients = accuracy[dtype]
    assert distance(ours, reference) < of_out
    grads = torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(reference, exact, upstream.double())
    assert max(distance(a, b) for a, b in zip(*grads, strict=True)) < of_gradients
    assert grads[0][1].stride() == weight.stride()


def test_it_compiles_as_one_graph(fullgraph):
    assert fullgraph["grouped_mm"] < 1e-6


def test_the_operator_keeps_its_promises():
    rows, weight = torch.randn(5, 3, requires_grad=True), torch.randn(2, 4, 3, requires_grad=True)
    operators = torch.ops.workbench_kernels
    offsets = offsets_of(torch.tensor([2, 3]))
    torch.library.opcheck(operators.grouped_mm.default, (rows, weight, offsets))
    plain = (torch.randn(5, 4), rows.detach(), weight.detach(), offsets)
    for needs in ([True, True], [False, True], [True, False]):
        torch.library.opcheck(operators.grouped_mm_backward.default, (*plain, needs))


def test_neither_rows_nor_matrices_need_be_contiguous(draw, agree):
    offsets = torch.tensor([0, 2, 2, 5])
    rows, weight = draw(3, 5), draw(3, 3, 4)
    ours = grouped_mm(rows.t(), weight.transpose(1, 2), offsets)
    agree(ours, grouped_mm_ref(rows.t(), weight.transpose(1, 2), offsets), (rows, weight))


def test_an_upstream_gradient_need_not_be_contiguous():
    rows, weight = torch.ones(3, 2, requires_grad=True), torch.ones(2, 4, 2, requires_grad=True)
    grouped_mm(rows, weight, torch.tensor([0, 1, 3])).sum().backward()
    assert rows.grad.tolist() == [[4, 4]] * 3
    assert weight.grad.tolist() == [[[1, 1]] * 4, [[2, 2]] * 4]


@pytest.mark.parametrize("frozen", ["rows", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen):
    leaves = {"rows": torch.ones(3, 2, requires_grad=True), "weight": torch.ones(2, 4, 2, requires_grad=True)}
    leaves[frozen].requires_grad_(False)
    grouped_mm(leaves["rows"], leaves["weight"], torch.tensor([0, 1, 3])).sum().backward()
    assert {name: leaf.grad is not None for name, leaf in leaves.items()} == {
        "rows": frozen != "rows",
        "weight": frozen != "weight",
    }


def test_a_nan_stays_in_its_row():
    rows = torch.ones(4, 2)
    rows[1, 0] = torch.nan
    assert grouped_mm(rows, torch.ones(2, 3, 2), torch.tensor([0, 2, 4])).isnan().all(-1).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_autocast_computes_in_its_dtype(assert_close):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 8, generator=generator, requires_grad=True)
    weight = torch.randn(2, 4, 8, generator=generator, requires_grad=True)
    offsets = torch.tensor([0, 2, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = grouped_mm(rows, weight, offsets)
        twice = grouped_mm(grouped_mm(rows, weight, offsets), torch.ones(2, 3, 4), offsets)
        reference = grouped_mm_ref(rows, weight, offsets)
    assert ours.dtype == twice.dtype == reference.dtype == torch.bfloat16
    got, expected = (torch.autograd.grad(out.float().sum(), (rows, weight)) for out in (ours, reference))
    assert_close(ours, reference)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, theirs, dtype=torch.bfloat16)


@pytest.mark.parametrize("bounds", [[0, 2, 4], [1, 2, 3], [0, 3, 2]])
def test_offsets_must_lie_within_the_rows(bounds):
    with pytest.raises(ValueError, match=r"^offsets must start at 0, never fall and end at 3 rows or before, got \["):
        grouped_mm(torch.ones(3, 2), torch.ones(2, 4, 2), torch.tensor(bounds))


@pytest.mark.parametrize(
    ("rows", "weight", "offsets", "message"),
    [
        (
            torch.ones(3, 2),
            torch.ones(2, 2, 4),
            [0, 1, 3],
            "rows and weight must be N x I and E x O x I",
        ),
        (
            torch.ones(3, 2),
            torch.ones(2, 4, 2).double(),
            [0, 1, 3],
            "rows and weight must have one float",
        ),
        (
            torch.ones(3, 2),
            torch.ones(2, 4, 2),
            [1, 2],
            "offsets must be 3 numbers of int32 or int64",
        ),
        (
            torch.ones(1, 2).expand(2**31 - 2**16, 2),
            torch.ones(2, 4, 2),
            [0, 1, 3],
            r"rows must be less than 2\*\*31 - 2\*\*16, got 2147418112; split",
        ),
        (torch.ones(3, 2), torch.ones(2, 4, 2, device="meta"), [0, 1, 3], "rows, weight and offsets must be on one"),
    ],
)
def test_what_does_not_fit_is_refused(rows, weight, offsets, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        grouped_mm.__wrapped__(rows, weight, torch.tensor(offsets))


def test_the_same_input_gives_the_same_bits():
    rows, weight = torch.randn(40, 16, requires_grad=True), torch.randn(4, 24, 16, requires_grad=True)
    offsets = torch.tensor([0, 17, 17, 20, 40])
    runs = [torch.autograd.grad(grouped_mm(rows, weight, offsets).sin().sum(), (rows, weight)) for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_the_nan_of_a_bias_stays_in_its_group_and_that_of_a_gradient_too():
    bias = torch.tensor([[1.0], [torch.nan], [3.0]], requires_grad=True)
    offsets = torch.tensor([0, 2, 2, 3])
    out = grouped_mm(torch.ones(4, 2), torch.zeros(3, 1, 2), offsets, bias=bias)
    assert out.flatten().tolist() == [1, 1, 3, 0]
    (grad,) = torch.autograd.grad(out, bias, torch.tensor([[1.0], [torch.nan], [5.0], [7.0]]))
    assert (grad.isnan().flatten().tolist(), grad[1:].flatten().tolist()) == ([True, False, False], [0, 5])
