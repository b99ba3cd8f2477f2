"""Layers of known models, and inputs that are never zeros."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CASES", "Case", "Inputs"]


@dataclass(frozen=True)
class Case:
    """A layer of experts and a batch.

    Args:
        name: of the model whose layer it is.
        tokens: tokens of the batch.
        width: model width.
        hidden: expert hidden width.
        experts: experts of the layer.
        top_k: experts per token.
    """

    name: str
    tokens: int
    width: int
    hidden: int
    experts: int
    top_k: int

    @property
    def flops(self) -> float:
        """Of a forward pass [FLOP]; a backward pass counts twice that."""
        return 6.0 * self.tokens * self.top_k * self.width * self.hidden

    def bytes_touched(self, dtype: torch.dtype) -> float:
        """The least that a forward pass reads and writes [byte]: every used expert once, tokens in, tokens out."""
        used = min(self.experts, self.tokens * self.top_k)
        return float(dtype.itemsize * (3 * used * self.width * self.hidden + 2 * self.tokens * self.width))

    def with_tokens(self, tokens: int) -> "Case":
        """The same layer and another batch."""
        return Case(self.name, tokens, self.width, self.hidden, self.experts, self.top_k)

    def inputs(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> "Inputs":
        """Normal tokens and weights, balanced random choices, and a gradient for backward."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, std: float = 1.0) -> Tensor:
            return torch.empty(shape).normal_(0, std, generator=generator).to(device, dtype)

        gate = torch.randn(self.tokens, self.experts, generator=generator).softmax(-1)
        weight, expert = gate.topk(self.top_k)
        return Inputs(
            x=normal(self.tokens, self.width),
            weight=weight.contiguous().to(device),
            expert=expert.contiguous().to(device),
            gate_up=normal(self.experts, 2 * self.hidden, self.width, std=0.02),
            down=normal(self.experts, self.width, self.hidden, std=0.02),
            grad=normal(self.tokens, self.width),
        )


class Inputs(NamedTuple):
    """What every contender gets.

    Args:
        x: tokens.
        weight: of each choice, in float32.
        expert: chosen experts.
        gate_up: gate rows above up rows.
        down: down projections.
        grad: gradient of the output.
    """

    x: Tensor
    weight: Tensor
    expert: Tensor
    gate_up: Tensor
    down: Tensor
    grad: Tensor


CASES: Mapping[str, Case] = {
    "work": Case("work", 4096, 256, 512, 16, 2),
    "olmoe": Case("olmoe", 512, 2048, 1024, 64, 8),
    "qwen3": Case("qwen3", 1024, 2048, 768, 128, 8),
    "mixtral": Case("mixtral", 256, 4096, 14336, 8, 2),
}
