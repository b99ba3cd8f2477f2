"""Hash: a fixed table over token ids."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.hash import HashRouter


def table(num_experts: int, vocabulary: int, **arguments) -> torch.Tensor:
    context = RouteContext(token_id=torch.arange(vocabulary))
    return HashRouter(8, num_experts, **arguments)(torch.zeros(vocabulary, 8), context).expert.flatten()


def test_one_expert_with_weight_one_and_nothing_to_learn():
    router = HashRouter(8, 4)
    routing = router(torch.randn(3, 8), RouteContext(token_id=torch.tensor([5, 9, 5])))
    assert routing.weight.tolist() == [[1.0]] * 3
    assert routing.expert[0] == routing.expert[2]
    assert (routing.prob, routing.logit, list(router.parameters()), router.loss_weights) == (None, None, [], {})


def test_the_table_is_the_same_at_every_step_layer_and_phase():
    first = table(8, 100)
    for context in (
        RouteContext(step=1000, phase="train"),
        RouteContext(layer=3, phase="decode", seed=9),
        RouteContext(position=torch.arange(100).flip(0), sequence=torch.ones(100, dtype=torch.long)),
    ):
        later = HashRouter(8, 8, layer=3)(torch.randn(100, 8), context.at(token_id=torch.arange(100)))
        assert torch.equal(later.expert.flatten(), first)


def test_hidden_states_do_not_matter():
    router, context = HashRouter(8, 4), RouteContext(token_id=torch.arange(10))
    assert torch.equal(router(torch.zeros(10, 8), context).expert, router(torch.randn(10, 8), context).expert)


def test_load_is_the_frequency_of_the_tokens_of_each_expert():
    experts = table(4, 50)
    ids = torch.arange(50).repeat_interleave(torch.arange(50) % 7)
    routing = HashRouter(8, 4)(torch.zeros(len(ids), 8), RouteContext(token_id=ids))
    expected = [sum(int(v % 7) for v in range(50) if experts[v] == e) for e in range(4)]
    assert routing.demand.tolist() == expected


@pytest.mark.parametrize("num_experts", [4, 16])
def test_a_large_vocabulary_is_spread_evenly(num_experts):
    counts = torch.bincount(table(num_experts, 32_000), minlength=num_experts).double()
    # binomial: each count within four and a half deviations of the mean.
    deviation = (32_000 * (1 / num_experts) * (1 - 1 / num_experts)) ** 0.5
    assert (counts - 32_000 / num_experts).abs().max() < 4.5 * deviation


def test_another_seed_is_another_table():
    same = (table(8, 8000) == table(8, 8000, table_seed=43)).double().mean()
    assert abs(float(same) - 1 / 8) < 4.5 * (1 / 8 * 7 / 8 / 8000) ** 0.5


def test_rows_that_are_not_tokens_are_refused():
    with pytest.raises(ValueError) as error:
        HashRouter(8, 4)(torch.zeros(3, 8), RouteContext())
    assert str(error.value) == (
        "the hash router reads token ids, and these rows are not tokens (slots, received rows); "
        "use a router that reads hidden states"
    )
