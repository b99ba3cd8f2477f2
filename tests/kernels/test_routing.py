"""Tokens to rows and back, against the references: values and every gradient."""

import pytest
import torch
from workbench_kernels import permute, unpermute
from workbench_kernels.reference import permute_ref, unpermute_ref
from workbench_kernels.routing import gather_sum, rows_to_slots, slots_to_rows


def test_permute_agrees_with_its_reference(case, draw, agree):
    x = draw(len(case.expert), 5)
    agree(permute(x, case.rows, case.plan.row_of), permute_ref(x, case.rows), (x,))


def test_unpermute_agrees_with_its_reference(case, draw, agree):
    rows, weight = draw(len(case.rows), 5), draw(*case.expert.shape)
    ours = unpermute(rows, case.rows, case.plan.row_of, weight)
    agree(ours, unpermute_ref(rows, case.plan.row_of, weight), (rows, weight))


def test_there_and_back_agrees_with_its_reference(case, draw, agree):
    x, weight = draw(len(case.expert), 5), draw(*case.expert.shape)
    ours = unpermute(permute(x, case.rows, case.plan.row_of).tanh(), case.rows, case.plan.row_of, weight)
    agree(ours, unpermute_ref(permute_ref(x, case.rows).tanh(), case.plan.row_of, weight), (x, weight))


@pytest.mark.parametrize("name", ["ragged", "dropped", "the_same_expert_twice"])
def test_gradients_are_those_of_finite_differences(case_named, name):
    case = case_named(name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(case.expert), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(case.expert.shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def there_and_back(x, weight):
        return unpermute(permute(x, case.rows, case.plan.row_of).sin(), case.rows, case.plan.row_of, weight)

    assert torch.autograd.gradcheck(there_and_back, (x, weight))


def test_tokens_need_not_be_contiguous(case_named, draw, agree):
    case = case_named("dropped")
    x = draw(5, len(case.expert))
    agree(permute(x.t(), case.rows, case.plan.row_of), permute_ref(x.t(), case.rows), (x,))
    rows, weight = draw(5, len(case.rows)), draw(case.expert.shape[1], len(case.expert))
    ours = unpermute(rows.t(), case.rows, case.plan.row_of, weight.t())
    agree(ours, unpermute_ref(rows.t(), case.plan.row_of, weight.t()), (rows, weight))


def test_an_upstream_gradient_need_not_be_contiguous(case_named):
    case = case_named("ragged")
    x = torch.randn(len(case.expert), 3, requires_grad=True)
    permute(x, case.rows, case.plan.row_of).sum().backward()  # an expanded gradient, stride 0
    assert torch.equal(x.grad, torch.full_like(x, case.expert.shape[1]))


def test_a_dropped_slot_neither_brings_nor_takes_a_nan(case_named):
    case = case_named("a_token_without_rows")
    rows = torch.full((len(case.rows), 2), torch.nan)
    weight = torch.ones(case.expert.shape)
    weight[1] = torch.nan
    out = unpermute(rows.requires_grad_(), case.rows, case.plan.row_of, weight.requires_grad_())
    assert out[1].tolist() == [0, 0]
    assert out[[0, 2]].isnan().all()
    out[1].sum().backward()
    assert weight.grad[1].tolist() == [0, 0]


def test_the_nan_of_one_token_stays_with_it(case_named):
    case = case_named("dropped")
    x = torch.ones(len(case.expert), 2)
    x[3] = torch.nan
    out = unpermute(permute(x, case.rows, case.plan.row_of), case.rows, case.plan.row_of, torch.ones(case.expert.shape))
    has_rows = (case.plan.row_of >= 0).any(-1)
    assert has_rows[3]
    assert out.isnan().any(-1).nonzero().flatten().tolist() == [3]


def test_the_same_input_gives_the_same_bits(case_named):
    case = case_named("dropped")
    rows = torch.randn(len(case.rows), 64, requires_grad=True)
    weight = torch.randn(case.expert.shape, requires_grad=True)
    runs = []
    for _ in range(3):
        out = unpermute(rows, case.rows, case.plan.row_of, weight)
        runs.append((out, *torch.autograd.grad(out, (rows, weight), torch.ones_like(out))))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_sums_are_taken_in_slot_order():
    # in float32 the order shows: 1e8 and -1e8 must meet before 1 is added, or after it is lost.
    rows, row_of = torch.tensor([[1e8], [1.0], [-1e8]]), torch.tensor([[0, 2, 1], [0, 1, 2]])
    assert gather_sum(rows, row_of).flatten().tolist() == [1, 0]


def test_without_weights_rows_are_added_as_they_are(case, draw, assert_close):
    rows = draw(len(case.rows), 3).detach()
    ones = torch.ones(case.expert.shape, dtype=rows.dtype)
    assert_close(gather_sum(rows, case.plan.row_of), unpermute_ref(rows, case.plan.row_of, ones))


def test_values_travel_between_rows_and_slots(case):
    padded = torch.arange(1.0, case.plan.num_rows + 1)
    slots = rows_to_slots(padded, case.plan.row_of)
    assert torch.equal(slots, (case.plan.row_of + 1).float())
    back = slots_to_rows(slots, case.plan.row_of, case.plan.num_rows)
    assert torch.equal(back, padded * (padded <= len(case.rows)))


def test_the_padding_of_a_plan_changes_nothing(case_named):
    case = case_named("dropped")
    x, weight = torch.randn(9, 4, requires_grad=True), torch.rand(case.expert.shape, requires_grad=True)
    runs = []
    for rows in (case.rows, case.plan.rows):
        out = unpermute(permute(x, rows, case.plan.row_of).sin(), rows, case.plan.row_of, weight)
        runs.append((out, *torch.autograd.grad(out.sin().sum(), (x, weight))))
    assert len(case.rows) < case.plan.num_rows
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_they_compile_as_one_graph(fullgraph):
    assert fullgraph["permute"] < 1e-6
