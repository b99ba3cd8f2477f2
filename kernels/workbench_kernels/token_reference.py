"""The specification of the kernels for single tokens, in plain PyTorch, any dtype."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench_kernels.reference import moe_mlp_ref, token_attention_ref
from workbench_kernels.token_choice import ChoiceGate, TokenChoice
from workbench_kernels.token_step import BlockWeights

__all__ = ["token_choice_ref", "token_step_ref"]


def token_choice_ref(
    x: Float[Tensor, "T D"], gate: ChoiceGate, *, bias: Float[Tensor, "E"] | None = None
) -> TokenChoice:
    """The best K of a linear map, at least in float32; ties go to the lower index, a banned expert weighs nothing."""
    exact = torch.promote_types(x.dtype, torch.float32)
    logit = F.linear(x.to(exact), gate.weight.to(exact))
    score = logit.sigmoid() if gate.score == "sigmoid" else logit.softmax(-1)
    rank = score if gate.score == "sigmoid" else logit
    for side in (gate.selection_bias, bias):
        rank = rank if side is None else rank + side.to(exact)
    ranked, expert = rank.sort(dim=-1, descending=True, stable=True)
    ranked, expert = ranked[:, : gate.top_k], expert[:, : gate.top_k]
    is_free = torch.ones_like(ranked, dtype=torch.bool) if bias is None else ranked > -torch.inf
    if gate.score == "softmax_chosen":
        chosen = logit.gather(1, expert).masked_fill(~is_free, -torch.inf)
        weight = chosen.softmax(-1).nan_to_num(0)
    else:
        weight = score.gather(1, expert) * is_free
        if gate.renormalise:
            weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    prob = score / score.sum(-1, keepdim=True)
    return TokenChoice(expert, weight * gate.scale, prob, logit, ranked)


def token_step_ref(
    token_id: int,
    blocks: Sequence[BlockWeights],
    caches: Sequence[tuple[Float[Tensor, "1 C G Q"], Float[Tensor, "1 C G Q"]]],
    *,
    embedding: Float[Tensor, "V D"],
    gain: Float[Tensor, "D"],
    head: Float[Tensor, "V D"],
    cosine: Float[Tensor, "1 Q"],
    sine: Float[Tensor, "1 Q"],
    length: int,
    epsilon: float,
    clip: float | None = None,
) -> tuple[Float[Tensor, "1 V"], tuple[TokenChoice, ...]]:
    """Block after block; the caches get the newest column."""
    stream, choices = embedding[token_id : token_id + 1], []
    turn = {"cosine": cosine, "sine": sine, "length": length}
    for block, (keys, values) in zip(blocks, caches, strict=True):
        stream, _ = token_attention_ref(stream, keys, values, block.attention, **turn, epsilon=epsilon, clip=clip)
        x = F.rms_norm(stream, block.gain.shape, block.gain, epsilon)
        choice = token_choice_ref(x, block.gate)
        choices.append(choice)
        stream = stream + moe_mlp_ref(x, choice.expert, choice.weight, block.gate_up, block.down)
    return F.linear(F.rms_norm(stream, gain.shape, gain, epsilon), head), tuple(choices)
