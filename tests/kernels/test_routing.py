"""Tokens to rows and back, against the references: values and every gradient."""

import pytest
import torch
from workbench_kernels import permute, unpermute
from workbench_kernels.reference import permute_ref, unpermute_ref
from workbench_kernels.routing import gather_sum, rows_to_slots, slots_to_rows


def test_permute_agrees_with_its_reference(plan, draw, agree):
    x = draw(len(plan.expert), 5)
    agree(permute(x, plan.rows, plan.row_of), permute_ref(x, plan.rows), (x,))


def test_unpermute_agrees_with_its_reference(plan, draw, agree):
    rows, weight = draw(len(plan.rows), 5), draw(*plan.expert.shape)
    ours = unpermute(rows, plan.rows, plan.row_of, weight)
    agree(ours, unpermute_ref(rows, plan.row_of, weight), (rows, weight))


def test_there_and_back_agrees_with_its_reference(plan, draw, agree):
    x, weight = draw(len(plan.expert), 5), draw(*plan.expert.shape)
    ours = unpermute(permute(x, plan.rows, plan.row_of).tanh(), plan.rows, plan.row_of, weight)
    agree(ours, unpermute_ref(permute_ref(x, plan.rows).tanh(), plan.row_of, weight), (x, weight))


@pytest.mark.parametrize("name", ["ragged", "dropped", "the_same_expert_twice"])
def test_gradients_are_those_of_finite_differences(plan_named, name):
    plan = plan_named(name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(plan.expert), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(plan.expert.shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def there_and_back(x, weight):
        return unpermute(permute(x, plan.rows, plan.row_of).sin(), plan.rows, plan.row_of, weight)

    assert torch.autograd.gradcheck(there_and_back, (x, weight))


def test_tokens_need_not_be_contiguous(plan_named, draw, agree):
    plan = plan_named("dropped")
    x = draw(5, len(plan.expert))
    agree(permute(x.t(), plan.rows, plan.row_of), permute_ref(x.t(), plan.rows), (x,))
    rows, weight = draw(5, len(plan.rows)), draw(plan.expert.shape[1], len(plan.expert))
    ours = unpermute(rows.t(), plan.rows, plan.row_of, weight.t())
    agree(ours, unpermute_ref(rows.t(), plan.row_of, weight.t()), (rows, weight))


def test_an_upstream_gradient_need_not_be_contiguous(plan_named):
    plan = plan_named("ragged")
    x = torch.randn(len(plan.expert), 3, requires_grad=True)
    permute(x, plan.rows, plan.row_of).sum().backward()  # an expanded gradient, stride 0
    assert torch.equal(x.grad, torch.full_like(x, plan.expert.shape[1]))


def test_a_dropped_slot_neither_brings_nor_takes_a_nan(plan_named):
    plan = plan_named("a_token_without_rows")
    rows = torch.full((len(plan.rows), 2), torch.nan)
    weight = torch.ones(plan.expert.shape)
    weight[1] = torch.nan
    out = unpermute(rows.requires_grad_(), plan.rows, plan.row_of, weight.requires_grad_())
    assert out[1].tolist() == [0, 0]
    assert out[[0, 2]].isnan().all()
    out[1].sum().backward()
    assert weight.grad[1].tolist() == [0, 0]


def test_the_nan_of_one_token_stays_with_it(plan_named):
    plan = plan_named("dropped")
    x = torch.ones(len(plan.expert), 2)
    x[3] = torch.nan
    out = unpermute(permute(x, plan.rows, plan.row_of), plan.rows, plan.row_of, torch.ones(plan.expert.shape))
    has_rows = (plan.row_of >= 0).any(-1)
    assert has_rows[3]
    assert out.isnan().any(-1).nonzero().flatten().tolist() == [3]


def test_the_same_input_gives_the_same_bits(plan_named):
    plan = plan_named("dropped")
    rows = torch.randn(len(plan.rows), 64, requires_grad=True)
    weight = torch.randn(plan.expert.shape, requires_grad=True)
    runs = []
    for _ in range(3):
        out = unpermute(rows, plan.rows, plan.row_of, weight)
        runs.append((out, *torch.autograd.grad(out, (rows, weight), torch.ones_like(out))))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_sums_are_taken_in_slot_order():
    # in float32 the order shows: 1e8 and -1e8 must meet before 1 is added, or after it is lost.
    rows, row_of = torch.tensor([[1e8], [1.0], [-1e8]]), torch.tensor([[0, 2, 1], [0, 1, 2]])
    assert gather_sum(rows, row_of).flatten().tolist() == [1, 0]


def test_without_weights_rows_are_added_as_they_are(plan, draw, assert_close):
    rows = draw(len(plan.rows), 3).detach()
    ones = torch.ones(plan.expert.shape, dtype=rows.dtype)
    assert_close(gather_sum(rows, plan.row_of), unpermute_ref(rows, plan.row_of, ones))


def test_values_travel_between_rows_and_slots(plan):
    value = torch.arange(1.0, len(plan.rows) + 1)
    slots = rows_to_slots(value, plan.row_of)
    assert torch.equal(slots, (plan.row_of + 1).float())
    assert torch.equal(slots_to_rows(slots, plan.row_of, len(plan.rows)), value)
