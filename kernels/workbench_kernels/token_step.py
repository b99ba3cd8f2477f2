"""A whole step of decoding in one call: every block of attention and experts, the last norm and the head."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench_kernels.backend import backend_of, step_of
from workbench_kernels.token_attention import AttentionWeights, TokenAttention
from workbench_kernels.token_choice import SCORES, ChoiceGate, TokenChoice
from workbench_kernels.tracing import is_traced

__all__ = ["BlockWeights", "Bring", "Meanwhile", "StartedStep", "StepChoices", "TokenStep"]


class BlockWeights(NamedTuple):
    """What a block of attention and experts has learned.

    Args:
        gain: of the norm before the experts.
        gate_up: gate rows above up rows, as `moe_mlp` takes them.
        is_brought: the first axis of the last two is not experts but places, which somebody fills token by token.
    """

    attention: AttentionWeights
    gain: Float[Tensor, "D"]
    gate: ChoiceGate
    gate_up: Float[Tensor, "E F2 D"]
    down: Float[Tensor, "E D F"]
    is_brought: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the kernels can read them where they lie."""
        dtype, own = self.down.dtype, self.gate.selection_bias
        return (
            self.attention.is_plain
            and self.attention.query.dtype == self.gate_up.dtype == dtype
            and {self.gain.dtype, self.gate.weight.dtype} <= {torch.float32, dtype}
            and (own is None or (own.dtype == torch.float32 and own.is_contiguous()))
            and all(one.is_contiguous() for one in (self.gain, self.gate.weight, self.gate_up, self.down))
        )


class StepChoices(NamedTuple):
    """The choices of all blocks, as they were written: taken apart when somebody looks.

    Args:
        numbers: who was chosen, as words of 64 bits; then for each block weights, shares, logits and ranks.
        sizes: blocks, experts, choices.
    """

    numbers: Float[Tensor, "N"]
    sizes: tuple[int, int, int]

    def __len__(self) -> int:
        return self.sizes[0]

    def by_block(self) -> tuple[TokenChoice, ...]:
        """One for each block."""
        layers, experts, slots = self.sizes
        words = 2 * layers * slots
        chosen = self.numbers[:words].view(torch.int64).view(layers, 1, slots)
        rest = self.numbers[words:].view(layers, 1, -1)
        numbers = rest.split([slots, experts, experts, slots], dim=-1)
        parts = zip(*(one.unbind() for one in (chosen, *numbers)), strict=True)
        return tuple(TokenChoice(*one) for one in parts)


Meanwhile = Callable[[Sequence[int]], None]
"""(the place of each chosen expert, -1 for those that are not there yet) -> those that are there have computed."""

Bring = Callable[[int, list[int], Tensor, Meanwhile], Sequence[int]]
"""(block, experts that were chosen, what they are about to see, what may be called once while some are on their way)
-> the place of each on the weights' first axis, when all are there."""

Caches = Sequence[tuple[Float[Tensor, "1 C G Q"], Float[Tensor, "1 C G Q"]]]
"""Keys and values of each block, as `TokenAttention` takes them."""


@final
class TokenStep:
    """All layers of a model for the newest token of one sequence, made ready once: what decoding at batch 1 needs.

    Every block is stream + attention(norm(stream)), then stream + experts(norm(stream)). The weights are read where
    they lie, so that learning in place is seen; once one has moved, make another. The numbers are those of
    `TokenAttention`, `rms_norm`, `token_choice`, `token_mlp` and `token_linear` one after the other, bit for bit.

    Args:
        blocks: of one dtype, with equally many experts and choices.
        embedding: a row for each word of the vocabulary.
        gain: of the last norm.
        head: from the stream to the vocabulary; a row for each word.

    Raises:
        ValueError: weights that do not fit each other.
    """

    def __init__(
        self,
        blocks: Sequence[BlockWeights],
        *,
        embedding: Float[Tensor, "V D"],
        gain: Float[Tensor, "D"],
        head: Float[Tensor, "V D"],
        channels: int,
        epsilon: float,
        clip: float | None = None,
    ):
        _check(blocks, embedding, gain, head)
        attention = [TokenAttention(one.attention, channels=channels, epsilon=epsilon, clip=clip) for one in blocks]
        self.column = attention[0].column
        self.head = head
        self._blocks, self._embedding, self._gain, self._epsilon = tuple(blocks), embedding, gain, epsilon
        self._ready = [one.ready for one in attention]
        is_plain = (
            all(block.is_plain for block in blocks)
            and all(one.is_contiguous() for one in (embedding, gain, head))
            and gain.dtype in (torch.float32, head.dtype)
        )
        self._engine = step_of(backend_of(head.device, head.dtype)) if is_plain else None

    def can_run(self) -> bool:
        """Whether it runs here and now: with the C++ kernels, without gradients, and nobody who traces."""
        return (
            self._engine is not None
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not is_traced(self.head)
        )

    def start(self, caches: Caches) -> "StartedStep":
        """The step over the keys and values of one sequence, which get the newest column at every call.

        Raises:
            ValueError: caches that do not fit, or kernels that are not there.
        """
        if self._engine is None:
            raise ValueError(
                "one call for a step needs the C++ kernels and contiguous weights of one dtype, got "
                f"{self.head.dtype} on {self.head.device}; ask can_run first"
            )
        room = caches[0][0].shape[1] if caches else 0
        fits = len(caches) == len(self._blocks) and all(
            one.shape == (1, room, *self.column) and one.dtype == self.head.dtype and one.is_contiguous()
            for pair in caches
            for one in pair
        )
        if not fits:
            raise ValueError(
                f"{len(self._blocks)} blocks need contiguous keys and values of one sequence in {self.head.dtype}, "
                f"columns of {self.column}, equally many of each; got {[tuple(keys.shape) for keys, _ in caches]}"
            )
        sides = {"embedding": self._embedding, "gain": self._gain, "head": self.head, "epsilon": self._epsilon}
        return StartedStep(self._engine.Step(self._blocks, self._ready, caches, **sides), self.column[1], room)


