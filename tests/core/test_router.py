"""The interface of a router: its hooks do nothing, its constructor checks its sizes."""

import pytest
import torch

from workbench.core import Card, RouteContext, Router, SparseRouting, Tally


class First(Router):
    """Every token to expert 0. Source: none."""

    card = Card("a test")
    causal = causal_in_training = True

    def forward(self, x, context):
        expert = torch.zeros(len(x), 1, dtype=torch.long)
        return SparseRouting.from_topk(expert, torch.ones(len(x), 1), num_experts=self.num_experts)


def test_a_router_must_decide():
    with pytest.raises(TypeError, match="forward"):
        Router(8, 4)


def test_it_knows_its_sizes_and_its_layer():
    router = First(8, 4, layer=3)
    assert (router.width, router.num_experts, router.layer) == (8, 4, 3)
    assert First(8, 4).layer == 0


def test_the_hooks_are_empty():
    router = First(8, 4)
    routing = router(torch.ones(2, 8), RouteContext())
    assert router.loss_weights == {}
    assert router.losses(routing, torch.ones(4) / 4, None, RouteContext()) == {}
    assert router.shared_part() is None
    zeros = torch.zeros(4, dtype=torch.long)
    tally = Tally(layer=0, iteration=0, demand=zeros, kept=zeros, losses={}, tokens=0)
    assert router.update([tally]) is None


def test_nothing_special_is_assumed_of_a_router():
    assert (First.expert, First.extra_experts) == (None, ())
    assert not First.steerable
    assert not First.reads_stream


@pytest.mark.parametrize(
    ("width", "num_experts", "message"),
    [(0, 4, "width must be at least 1, got 0"), (8, 0, "num_experts must be at least 1, got 0")],
)
def test_sizes_must_be_positive(width, num_experts, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        First(width, num_experts)


def test_a_card_says_what_is_unverified_only_where_something_is():
    card = Card("title", arxiv="1701.06538", year=2017, changes="selection")
    assert (card.unverified, Card("a control").arxiv) == ("", None)
    with pytest.raises(AttributeError):
        card.title = "other"
