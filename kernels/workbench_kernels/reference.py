"""The specification of every kernel, in plain PyTorch: any device, any dtype, differentiable by autograd.

Slow on purpose where that makes it plainer. A kernel is right when it agrees with these functions,
values and every gradient, in float64. The gradients by hand, `*_backward_ref`, say what a backward kernel computes.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench_kernels.plan import RoutingPlan
from workbench_kernels.token_attention import AttentionWeights

__all__ = [
    "ACTIVATIONS",
    "activation_slope_ref",
    "gate_ref",
    "grouped_mm_backward_ref",
    "grouped_mm_ref",
    "moe_mlp_backward_ref",
    "moe_mlp_ref",
    "permute_backward_ref",
    "permute_ref",
    "plan_ref",
    "token_attention_ref",
    "topk_gate_backward_ref",
    "topk_gate_ref",
    "unpermute_backward_ref",
    "unpermute_ref",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def gate_ref(x: Float[Tensor, "T D"], weight: Float[Tensor, "E D"]) -> Float[Tensor, "T E"]:
    """Logits in float32 whatever the dtype of the tokens: routers lose accuracy below that."""
    return F.linear(x.float(), weight.float())


def topk_gate_ref(
    logits: Float[Tensor, "T E"],
    top_k: int,
    *,
    score: str = "softmax",
    bias: Float[Tensor, "E"] | None = None,
    normalize: bool = False,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "T K"], Int[Tensor, "T K"]]:
    """Weights and ids of the K experts with the highest score; the bias counts for the choice only."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    scores = exact.softmax(-1) if score == "softmax" else exact.sigmoid()
    expert = (scores if bias is None else scores + bias).topk(top_k, dim=-1).indices
    weight = scores.gather(1, expert)
    if normalize:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
    return weight * scale, expert


def plan_ref(expert: Int[Tensor, "T K"], num_experts: int) -> RoutingPlan:
    """The plan of a choice, slot after slot."""
    tokens, width = expert.shape
    chosen = expert.tolist()
    slots = sorted((chosen[t][k], t, k) for t in range(tokens) for k in range(width) if 0 <= chosen[t][k] < num_experts)
    rows = torch.zeros(tokens * width, dtype=torch.int32)
    row_of = torch.full((tokens, width), -1, dtype=torch.int32)
    offsets = torch.zeros(num_experts + 1, dtype=torch.int32)
    for row, (index, token, slot) in enumerate(slots):
        rows[row], row_of[token, slot] = token, row
        offsets[index + 1 :] += 1
    return RoutingPlan(rows.to(expert.device), row_of.to(expert.device), offsets.to(expert.device))


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
    rows: Float[Tensor, "N I"],
    weight: Float[Tensor, "E O I"],
    offsets: Int[Tensor, "E1"],
    bias: Float[Tensor, "E O"] | None = None,
) -> Float[Tensor, "N O"]:
    """Every group of rows times its own matrix, plus its own bias; rows past the last group give zero."""
    bounds = offsets.tolist()
    shifts = [None] * len(weight) if bias is None else bias.unbind()
    parts = [
        F.linear(rows[low:high], matrix, shift)
        for low, high, matrix, shift in zip(bounds[:-1], bounds[1:], weight.unbind(), shifts, strict=True)
    ]
    tail = rows.new_zeros(rows.shape[0] - bounds[-1], weight.shape[1])
    return torch.cat([*parts, tail.to(parts[0].dtype) if parts else tail])


