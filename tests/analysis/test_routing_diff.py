"""The same tokens under two routers, by hand and by brute force."""

import numpy as np
import pytest
import torch

from workbench.analysis.routing_diff import diff_routings
from workbench.core import MergedRouting, SparseRouting


def routing(expert, weight, num_experts=3, keep=None):
    keep = None if keep is None else torch.tensor(keep)
    return SparseRouting.from_topk(torch.tensor(expert), torch.tensor(weight), num_experts=num_experts, keep=keep)


def test_one_of_two_assignments_moves():
    before = routing([[0, 1]], [[0.75, 0.25]])
    after = routing([[0, 2]], [[0.5, 0.5]])
    diff = diff_routings([before], [after])
    assert diff.moved.values.tolist() == [0.5]
    # of the weight .5 stays on expert 0; .25 leaves it and .25 leaves expert 1, both for expert 2.
    expected = np.zeros((4, 4))
    expected[0, 0], expected[0, 2], expected[1, 2] = 0.5, 0.25, 0.25
    assert np.allclose(diff.flow.values[0], expected)


def test_the_same_routing_does_not_move():
    same = routing([[0, 1], [2, 1]], [[0.75, 0.25], [0.5, 0.5]])
    diff = diff_routings([same, same], [same, same])
    assert diff.moved.values.tolist() == [0.0, 0.0]
    assert np.allclose(diff.flow.values, diff.flow.values * np.eye(4))


def test_two_experts_that_were_one_count_against_the_larger_set():
    diff = diff_routings([routing([[0]], [[1.0]])], [routing([[0, 1]], [[0.5, 0.5]])])
    assert diff.moved.values.tolist() == [0.5]


def test_a_token_without_expert_flows_from_none():
    before = routing([[0]], [[0.0]], keep=[[False]])
    after = routing([[2]], [[1.0]])
    diff = diff_routings([before], [after])
    assert diff.flow.values[0][-1, 2] == 1
    assert diff.flow.values[0].sum() == 1


def test_extra_experts_widen_the_table_and_mass_is_kept():
    generator = torch.Generator().manual_seed(0)
    before = routing(torch.randint(3, (50, 1), generator=generator).tolist(), [[1.0]] * 50)
    after = routing(torch.randint(5, (50, 1), generator=generator).tolist(), [[1.0]] * 50, num_experts=5)
    flow = diff_routings([before], [after]).flow.values[0]
    assert flow.shape == (4, 6)
    assert flow.sum() == pytest.approx(1)
    counts = torch.bincount(before.expert.flatten(), minlength=3) / 50
    assert np.allclose(flow.sum(1)[:3], counts)
    expected = np.zeros((3, 5))
    for a, b in zip(before.expert.flatten().tolist(), after.expert.flatten().tolist(), strict=True):
        expected[a, b] += 1 / 50
    assert np.allclose(flow[:3, :5], expected)


def test_mixtures_are_compared_by_their_shares():
    before = MergedRouting(num_experts=2, mixture=torch.tensor([[0.25, 0.75]]), group=torch.tensor([0, 0]))
    after = MergedRouting(num_experts=2, mixture=torch.tensor([[0.75, 0.25]]), group=torch.tensor([0, 0]))
    diff = diff_routings([before], [after])
    assert np.allclose(diff.flow.values[0][:2, :2], [[0.25, 0.0], [0.5, 0.25]])


def test_losses_come_along_and_are_shown():
    same = routing([[0]], [[1.0]])
    diff = diff_routings([same], [same])
    assert "loss" not in repr(diff)
    known = diff.with_losses(2.0, 2.5)
    assert known.loss_delta == 0.5
    assert repr(known) == "RoutingDiff(0% of assignments moved over 1 tokens, loss +0.500 nat/token)"
    assert "2.5000" in known._repr_html_()


def test_other_tokens_are_refused():
    with pytest.raises(ValueError, match="route the same text twice"):
        diff_routings([routing([[0]], [[1.0]])], [routing([[0], [1]], [[1.0], [1.0]])])


def test_every_token_tells_its_experts_before_and_after_the_largest_share_first():
    before = routing([[0, 1], [2, 1], [0, 1]], [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], keep=[[True, True]] * 3)
    after = routing([[1, 0], [0, 1], [2, 0]], [[0.5, 0.5], [0.75, 0.25], [0.75, 0.25]])
    tokens = diff_routings([before], [after]).tokens
    assert tokens["expert"].sel(side="before").values.tolist() == [[[1, 0], [1, 2], [0, -1]]]
    assert tokens["expert"].sel(side="after").values.tolist() == [[[0, 1], [0, 1], [2, 0]]]
    assert tokens["share"].sel(side="after").values[0, 1].tolist() == [0.75, 0.25]
    assert tokens["moved"].values.tolist() == [[0.0, 0.5, 0.5]]


def test_the_shares_of_tokens_are_those_of_the_whole():
    generator = np.random.default_rng(0)
    old, new = ([routing(e, w, 6) for e, w in drawn(generator)] for _ in range(2))
    diff = diff_routings(old, new)
    assert np.allclose(diff.tokens["moved"].mean("token"), diff.moved, atol=1e-6)
    first = diff.tokens["expert"].values[0, :, :, 0]
    assert first.max() < 6 and first.min() >= 0


def drawn(generator, layers=3, tokens=20):
    for _ in range(layers):
        expert = generator.random((tokens, 6)).argsort(-1)[:, :2]
        yield expert.tolist(), generator.dirichlet([1.0, 1.0], tokens).tolist()


def test_a_router_that_mixes_all_experts_shows_the_eight_largest():
    every = [list(range(12))]
    diff = diff_routings([routing(every, [[1 / 12] * 12], 12)], [routing([[3]], [[1.0]], 12)])
    assert diff.tokens["expert"].shape == (2, 1, 1, 8)
    assert diff.tokens["expert"].values[1, 0, 0].tolist() == [3] + [-1] * 7


def test_no_layer_is_no_token():
    assert diff_routings([], []).tokens["expert"].shape == (2, 0, 0, 0)
