"""The specification of every kernel, in plain PyTorch: any device, any dtype, autograd by autograd.

Slow on purpose where that makes it plainer. A kernel is right when it agrees with these functions,
values and every gradient, in float64.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["gate_ref", "grouped_mm_ref", "moe_mlp_ref", "permute_ref", "unpermute_ref"]


def gate_ref(x: Float[Tensor, "T D"], weight: Float[Tensor, "E D"]) -> Float[Tensor, "T E"]:
    """Logits in float32 whatever the dtype of the tokens: routers lose accuracy below that."""
    return F.linear(x.float(), weight.float())


def permute_ref(x: Float[Tensor, "T D"], rows: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
    """The token of every row."""
    return x[rows]


def unpermute_ref(
    rows_out: Float[Tensor, "N D"], row_of: Int[Tensor, "T K"], weight: Float[Tensor, "T K"]
) -> Float[Tensor, "T D"]:
    """Each token's weighted sum over its rows; a slot whose row is -1 adds nothing."""
    tokens = []
    for places, weights in zip(row_of, weight, strict=True):
        own = places >= 0
        tokens.append((rows_out[places[own]] * weights[own].unsqueeze(-1)).sum(0))
    return torch.stack(tokens) if tokens else rows_out.new_zeros(0, rows_out.shape[1])


def grouped_mm_ref(
    rows: Float[Tensor, "N I"], weight: Float[Tensor, "E O I"], counts: Int[Tensor, "E"]
) -> Float[Tensor, "N O"]:
    """Every group of rows times its own matrix."""
    groups = rows.split(counts.tolist())
    return torch.cat([F.linear(group, matrix) for group, matrix in zip(groups, weight.unbind(), strict=True)])


def moe_mlp_ref(
    x: Float[Tensor, "T D"],
    expert: Int[Tensor, "T K"],
    weight: Float[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
) -> Float[Tensor, "T D"]:
    """SwiGLU experts, one assignment at a time; an expert of -1 adds nothing."""
    out = []
    for token, chosen, weights in zip(x, expert.tolist(), weight, strict=True):
        total = torch.zeros_like(token)
        for index, share in zip(chosen, weights, strict=True):
            if index >= 0:
                gate, up = F.linear(token, gate_up[index]).chunk(2)
                total = total + share * F.linear(F.silu(gate) * up, down[index])
        out.append(total)
    return torch.stack(out) if out else torch.zeros_like(x)
