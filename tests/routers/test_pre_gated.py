"""Pre-gated: one decision from token ids, taken over by every layer."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.core.spec import Spec
from workbench.model.config import ModelConfig
from workbench.model.transformer import Transformer, initialise
from workbench.routers.pre_gated import IdReader, PreGatedRouter


def model(**arguments) -> Transformer:
    """Three small layers around the router, with tables large enough to matter."""
    config = ModelConfig(
        vocab_size=50,
        width=16,
        num_layers=3,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        num_experts=4,
        expert_width=8,
        router=Spec("pre_gated", {"router_width": 16, "num_heads": 2, **arguments}),
    )
    made = initialise(Transformer(config), 0)
    for parameter in made.shared_part.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


def experts_of(made: Transformer, ids: torch.Tensor) -> list[torch.Tensor]:
    return [site.routing.expert for site in made(ids).sites]


def test_every_layer_takes_the_decision_of_the_first():
    first, *others = experts_of(model(), torch.randint(50, (3, 12)))
    assert len(first.unique()) > 1
    assert all(torch.equal(first, other) for other in others)


def test_the_decision_reads_token_ids_and_nothing_of_the_model():
    made, ids = model(), torch.randint(50, (3, 12))
    before = experts_of(made, ids)[0]
    torch.nn.init.normal_(made.embedding.weight, std=3.0)
    assert torch.equal(experts_of(made, ids)[0], before)


def test_a_later_token_never_changes_an_earlier_decision_and_an_earlier_one_may_change_a_later():
    made, ids = model(), torch.randint(50, (1, 20))
    base = made(ids).sites[0].routing.prob
    changed = ids.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 50
    prob = made(changed).sites[0].routing.prob
    torch.testing.assert_close(prob[:10], base[:10])
    assert (prob[11:] - base[11:]).abs().max() > 1e-2


def test_the_language_model_loss_reaches_the_shared_part_through_every_layer():
    made = model()
    for layer in range(3):
        made.zero_grad()
        made(torch.randint(50, (3, 12))).sites[layer].routing.weight.sum().backward()
        assert made.shared_part.table.grad.abs().max() > 0


def written_out(reader: IdReader, ids: torch.Tensor) -> torch.Tensor:
    """The published block with complex rotations and explicit sums, one sequence."""

    def normed(x, which):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * reader.norms[which]

    def turned(x):
        angle = torch.outer(torch.arange(len(ids)), 10_000.0 ** (-torch.arange(half) / half))
        pair = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
        return torch.cat((pair.real, pair.imag), dim=-1)

    half, x = reader.head_width // 2, reader.table[ids]
    seen = normed(x, 0)
    query, key = (
        turned((seen @ part.weight.t()).view(len(ids), reader.heads, -1)) for part in (reader.query, reader.key)
    )
    # no division by the root of the head width.
    score = torch.einsum("thq,uhq->htu", query, key)
    share = score.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf).softmax(-1)
    mixed = torch.einsum("htu,um->thm", share, seen @ reader.value.weight.t()).flatten(1)
    x = x + mixed @ reader.mixed.weight.t()
    up = normed(x, 1) @ reader.up.weight.t()
    x = x + (up * up.sigmoid()) @ reader.down.weight.t()
    return normed(x, 2) @ reader.head.weight.t() + reader.head.bias


def test_the_small_transformer_written_out():
    made, ids = model(), torch.randint(50, (1, 15))
    routing = made(ids).sites[0].routing
    torch.testing.assert_close(routing.logit, written_out(made.shared_part, ids[0]), rtol=1e-4, atol=1e-4)


def test_an_id_beyond_the_table_shares_the_row_of_its_remainder():
    made = model(table_size=20)
    assert made.shared_part.table.shape == (20, 16)
    assert torch.equal(
        experts_of(made, torch.tensor([[3, 17, 5]]))[0], experts_of(made, torch.tensor([[43, 37, 25]]))[0]
    )


def test_a_person_steers_one_layer_and_the_next_still_takes_over_the_first_decision():
    made, ids = model(), torch.randint(50, (3, 12))
    plain = experts_of(made, ids)[0]
    bias = torch.zeros(3, 4)
    bias[1, 2] = 100.0
    sites = made(ids, bias=bias).sites
    assert torch.equal(sites[1].routing.expert, torch.full_like(plain, 2))
    assert torch.equal(sites[2].routing.expert, plain)
    assert torch.equal(sites[0].routing.ahead, plain)


def test_rows_that_are_no_tokens_are_refused():
    router = PreGatedRouter(8, 4)
    with pytest.raises(ValueError, match="the pre-gated router reads token ids, and these rows are not tokens"):
        router(torch.zeros(2, 8), RouteContext(shared=router.shared_part()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"table_size": 0}, "table_size must be at least 1, got 0"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
        ({"router_width": 100}, "router_width must be a multiple of 2 * num_heads=8, got 100; use 96 or other heads"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        PreGatedRouter(8, 8, **arguments)
    assert str(error.value) == message
