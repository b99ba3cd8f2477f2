"""Where a router is put to work: tokens with everything a model would tell of them, and small models around it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.core import RouteContext, Router, Routing, SparseRouting, Spec
from workbench.model.config import ModelConfig
from workbench.model.layer import MoELayer
from workbench.model.transformer import Transformer, initialise
from workbench.routers import ROUTERS
from workbench.train.optim import is_of_router

WIDTH, VOCABULARY, EXPERTS = 32, 50, 8
SIZES = (0, 1, 7, 128)
PHASES = ("train", "eval", "prefill", "decode")


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of one or more sequences, packed, in order of position."""

    x: Tensor
    token_id: Tensor
    sequence: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> "Tokens":
        return Tokens(*(field[index] for field in (self.x, self.token_id, self.sequence, self.position)))

    def changed(self, place: int) -> "Tokens":
        """The same with another token at one place."""
        x, token_id = self.x.clone(), self.token_id.clone()
        x[place] = -3 * x[place].roll(1) + 1
        token_id[place] = (token_id[place] + 17) % VOCABULARY
        return replace(self, x=x, token_id=token_id)


def tokens_of(*lengths: int, seed: int = 0) -> Tokens:
    """Random tokens of sequences of these lengths; a common part makes some experts popular."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    common = torch.randn(WIDTH, generator=torch.Generator().manual_seed(99))
    return Tokens(
        x=torch.randn(total, WIDTH, generator=generator) + common,
        token_id=torch.randint(VOCABULARY, (total,), generator=generator),
        sequence=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.long)),
        position=torch.cat([torch.arange(n) for n in lengths]) if lengths else torch.zeros(0, dtype=torch.long),
    )


def context_of(router: Router, tokens: Tokens, phase: str = "prefill", **fields) -> RouteContext:
    """What the model would tell the router of these tokens."""
    return RouteContext(
        layer=router.layer,
        num_layers=2,
        num_steps=100,
        phase=phase,
        sequence=tokens.sequence,
        position=tokens.position,
        token_id=tokens.token_id,
        shared=shared_part(router),
        attention=attention_over(tokens),
    ).at(**fields)


def shared_part(router: Router) -> torch.nn.Module | None:
    """The router's shared part, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return router.shared_part()


def attention_over(tokens: Tokens):
    """Attention of each token over its own past, in the plainest form."""
    table = torch.randn(VOCABULARY, 2, 8, generator=torch.Generator().manual_seed(4))
    own = table[tokens.token_id]

    def attend(
        values: Tensor, query: Tensor | None = None, key: Tensor | None = None, *, place: tuple[int, bool] = (0, False)
    ) -> tuple[Tensor, Tensor]:
        q, k = (own, own) if query is None or key is None else (query, key)
        same = tokens.sequence.unsqueeze(1) == tokens.sequence
        past = tokens.position.unsqueeze(1) >= tokens.position
        score = torch.einsum("thq,uhq->htu", q, k) / q.shape[-1] ** 0.5
        share = score.masked_fill(~(same & past), -torch.inf).softmax(-1)
        return torch.einsum("htu,um->thm", share, values), torch.cat((values, k.flatten(1)), dim=-1)

    return attend


def config_of(cls: type[Router], *, num_experts: int = EXPERTS, num_layers: int = 2, **fields: Any) -> ModelConfig:
    """The smallest model that has everything, around a registered router with its default arguments."""
    return ModelConfig(
        vocab_size=VOCABULARY,
        width=WIDTH,
        num_layers=num_layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        num_experts=num_experts,
        expert_width=24,
        router=Spec(ROUTERS.name_of(cls)),
        **fields,
    )


def model_of(cls: type[Router], *, seed: int = 0, **sizes: int) -> Transformer:
    """A model whose weights are large enough that a wrong expert shows in the logits."""
    model = initialise(Transformer(config_of(cls, **sizes)), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
            # a router keeps the weights it made, and moves away from where it began as it would in training.
            is_router = is_of_router(name)
            parameter.data = parameter.data + 0.5 * noise if is_router else noise
    return model


def layer_of(cls: type[Router], *, num_experts: int = EXPERTS, seed: int = 0) -> MoELayer:
    """One MoE layer with its router and experts, as the model builds it."""
    return next(model_of(cls, num_experts=num_experts, num_layers=1, seed=seed).moe_layers())


def decide(router: Router, tokens: Tokens, phase: str = "prefill", **fields) -> Routing:
    """The router's decision over tokens, as the model asks for it."""
    return router(tokens.x, context_of(router, tokens, phase, **fields))


class Decision(NamedTuple):
    """A routing as matrices over tokens and experts, whatever its kind."""

    weight: Tensor
    asked: Tensor
    kept: Tensor

    def at(self, index: Tensor | slice) -> "Decision":
        return Decision(*(matrix[index] for matrix in self))


def decision(routing: Routing) -> Decision:
    """The assignments of a routing as three matrices: the weight of what is kept, what was asked, what is kept."""
    flat = routing.assignments()
    place, shape = (flat.token, flat.expert), (routing.num_tokens, routing.num_experts)
    zeros = torch.zeros(shape)
    return Decision(
        weight=zeros.index_put(place, flat.weight * flat.kept, accumulate=True).detach(),
        asked=zeros.index_put(place, torch.ones(len(flat.token)), accumulate=True),
        kept=zeros.index_put(place, flat.kept.float(), accumulate=True),
    )


def assert_same(actual: Decision, expected: Decision, close: Mapping[str, float] | None = None) -> None:
    """The same choice; weights bit by bit, or as close as the tolerance says."""
    assert torch.equal(actual.asked, expected.asked), "other experts were asked"
    assert torch.equal(actual.kept, expected.kept), "other assignments were kept"
    torch.testing.assert_close(actual.weight, expected.weight, **(close or {"rtol": 0, "atol": 0}))


def differ(first: Decision, second: Decision) -> bool:
    """Whether the choice or a weight differs, beyond rounding."""
    is_same = torch.equal(first.asked, second.asked) and torch.equal(first.kept, second.kept)
    return not (is_same and torch.allclose(first.weight, second.weight, rtol=1e-4, atol=1e-5))


def by_hand(layer: MoELayer, routing: Routing, x: Tensor) -> Tensor:
    """The output of a sparse routing, one assignment at a time through the layer's own experts."""
    flat, out = routing.assignments(), torch.zeros_like(x)
    for token, expert, weight, kept in zip(flat.token, flat.expert, flat.weight, flat.kept, strict=True):
        if kept:
            alone = SparseRouting.from_topk(expert.view(1, 1), torch.ones(1, 1), num_experts=routing.num_experts)
            y = layer.all_experts(x[token].unsqueeze(0), alone, RouteContext())
            out = out.index_add(0, token.view(1), weight * y)
    return out
