"""The experts of one token from its hidden state, in one call: gate, scores, the best K and their weights."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench_kernels.backend import Backend, backend_of, tokens_of
from workbench_kernels.tracing import is_traced

__all__ = ["ChoiceGate", "GatePlace", "TokenChoice", "can_choose", "token_choice"]

SCORES = ("softmax", "softmax_chosen", "sigmoid")
_NEEDS = "one call for a choice needs the C++ kernels, a contiguous gate and no gradients"


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
    def settings(self) -> tuple[int, str, bool, float]:
        """What is no tensor."""
        return self[1:5]

    @property
    def place(self) -> "GatePlace":
        """Where it lies and what it is: all that the kernel knows of it."""
        weight, own = self.weight, self.selection_bias
        return weight.data_ptr(), weight.dtype, weight.shape, self[1:5], None if own is None else own.data_ptr()


GatePlace = tuple[int, torch.dtype, torch.Size, tuple[int, str, bool, float], int | None]
"""Address and dtype and shape of the weight, settings, address of the selection bias."""


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
    weight, dtype = gate.weight, x.dtype
    return (
        not torch.is_grad_enabled()
        and x.shape[0] == 1
        and tokens_of(backend_of(x.device, dtype)) is not None
        and not torch.is_autocast_enabled("cpu")
        and (weight.dtype == torch.float32 or weight.dtype == dtype)
        and weight.is_contiguous()
        and not is_traced(x, weight)
    )


def token_choice(x: Float[Tensor, "1 D"], gate: ChoiceGate, *, bias: Float[Tensor, "E"] | None = None) -> TokenChoice:
    """The best K experts of one token; arithmetic in float32.

    Args:
        bias: added for the choice only; -inf bans an expert, whose weight is 0 if nothing else is left.

    Raises:
        ValueError: shapes or settings that do not fit, no C++ kernels, or gradients.
    """
    own = gate.selection_bias
    if own is not None:
        gate = gate._replace(selection_bias=own.float().contiguous())
    if bias is not None:
        bias = bias.float().contiguous()
    # looked up by numbers, which hold nothing alive: to check and to prepare again would take longer than the choice.
    ready = _ready(
        backend_of(x.device, x.dtype),
        x.shape,
        x.dtype,
        gate.place,
        own if own is None else own.shape,
        bias if bias is None else bias.shape,
    )
    if torch.is_grad_enabled() or not gate.weight.is_contiguous():
        raise ValueError(f"{_NEEDS}, got gradients or a gate in another order; ask can_choose first")
    found: TokenChoice = ready(x.contiguous(), bias)
    return found


@lru_cache(maxsize=512)
def _ready(
    backend: Backend, x: torch.Size, dtype: torch.dtype, place: GatePlace, *sides: torch.Size | None
) -> Callable[[Tensor, Tensor | None], TokenChoice]:
    _, gate_dtype, (experts, width), (top_k, score, *_), _ = place
    if x != (1, width) or not 1 <= top_k <= experts or any(one not in (None, (experts,)) for one in sides):
        raise ValueError(
            f"a gate of {experts} experts over width {width} takes one token, 1..{experts} choices and one number of "
            f"bias per expert, got x {tuple(x)}, top_k {top_k} and biases {[tuple(one) for one in sides if one]}"
        )
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    tokens = tokens_of(backend)
    if tokens is None or gate_dtype not in (torch.float32, dtype):
        raise ValueError(
            f"{_NEEDS}, and a gate in float32 or in {dtype}, got {gate_dtype}; here run {backend.reason}; "
            "ask can_choose first"
        )
    ready: Callable[[Tensor, Tensor | None], TokenChoice] = tokens.ready_choice(place, dtype)
    return ready