def moe_mlp_ref(
    x: Float[Tensor, "T D"],
    routing: RoutingPlan | Int[Tensor, "T K"],
    weight: Float[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    activation: str = "silu",
) -> Float[Tensor, "T D"]:
    """Gated experts, one expert after the other; a slot without an expert adds nothing.

    Args:
        routing: a plan, or the chosen experts.
    """
    plan = routing if isinstance(routing, RoutingPlan) else plan_ref(routing, len(gate_up))
    bounds, outputs = plan.offsets.tolist(), []
    for low, high, first, second in zip(bounds[:-1], bounds[1:], gate_up.unbind(), down.unbind(), strict=True):
        gate, up = F.linear(x[plan.rows[low:high].long()], first).chunk(2, dim=-1)
        outputs.append(F.linear(ACTIVATIONS[activation](gate) * up, second))
    rows_out = torch.cat(outputs) if outputs else x.new_zeros(0, x.shape[1])
    return unpermute_ref(rows_out, plan.row_of, weight.to(rows_out.dtype))


def token_attention_ref(
    stream: Float[Tensor, "B D"],
    keys: Float[Tensor, "B C G Q"],
    values: Float[Tensor, "B C G Q"],
    weights: AttentionWeights,
    *,
    cosine: Float[Tensor, "B Q"],
    sine: Float[Tensor, "B Q"],
    length: int,
    epsilon: float,
    clip: float | None = None,
    mask: Bool[Tensor, "B P"] | None = None,
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B H Q"]]:
    """Attention of the newest column of each sequence, head after head; the cache gets its key and value."""
    channels, outs, queries = keys.shape[-1], [], []
    by_head = weights.query_gain is not None and len(weights.query_gain) == channels
    for row, one in enumerate(stream.unbind()):
        x = F.rms_norm(one, weights.gain.shape, weights.gain, epsilon)
        query, key, value = (
            _projected(F.linear(x, matrix, shift), gain, channels, epsilon, clip, by_head=by_head)
            for matrix, shift, gain in (
                (weights.query, weights.query_bias, weights.query_gain),
                (weights.key, weights.key_bias, weights.key_gain),
                (weights.value, weights.value_bias, None),
            )
        )
        query, key = (
            part * cosine[row] + torch.cat((-part[:, channels // 2 :], part[:, : channels // 2]), dim=1) * sine[row]
            for part in (query, key)
        )
        keys[row, length - 1], values[row, length - 1] = key, value
        seen = torch.ones(length, dtype=torch.bool) if mask is None else mask[row, :length]
        mixed = []
        for head, own in enumerate(query.unbind()):
            group = head * keys.shape[2] // len(query)
            share = (keys[row, :length][seen][:, group] @ own / channels**0.5).softmax(0)
            mixed.append(share @ values[row, :length][seen][:, group])
        outs.append(one + weights.output @ torch.cat(mixed))
        queries.append(query)
    return torch.stack(outs), torch.stack(queries)


def _projected(
    flat: Float[Tensor, "O"],
    gain: Float[Tensor, "N"] | None,
    channels: int,
    epsilon: float,
    clip: float | None,
    *,
    by_head: bool,
) -> Float[Tensor, "H Q"]:
    if gain is not None and not by_head:
        flat = F.rms_norm(flat, gain.shape, gain, epsilon)
    heads = (flat if clip is None else flat.clamp(-clip, clip)).view(-1, channels)
    return F.rms_norm(heads, gain.shape, gain, epsilon) if gain is not None and by_head else heads


def activation_slope_ref(x: Float[Tensor, "*S"], activation: str) -> Float[Tensor, "*S"]:
    """Derivative of an activation, by its formula."""
    if activation == "relu":
        return (x > 0).to(x.dtype)
    if activation == "silu":
        sigmoid = x.sigmoid()
        return sigmoid * (1 + x * (1 - sigmoid))
    if activation == "gelu":
        return 0.5 * (1 + torch.erf(x / 2**0.5)) + x * torch.exp(-0.5 * x * x) / (2 * math.pi) ** 0.5
    inner = (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)
    slope = (2 / math.pi) ** 0.5 * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + inner.tanh()) + 0.5 * x * (1 - inner.tanh() ** 2) * slope


def permute_backward_ref(grad: Float[Tensor, "N D"], row_of: Int[Tensor, "T K"]) -> Float[Tensor, "T D"]:
    """Gradient of the tokens of `permute_ref`: each token's sum over its rows."""
    return unpermute_ref(grad, row_of, grad.new_ones(row_of.shape))


def unpermute_backward_ref(
    grad: Float[Tensor, "T D"], rows_out: Float[Tensor, "N D"], row_of: Int[Tensor, "T K"], weight: Float[Tensor, "T K"]
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "T K"]]:
    """Gradients of the rows and the weights of `unpermute_ref`."""
    grad_rows, grad_weight = torch.zeros_like(rows_out), torch.zeros_like(weight)
    for token, slot in (row_of >= 0).nonzero().tolist():
        row = row_of[token, slot]
        grad_rows[row] = weight[token, slot] * grad[token]
        grad_weight[token, slot] = grad[token] @ rows_out[row]
    return grad_rows, grad_weight


def grouped_mm_backward_ref(
    grad: Float[Tensor, "N O"], rows: Float[Tensor, "N I"], weight: Float[Tensor, "E O I"], offsets: Int[Tensor, "E1"]
) -> tuple[Float[Tensor, "N I"], Float[Tensor, "E O I"], Float[Tensor, "E O"]]:
    """Gradients of the rows, the matrices and the biases of `grouped_mm_ref`."""
    bounds = offsets.tolist()
    grad_rows, grad_weight = torch.zeros_like(rows), torch.zeros_like(weight)
    grad_bias = grad.new_zeros(weight.shape[:2])
    for expert, (low, high) in enumerate(pairwise(bounds)):
        grad_rows[low:high] = grad[low:high] @ weight[expert]
        grad_weight[expert] = grad[low:high].t() @ rows[low:high]
        grad_bias[expert] = grad[low:high].sum(0)
    return grad_rows, grad_weight, grad_bias


def topk_gate_backward_ref(
    grad_weight: Float[Tensor, "T K"],
    logits: Float[Tensor, "T E"],
    expert: Int[Tensor, "T K"],
    *,
    score: str = "softmax",
    normalize: bool = False,
    scale: float = 1.0,
) -> Float[Tensor, "T E"]:
    """Gradient of the logits of `topk_gate_ref`; the choice itself has none."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    scores = exact.softmax(-1) if score == "softmax" else exact.sigmoid()
    chosen, grad = scores.gather(1, expert), grad_weight * scale
    if normalize:
        total = chosen.sum(-1, keepdim=True) + 1e-20
        grad = (grad - (grad * chosen).sum(-1, keepdim=True) / total) / total
    grad_scores = torch.zeros_like(scores).scatter(1, expert, grad)
    if score == "softmax":
        inner = (grad_scores * scores).sum(-1, keepdim=True)
        return (scores * (grad_scores - inner)).to(logits.dtype)
    return (grad_scores * scores * (1 - scores)).to(logits.dtype)


def moe_mlp_backward_ref(
    grad: Float[Tensor, "T D"],
    x: Float[Tensor, "T D"],
    routing: RoutingPlan | Int[Tensor, "T K"],
    weight: Float[Tensor, "T K"],
    gate_up: Float[Tensor, "E F2 D"],
    down: Float[Tensor, "E D F"],
    *,
    activation: str = "silu",
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T K"], Float[Tensor, "E F2 D"], Float[Tensor, "E D F"]]:
    """Gradients of the tokens, the weights and both stacks of matrices of `moe_mlp_ref`."""
    plan = routing if isinstance(routing, RoutingPlan) else plan_ref(routing, len(gate_up))
    bounds, used = plan.offsets.tolist(), int(plan.offsets[-1])
    tokens, is_placed = plan.rows[:used].long(), plan.row_of >= 0
    places = plan.row_of[is_placed].long()
    share = x.new_zeros(used).index_put((places,), weight[is_placed].to(x.dtype)).unsqueeze(-1)
    grad_share, grad_rows = x.new_zeros(used), x.new_zeros(used, x.shape[1])
    grad_gate_up, grad_down = torch.zeros_like(gate_up), torch.zeros_like(down)
    for expert, (low, high) in enumerate(pairwise(bounds)):
        rows, above = x[tokens[low:high]], grad[tokens[low:high]]
        gate, up = (rows @ gate_up[expert].t()).chunk(2, dim=-1)
        value = ACTIVATIONS[activation](gate)
        unweighted = above @ down[expert]
        grad_share[low:high] = (unweighted * value * up).sum(-1)
        inner = share[low:high] * unweighted
        hidden = torch.cat([inner * up * activation_slope_ref(gate, activation), inner * value], dim=-1)
        grad_rows[low:high] = hidden @ gate_up[expert]
        grad_gate_up[expert] = hidden.t() @ rows
        grad_down[expert] = (share[low:high] * above).t() @ (value * up)
    grad_weight = torch.zeros_like(weight)
    grad_weight[is_placed] = grad_share[places].to(weight.dtype)
    return permute_backward_ref(grad_rows, plan.row_of), grad_weight, grad_gate_up, grad_down
