"""The model: token ids in, logits and routings out."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from workbench_kernels import linear

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.html import facts
from workbench.core.records import Output, Site, Tally
from workbench.core.router import Router
from workbench.core.routing import Routing
from workbench.core.seeds import stream as random_stream
from workbench.core.spec import Spec
from workbench.core.units import human_count
from workbench.model.block import Block
from workbench.model.config import ModelConfig
from workbench.model.decoding import decoded
from workbench.model.kv_cache import KVCache
from workbench.model.layer import MoELayer
from workbench.model.linear import Linear
from workbench.model.norm import RMSNorm
from workbench.model.packing import Packing, packing_of
from workbench.model.rope import Rotation, rotation
from workbench.model.router_parts import misfit, new_experts, new_router, new_shared_part
from workbench.model.shadow import Shadow

__all__ = ["Transformer", "initialise"]

_WRITERS = ("attention.output.weight", "experts.down", "shared.down.weight", "mlp.down.weight")


class Transformer(nn.Module):
    """A decoder-only MoE transformer. Its weights are not set: call `initialise`, or load a checkpoint.

    Args:
        config: the model's shape and router.

    Attributes:
        steering: the `bias` of every pass that brings none of its own; None for none. It is not saved.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.steering: Tensor | None = None
        # a given weight is not initialised, here or by torch.
        self.embedding = nn.Embedding(
            config.vocab_size, config.width, _weight=torch.empty(config.vocab_size, config.width)
        )
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.width, eps=config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.width, config.vocab_size)
        first = next(self.moe_layers(), None)
        self.shared_part = None if first is None else new_shared_part(first.router, torch.device("cpu"), seed=0)

    def moe_layers(self) -> Iterator[MoELayer]:
        """The layers that have a router, lowest first."""
        for block in self.blocks:
            if isinstance(block.feed_forward, MoELayer):
                yield block.feed_forward

    @property
    def device(self) -> torch.device:
        """Where the embeddings are."""
        return self.embedding.weight.device

    @property
    def is_causal(self) -> bool:
        """Whether no router looks at later tokens outside training."""
        return all(router.causal for layer in self.moe_layers() for router in layer.routers)

    def forward(
        self,
        token_ids: Int[Tensor, "B S"],
        *,
        mask: Bool[Tensor, "B S"] | None = None,
        label: Int[Tensor, "B S"] | None = None,
        context: RouteContext | None = None,
        cache: KVCache | None = None,
        bias: Float[Tensor, "L E"] | None = None,
        recompute: bool = False,
        shadow: Shadow | None = None,
    ) -> Output:
        """Logits of every next token, with the routing of every MoE layer.

        Args:
            mask: True for a real token; padding may be on either side.
            label: domain of each token, for routers and losses that read it.
            context: phase, step and seed; a held-out pass (`prefill`) by default.
            cache: tokens seen before; they are not given again.
            bias: added to the choice of expert in each MoE layer, never to its weight; -inf bans. None: `steering`.
            recompute: trade time for memory, forget activations and make them again in backward.
            shadow: routers that decide about the same hidden states and touch nothing; their sites have `is_shadow`.

        Raises:
            ValueError: a token id outside the vocabulary, or a mask of another shape.
        """
        self._check(token_ids)
        bias = self.steering if bias is None else bias
        context = context or RouteContext(phase="prefill")
        is_plain = bias is None and shadow is None and label is None and mask is None and self.shared_part is None
        if is_plain and cache is not None and token_ids.shape == (1, 1):
            output = decoded(self._modules, token_ids, context, cache, self.config)
            if output is not None:
                return output
        if cache is not None:
            packing = packing_of(token_ids.shape, mask, cache.past, token_ids.device)
            cache.advance(torch.ones_like(token_ids, dtype=torch.bool) if mask is None else mask)
        else:
            packing = packing_of(token_ids.shape, mask, None, token_ids.device)
        ids = packing.pack(token_ids)
        base = context.at(
            num_layers=len(self.config.moe_layers),
            sequence=packing.sequence,
            position=packing.position,
            token_id=ids,
            label=None if label is None else packing.pack(label),
            shared=self.shared_part,
        )
        through = _Blocks(self.blocks, packing, cache, bias, shadow, recompute=recompute)
        stream, sites = through(
            self.embedding(ids), base, rotation(packing.position, self.config.head_dim, self.config.rope_theta)
        )
        weight = self.embedding.weight if self.head is None else self.head.weight
        return Output(logits=packing.pad(linear(self.norm(stream), weight)), sites=sites, context=base)

    def _check(self, token_ids: Int[Tensor, "B S"]) -> None:
        if token_ids.numel() == 0:
            return
        ends = (token_ids,) if token_ids.numel() == 1 else token_ids.aminmax()
        low, high = int(ends[0]), int(ends[-1])
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"token ids must lie in 0..{self.config.vocab_size - 1}, got {low if low < 0 else high}; "
                "use the tokenizer that the model was trained with"
            )

    def num_parameters(self, *, choices_per_token: float | None = None) -> int:
        """Parameters in all; or those a token meets, given how many experts it is sent to on average."""
        total = sum(p.numel() for p in self.parameters())
        if choices_per_token is None:
            return total
        idle = 0.0
        for layer in self.moe_layers():
            one = sum(t[0].numel() for t in layer.experts.tensors())
            idle += one * (layer.experts.num_experts - choices_per_token)
        return round(total - idle)

    def set_router(self, spec: Spec, seed: int, *, rebuild_experts: bool = False) -> None:
        """Give every MoE layer a new router with fresh weights; experts and attention stay.

        Args:
            seed: the same seed, the same gate weights; the global generator is left alone.
            rebuild_experts: make the experts anew where the router requires another kind.

        Raises:
            LookupError: unknown router.
            ValueError: arguments that the router or the number of experts does not allow, or a router that
                requires experts of another kind.
        """
        config = self.config.with_router(spec)
        layers = list(self.moe_layers())
        fresh = [new_router(config, layer.layer, seed).to(self.device) for layer in layers]
        others = {layer.layer for layer, parts in zip(layers, fresh, strict=True) if parts.body != layer.body}
        if others and not rebuild_experts:
            raise ValueError(misfit(spec, fresh[0].body, layers[0].body))
        for layer, parts in zip(layers, fresh, strict=True):
            if layer.layer in others:
                layer.body, layer.experts = parts.body, _drawn_experts(config, parts.body, layer, seed, self.device)
            layer.install(parts)
        self.config = config
        self.shared_part = new_shared_part(fresh[0].routers[0], self.device, seed) if fresh else None

    def routers_of(self, sites: Sequence[Site]) -> list[Router]:
        """The router that made each decision."""
        layers = {layer.layer: layer for layer in self.moe_layers()}
        return [layers[site.layer].routers[site.iteration] for site in sites]

    def update_routers(self, tallies: Sequence[Tally]) -> None:
        """Tell every router what an optimiser step counted, in all layers."""
        for layer in self.moe_layers():
            for iteration, router in enumerate(layer.routers):
                here = (layer.layer, iteration)
                router.update([replace(one, is_here=(one.layer, one.iteration) == here) for one in tallies])

    def _repr_html_(self) -> str:
        c = self.config
        rows = {
            "parameters": human_count(self.num_parameters()),
            "blocks": f"{c.num_layers}, {len(c.moe_layers)} with experts",
            "width D": c.width,
            "experts E": f"{c.num_experts} of hidden width F={c.expert_width}",
            "router": str(c.router),
            "vocabulary V": c.vocab_size,
            "device": f"{self.device}, {self.embedding.weight.dtype}",
        }
        return facts("Transformer", rows)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """One pass through the blocks, and what stays the same on the way."""

    blocks: nn.ModuleList
    packing: Packing
    cache: KVCache | None
    bias: Tensor | None
    shadow: Shadow | None
    recompute: bool

    def __call__(
        self, stream: Float[Tensor, "T D"], base: RouteContext, turn: Rotation
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        sites: tuple[Site, ...] = ()
        for block in self.blocks:
            arguments: tuple[Any, ...] = (stream, self._context(base, block, sites), self.packing, turn, self.cache)
            if self.recompute and torch.is_grad_enabled():
                stream, new = checkpoint(block, *arguments, use_reentrant=False)
            else:
                stream, new = block(*arguments)
            sites += new
        return stream, sites

    def _context(self, base: RouteContext, block: nn.Module, sites: tuple[Site, ...]) -> RouteContext:
        moe = block.feed_forward
        if not isinstance(moe, MoELayer):
            return base
        return base.at(
            layer=moe.layer,
            bias=None if self.bias is None else self.bias[moe.layer],
            previous=_nearest(sites, moe.router_name, is_shadow=False),
            watcher=None
            if self.shadow is None
            else self.shadow.watcher(moe.layer, _nearest(sites, self.shadow.name, is_shadow=True)),
        )


def _nearest(sites: tuple[Site, ...], router: str, *, is_shadow: bool) -> Routing | None:
    own = (site.routing for site in reversed(sites) if site.router == router and site.is_shadow == is_shadow)
    return next(own, None)


def initialise(model: Transformer, seed: int) -> Transformer:
    """The model with fresh weights: normal with standard deviation 0.02, norms 1, biases 0.

    What writes into the stream is smaller by the square root of twice the depth, so that the stream's
    size does not grow with depth. Each tensor has a random stream of its own, named by the tensor, so a
    change of router leaves every other weight as it was.

    Args:
        seed: the same seed, the same weights, on any number of threads.
    """
    for layer in model.moe_layers():
        if layer.experts.draws_own_weights:
            layer.experts = new_experts(model.config, layer.body, layer.layer, seed)
    model.set_router(model.config.router, seed)
    own = _self_drawn(model)
    for name, parameter in model.named_parameters():
        if parameter not in own:
            _draw(name, parameter, model.config, seed)
    return model


def _self_drawn(model: Transformer) -> set[Tensor]:
    parts: list[nn.Module] = [] if model.shared_part is None else [model.shared_part]
    for layer in model.moe_layers():
        parts += [*layer.routers, layer.extra_experts]
        parts += [layer.experts] if layer.experts.draws_own_weights else []
    return {parameter for part in parts for parameter in part.parameters()}


def _draw(name: str, parameter: Tensor, config: ModelConfig, seed: int) -> None:
    if parameter.dim() < 2:
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        return
    std = 0.02 / (2 * config.num_layers) ** 0.5 if name.endswith(_WRITERS) else 0.02
    nn.init.normal_(parameter, std=std, generator=random_stream(seed, zlib.crc32(name.encode())))


def _drawn_experts(config: ModelConfig, body: Spec | None, layer: MoELayer, seed: int, device: torch.device) -> Experts:
    experts = new_experts(config, body, layer.layer, seed)
    if not experts.draws_own_weights:
        for name, parameter in experts.named_parameters():
            _draw(f"{layer.name}.experts.{name}", parameter, config, seed)
    return experts.to(device)
