"""The experts of one token from its hidden state, in one call: gate, scores, the best K and their weights."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench_kernels.backend import backend_of, tokens_of
from workbench_kernels.tracing import is_traced

__all__ = ["ChoiceGate", "TokenChoice", "can_choose", "token_choice"]

SCORES = ("softmax", "softmax_chosen", "sigmoid")


class ChoiceGate(NamedTuple):
    """A router that takes the best K scores of a linear map, as data.

    Args:
        weight: of the map, a row per expert.
        top_k: experts that are chosen.
        score: `softmax` over all experts; `softmax_chosen`, over the chosen logits only; `sigmoid`, each alone.
        renormalise: divides the weights by their sum.
        scale: multiplies the weights.
        selection_bias: added for the choice only.
    """

    weight: Float[Tensor, "E D"]
    top_k: int
    score: str = "softmax"
    renormalise: bool = True
    scale: float = 1.0
    selection_bias: Float[Tensor, "E"] | None = None

    @property
    def settings(self) -> tuple[object, ...]:
        """What is no tensor."""
        return self[1:5]


class TokenChoice(NamedTuple):
    """What was chosen.

    Args:
        expert: best first; the lower index first where two are equal.
        weight: what each expert's output is multiplied by.
        prob: scores as shares of all experts.
        logit: what the map says.
        rank: what each chosen expert was ranked by; -inf for a banned one.
    """

    expert: Int[Tensor, "1 K"]
    weight: Float[Tensor, "1 K"]
    prob: Float[Tensor, "1 E"]
    logit: Float[Tensor, "1 E"]
    rank: Float[Tensor, "1 K"]


def can_choose(x: Float[Tensor, "T D"], gate: ChoiceGate) -> bool:
    """Whether `token_choice` runs here: for one token, with the C++ kernels, without gradients."""
    return (
        len(x) == 1
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(x.device.type)
        and tokens_of(backend_of(x.device, x.dtype)) is not None
        and gate.weight.dtype in (torch.float32, x.dtype)
        and gate.weight.is_contiguous()
        and not is_traced(x, gate.weight)
    )


def token_choice(x: Float[Tensor, "1 D"], gate: ChoiceGate, *, bias: Float[Tensor, "E"] | None = None) -> TokenChoice:
    """The best K experts of one token; arithmetic in float32.

    Args:
        bias: added for the choice only; -inf bans an expert, whose weight is 0 if nothing else is left.

    Raises:
        ValueError: shapes or settings that do not fit, no C++ kernels, or gradients.
    """
    experts, width = gate.weight.shape
    sides = [one for one in (bias, gate.selection_bias) if one is not None]
    if x.shape != (1, width) or not 1 <= gate.top_k <= experts or any(one.shape != (experts,) for one in sides):
        raise ValueError(
            f"a gate of {experts} experts over width {width} takes one token, 1..{experts} choices and one number of "
            f"bias per expert, got x {tuple(x.shape)}, top_k {gate.top_k} and biases {[tuple(b.shape) for b in sides]}"
        )
    if gate.score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {gate.score!r}")
    tokens = tokens_of(backend_of(x.device, x.dtype))
    is_plain = gate.weight.dtype in (torch.float32, x.dtype) and gate.weight.is_contiguous()
    if tokens is None or not is_plain or torch.is_grad_enabled():
        raise ValueError(
            f"one call for a choice needs the C++ kernels and no gradients, and a gate in float32 or in {x.dtype}, got "
            f"{gate.weight.dtype} on {x.device}; ask can_choose first"
        )
    if gate.selection_bias is not None:
        gate = gate._replace(selection_bias=gate.selection_bias.float().contiguous())
    found: TokenChoice = tokens.choice(x, gate, None if bias is None else bias.float().contiguous())
    return found