@final
class StartedStep:
    """A step over one sequence; for one thread at a time.

    Attributes:
        channels: of a head.
        room: columns that the caches have room for.
    """

    def __init__(self, step: Any, channels: int, room: int):
        self._step, self._turn, self.channels, self.room = step, (1, channels), channels, room

    def __call__(
        self,
        token_id: int,
        *,
        cosine: Float[Tensor, "1 Q"],
        sine: Float[Tensor, "1 Q"],
        length: int,
        bring: Bring | None = None,
    ) -> tuple[Float[Tensor, "1 1 V"], StepChoices]:
        """What the head says of the word after this one, and the choice of every block.

        Args:
            token_id: row of the embedding.
            cosine: of the rotation of each channel, the halves of a head being pairs (arXiv 2104.09864); float32.
            length: columns in use, the newest included.
            bring: called for every block whose experts are brought, when they are known; what it raises ends the step.

        Raises:
            ValueError: numbers outside of what there is, a rotation that does not fit, or nobody to bring experts.
        """
        words = self._step.words
        fits = (
            0 <= token_id < words
            and cosine.shape == sine.shape == self._turn
            and cosine.dtype == sine.dtype == torch.float32
            and 0 < length <= self.room
        )
        if not fits:
            raise ValueError(
                f"there are {words} words and {self.room} columns, and a rotation is {self._turn} in float32; got word "
                f"{token_id}, length {length}, {tuple(cosine.shape)} and {tuple(sine.shape)} in {cosine.dtype}"
            )
        if self._step.is_brought != (bring is not None):
            raise ValueError(
                f"expected {'somebody' if self._step.is_brought else 'nobody'} to bring experts, got bring={bring}; "
                "give it with blocks whose experts are brought, and with no others"
            )
        self._step.run(token_id, cosine.contiguous(), sine.contiguous(), length, bring)
        return self._step.logits.clone(), StepChoices(self._step.choices.clone(), self._step.sizes)


def _check(blocks: Sequence[BlockWeights], embedding: Tensor, gain: Tensor, head: Tensor) -> None:
    if not blocks or embedding.shape[1:] != head.shape[1:] or embedding.dtype != head.dtype:
        raise ValueError(
            "a step needs at least one block, and an embedding of the head's width and dtype; got "
            f"{len(blocks)} blocks, embedding {tuple(embedding.shape)} in {embedding.dtype}, head {tuple(head.shape)} "
            f"in {head.dtype}"
        )
    width = head.shape[1]
    experts, top_k = blocks[0].gate.weight.shape[0], blocks[0].gate.top_k
    for index, block in enumerate(blocks):
        hidden, gate = block.down.shape[-1], block.gate
        fits = (
            block.attention.gain.shape == block.gain.shape == gain.shape == (width,)
            and gate.weight.shape == (experts, width)
            and gate.top_k == top_k <= experts
            and gate.score in SCORES
            and (gate.selection_bias is None or gate.selection_bias.shape == (experts,))
            and block.gate_up.shape == (len(block.down), 2 * hidden, width)
            and block.down.shape[1] == width
            and (len(block.down) == experts or block.is_brought)
            and block.is_brought == blocks[0].is_brought
            and block.down.dtype == head.dtype
        )
        if not fits:
            raise ValueError(
                f"block {index} must have {experts} experts, {top_k} choices and width {width} like the head and the "
                f"first block, and their dtype {head.dtype}; got a gate {tuple(gate.weight.shape)} with {gate.top_k} "
                f"choices, gate_up {tuple(block.gate_up.shape)}, down {tuple(block.down.shape)} in {block.down.dtype}"
            )
