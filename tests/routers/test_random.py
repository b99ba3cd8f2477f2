"""Random: a control whose chance is fixed by where a token stands."""

from itertools import combinations

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.random import RandomRouter


def context_of(tokens: int, **fields) -> RouteContext:
    return RouteContext(
        position=torch.arange(tokens),
        token_id=torch.arange(tokens) * 7 % 50,
        sequence=torch.zeros(tokens, dtype=torch.long),
        **fields,
    )


def experts_of(context: RouteContext, *, num_experts: int = 8, **arguments) -> torch.Tensor:
    x = torch.zeros(len(context.position), 4)
    return RandomRouter(4, num_experts, **arguments)(x, context).expert


def test_the_choices_are_different_experts_of_equal_weight():
    routing = RandomRouter(4, 8, top_k=3)(torch.zeros(200, 4), context_of(200))
    assert all(len(set(row)) == 3 for row in routing.expert.tolist())
    assert torch.equal(routing.weight, torch.full((200, 3), 1 / 3))
    assert (routing.prob, routing.logit, list(RandomRouter(4, 8).parameters())) == (None, None, [])


@pytest.mark.parametrize("phase", ["train", "prefill"])
def test_all_pairs_are_equally_likely(phase):
    tokens = 28_000
    expert = experts_of(context_of(tokens, phase=phase)).sort(-1).values
    pairs = [int(((expert[:, 0] == a) & (expert[:, 1] == b)).sum()) for a, b in combinations(range(8), 2)]
    chi_square = sum((count - tokens / 28) ** 2 / (tokens / 28) for count in pairs)
    assert sum(pairs) == tokens
    assert chi_square < 55.48  # the 99.9 % quantile for 27 degrees of freedom


def test_training_draws_anew_every_step_micro_batch_and_rank():
    base = experts_of(context_of(300, phase="train"))
    assert torch.equal(base, experts_of(context_of(300, phase="train")))
    for field in ("step", "micro_batch", "data_rank", "layer", "iteration", "seed"):
        assert not torch.equal(base, experts_of(context_of(300, phase="train", **{field: 1}))), field


def test_elsewhere_the_draw_does_not_change_with_the_step():
    base = experts_of(context_of(300, phase="prefill"))
    assert torch.equal(base, experts_of(context_of(300, phase="decode", step=9, micro_batch=2, data_rank=1)))
    assert not torch.equal(base, experts_of(context_of(300, phase="prefill", layer=1)))


def test_elsewhere_batch_mates_do_not_matter():
    whole = context_of(20)
    alone = whole.at(position=whole.position[7:8], token_id=whole.token_id[7:8], sequence=torch.tensor([3]))
    assert torch.equal(experts_of(alone), experts_of(whole)[7:8])


def test_in_training_two_equal_sequences_get_different_experts():
    twice = context_of(100, phase="train")
    other = twice.at(sequence=torch.ones(100, dtype=torch.long))
    assert not torch.equal(experts_of(twice), experts_of(other))


def test_rows_that_are_not_tokens_are_told_apart_by_their_place():
    x = torch.zeros(300, 4)
    expert = RandomRouter(4, 8)(x, RouteContext()).expert
    assert len({tuple(row) for row in expert.tolist()}) == 56


def test_all_experts_are_all_experts():
    assert experts_of(context_of(5), num_experts=3, top_k=3).sort(-1).values.tolist() == [[0, 1, 2]] * 5


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match=r"^top_k must be between 1 and num_experts=4, got 5; use more experts"):
        RandomRouter(8, 4, top_k=5)
