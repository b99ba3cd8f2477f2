"""Losses over neighbouring tokens: worked by hand, and blind to the order in which tokens are given."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers._neighbours import chunk_share, disagreement, pairs, places


def two(*lengths: int) -> RouteContext:
    """Sequences of these lengths."""
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return RouteContext(sequence=sequence, position=torch.cat([torch.arange(n) for n in lengths]))


def test_a_pair_is_a_token_and_the_next_one_of_its_sequence():
    before, after = pairs(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]))
    assert (before.tolist(), after.tolist()) == ([0, 1, 3], [1, 2, 4])
    mixed = pairs(torch.tensor([1, 0, 1, 0, 0]), torch.tensor([1, 2, 0, 0, 1]))
    assert [part.tolist() for part in mixed] == [[3, 4, 2], [4, 1, 0]]
    # a gap is not a neighbourhood.
    assert pairs(torch.tensor([0, 0]), torch.tensor([0, 2]))[0].tolist() == []


def test_tokens_without_a_place_are_one_sequence():
    sequence, position = places(3, RouteContext(), torch.device("cpu"))
    assert (sequence.tolist(), position.tolist()) == ([0, 0, 0], [0, 1, 2])


def test_disagreement_is_a_coin_flip_at_zero_and_nothing_where_neighbours_are_sure_of_the_same(assert_close):
    assert_close(disagreement(torch.zeros(5, 3), two(5)), torch.tensor(math.log(2)))
    sure = torch.tensor([[50.0, -50.0]]).expand(5, 2)
    assert disagreement(sure, two(5)) < 1e-6
    # where they are sure of the opposite it is as large as the score.
    assert_close(disagreement(sure * torch.tensor([[1.0], [-1]] * 2 + [[1.0]]), two(5)), torch.tensor(50.0))


def test_the_first_tokens_of_sequences_are_nobody_s_next(assert_close):
    logit = torch.tensor([[50.0], [50.0], [-50.0], [-50.0]])
    assert disagreement(logit, two(2, 2)) < 1e-6
    assert_close(disagreement(logit, two(4)), torch.tensor(50 / 3))


def test_disagreement_moves_both_neighbours():
    logit = torch.randn(2, 3, requires_grad=True)
    disagreement(logit, two(2)).backward()
    assert (logit.grad.abs() > 1e-4).all()


@pytest.mark.parametrize(
    ("share", "expected"),
    [([[0.5, 0.5], [1.0, 0.0]], 0.75), ([[1.0, 0.0]] * 2, 0.5), ([[0.5, 0.5]] * 2, 0.75)],
)
def test_the_chunk_share_of_the_card(share, expected):
    assert float(chunk_share(torch.tensor(share), 2, two(2))) == pytest.approx(expected, abs=1e-4)


def test_for_single_experts_it_is_the_share_of_experts_that_the_chunk_meets():
    chosen = torch.randint(48, (128,), generator=torch.Generator().manual_seed(0))
    met = sum(len(part.unique()) for part in chosen.split(64)) / (2 * 48)
    value = chunk_share(torch.eye(48)[chosen], 64, two(128))
    assert float(value) == pytest.approx(met, abs=1e-3)


def test_chunks_end_with_their_sequence():
    share = torch.eye(2)[torch.tensor([0, 0, 0, 1, 1, 1])]
    assert float(chunk_share(share, 4, two(3, 3))) == pytest.approx(0.5, abs=1e-4)
    assert float(chunk_share(share, 6, two(6))) == pytest.approx(1.0, abs=1e-4)


def test_the_order_of_the_tokens_does_not_matter(assert_close):
    context, order = two(10, 7), torch.randperm(17)
    moved = context.at(sequence=context.sequence[order], position=context.position[order])
    logit, share = torch.randn(17, 4), torch.rand(17, 4).softmax(-1)
    assert_close(disagreement(logit[order], moved), disagreement(logit, context))
    assert_close(chunk_share(share[order], 4, moved), chunk_share(share, 4, context))


def test_no_tokens_and_one_token_have_no_neighbours():
    assert float(disagreement(torch.zeros(0, 3), two(0))) == float(disagreement(torch.ones(1, 3), two(1))) == 0
    assert float(chunk_share(torch.zeros(0, 3), 4, two(0))) == 0
