"""The whole model as one call per token, where nothing about it asks for more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from operator import is_
from typing import Any, overload
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from workbench_kernels import BlockWeights, TokenStep
from workbench_kernels.token_step import Bring, Meanwhile, StartedStep, StepChoices

from workbench.core.context import RouteContext
from workbench.core.records import Output, Site
from workbench.core.router import Router
from workbench.core.sparse import SparseRouting
from workbench.model.attention import is_hooked
from workbench.model.block import Block
from workbench.model.config import ModelConfig
from workbench.model.kv_cache import KVCache
from workbench.model.layer import MoELayer
from workbench.model.norm import RMSNorm
from workbench.model.rope import rotation

__all__ = ["Decoder", "decoded", "decoder_of"]


class Decoder:
    """A model's blocks, last norm and head as one call; the numbers are those of the layers one by one, bit for bit.

    Args:
        embedding: of the vocabulary.
        head: from the stream to the vocabulary.
    """

    def __init__(
        self, blocks: nn.ModuleList, norm: RMSNorm, *, embedding: Float[Tensor, "V D"], head: Float[Tensor, "V D"]
    ):
        own = [block for block in blocks if isinstance(block, Block)]
        layers = [block.feed_forward for block in own if isinstance(block.feed_forward, MoELayer)]
        self._places = [(layer.layer, layer.name) for layer in layers]
        self._router = layers[0].router_name if layers else ""
        self._step = _step(own, norm, embedding, head)
        self._bringers = [weights.bring for layer in layers if (weights := layer.experts.token_weights()) is not None]
        self._watched = _Watched(blocks, norm, (embedding, head))
        # of the texts that are being written; a step goes with its cache.
        self._started: WeakKeyDictionary[KVCache, StartedStep] = WeakKeyDictionary()

    def is_of(self, *ends: Tensor) -> bool:
        """Whether the model, with this embedding and head, is still what this was made of."""
        return self._watched.is_unchanged(ends)

    def can_run(self, cache: KVCache) -> bool:
        """Whether it is the way for the next token of this cache."""
        return self._step is not None and cache.batch == 1 and not cache.has_padding and self._step.can_run()

    def __call__(
        self, token_id: int, cache: KVCache, theta: float, context_at: Callable[[Tensor], RouteContext]
    ) -> Output:
        """What the model says after one more token, for which the cache has made room.

        Args:
            theta: of the rotation.
            context_at: the context of all layers, for the position of the token.
        """
        started = self._started.get(cache)
        if started is None or started.room < cache.length:
            started = self._start(cache)
        position, cosine, sine = _newest(cache.length - 1, started.channels, theta)
        context = context_at(position)
        bring = self._bring(context) if any(self._bringers) else None
        logits, choices = started(token_id, cosine=cosine, sine=sine, length=cache.length, bring=bring)
        return Output(logits=logits, sites=_Sites(self._places, self._router, choices), context=context)

    def _bring(self, context: RouteContext) -> Bring:
        def bring(block: int, experts: list[int], x: Tensor, meanwhile: Meanwhile) -> Sequence[int]:
            own = self._bringers[block]
            assert own is not None, "a step brings the experts of all blocks or of none"
            return own(experts, x, context, meanwhile)

        return bring

    def _start(self, cache: KVCache) -> StartedStep:
        assert self._step is not None, "can_run comes first"
        column = self._step.head.new_empty(1, 1, *self._step.column)
        names = [[(index, name) for name in ("key", "value")] for index in range(len(self._places))]
        rooms = [(cache.room(key, column), cache.room(value, column)) for key, value in names]
        self._started[cache] = started = self._step.start(rooms)
        return started


class _Sites(Sequence[Site]):
    """The decisions of one token, made into records when somebody reads them."""

    def __init__(self, places: list[tuple[int, str]], router: str, choices: StepChoices):
        self._places, self._router, self._choices = places, router, choices

    @cached_property
    def _all(self) -> tuple[Site, ...]:
        sites = []
        for (layer, module), choice in zip(self._places, self._choices.by_block(), strict=True):
            routing = SparseRouting(
                expert=choice.expert,
                weight=choice.weight,
                num_experts=choice.prob.shape[1],
                prob=choice.prob,
                logit=choice.logit,
            )
            sites.append(Site(layer=layer, iteration=0, module=module, router=self._router, routing=routing))
        return tuple(sites)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Site: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Site, ...]: ...
    def __getitem__(self, at: int | slice) -> Site | tuple[Site, ...]:
        return self._all[at]


class _Watched:
    """What a decoder depends on: once a part is replaced or moved, or hooks come or go, another must be made.

    Dictionaries of modules are looked at, which are what assignments change: to read attributes of modules for every
    token would take longer than its arithmetic.
    """

    def __init__(self, blocks: nn.ModuleList, norm: RMSNorm, ends: tuple[Tensor, ...]):
        roots = (*blocks, norm)
        modules = [module for root in roots for module in root.modules()]
        self._hooks = [hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks)]
        owners = [blocks._modules, *(owned for one in modules for owned in _owned(one))]
        self._owners = [owned.values() for owned in owners]
        self._ends = ends
        self._tensors = [*ends, *(one for root in roots for one in root.parameters())]
        # held, so that nothing new can have the identity of what it replaces.
        self._held = list(chain.from_iterable(self._owners))
        self._before = self._now()

    def is_unchanged(self, ends: tuple[Tensor, ...]) -> bool:
        return all(map(is_, ends, self._ends)) and self._now() == self._before

    def _now(self) -> tuple[bool, list[int], list[int]]:
        parts, places = map(id, chain.from_iterable(self._owners)), map(Tensor.data_ptr, self._tensors)
        return any(self._hooks), list(parts), list(places)


def _owned(module: nn.Module) -> Iterator[dict[str, Any]]:
    # what holds nothing will not: but for lists, which may be added to.
    if module._parameters:
        yield module._parameters
    if module._modules or isinstance(module, nn.ModuleList):
        yield module._modules
    if isinstance(module, Router):
        # its settings are plain attributes.
        yield from (module._buffers, module.__dict__)


# not on the model: what holds addresses must not be copied or saved with it.
_DECODERS: WeakKeyDictionary[nn.Module, Decoder] = WeakKeyDictionary()


def decoder_of(
    blocks: nn.ModuleList, norm: RMSNorm, *, embedding: Float[Tensor, "V D"], head: Float[Tensor, "V D"]
) -> Decoder:
    """The decoder of a model, made anew where the model is another than before.

    Args:
        norm: the last one.
    """
    ready = _DECODERS.get(blocks)
    if ready is None or not ready.is_of(embedding, head):
        ready = _DECODERS[blocks] = Decoder(blocks, norm, embedding=embedding, head=head)
    return ready


def decoded(
    parts: Mapping[str, Any], token_ids: Int[Tensor, "1 1"], context: RouteContext, cache: KVCache, config: ModelConfig
) -> Output | None:
    """What a model says after one more token of one text; None where its layers must be called one by one.

    Args:
        parts: the model's modules by name.
        context: all but the token.
    """
    embedding, head = parts["embedding"], parts.get("head")
    if is_hooked(embedding) or (head is not None and is_hooked(head)):
        return None
    # past nn.Module's look-up by attribute: every token comes here.
    weight: Tensor = embedding._parameters["weight"]
    last = weight if head is None else head._parameters["weight"]
    decoder = decoder_of(parts["blocks"], parts["norm"], embedding=weight, head=last)
    if not decoder.can_run(cache):
        return None
    cache.advance_by_one()
    about = {"num_layers": len(config.moe_layers), "sequence": _first(), "token_id": token_ids.flatten()}
    return decoder(int(token_ids), cache, config.rope_theta, lambda position: context.at(position=position, **about))


# what is the same for many tokens is made once: after the weights have gone through the caches, nothing is cheap.
@lru_cache(maxsize=8192)
def _newest(position: int, channels: int, theta: float) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode(False):
        place = torch.tensor([position])
        return place, *rotation(place, channels, theta)


@lru_cache(maxsize=1)
def _first() -> Int[Tensor, "1"]:
    with torch.inference_mode(False):
        return torch.zeros(1, dtype=torch.int64)


def _step(blocks: list[Block], norm: RMSNorm, embedding: Tensor, head: Tensor) -> TokenStep | None:
    if any(is_hooked(part) for block in (*blocks, norm) for part in block.modules()):
        return None
    known = [one for one in map(_weights, blocks) if one is not None]
    if not known or len(known) < len(blocks):
        return None
    sizes = (known[0].gate.weight.shape, known[0].gate.top_k)
    if any((one.gate.weight.shape, one.gate.top_k) != sizes or one.down.dtype != head.dtype for one in known):
        return None
    if len({one.is_brought for one in known}) > 1:
        return None
    first = blocks[0].attention
    return TokenStep(
        known,
        embedding=embedding,
        gain=norm.weight,
        head=head,
        channels=first.head_dim,
        epsilon=norm.eps,
        clip=first.clip_qkv,
    )


def _weights(block: Block) -> BlockWeights | None:
    layer = block.feed_forward
    if type(layer) is not MoELayer:
        return None
    gate, attention, own = layer.router.top_k_gate(), block.attention.weights(), layer.experts.token_weights()
    is_more = (
        layer.wiring != "residual"
        or len(layer.routers) > 1
        or len(layer.extra_experts) > 0
        or layer.shared is not None
        or layer.router.reads_stream
    )
    if gate is None or attention is None or own is None or is_more:
        return None
    is_brought = own.bring is not None
    return BlockWeights(attention, layer.norm.weight, gate, own.gate_up, own.down, is_brought)
