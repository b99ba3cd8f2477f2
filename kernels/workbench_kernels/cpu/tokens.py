"""The engine `cpp` for single tokens: tensors to the C++ kernels and back."""

import ctypes

import torch
from torch import Tensor

from workbench_kernels.cpu.library import AttentionCall, ChoiceCall, ExpertsCall, LinearCall, kernels
from workbench_kernels.token_attention import AttentionWeights
from workbench_kernels.token_choice import ChoiceGate, TokenChoice

__all__ = [
    "DTYPES",
    "choice",
    "choice_call",
    "experts",
    "experts_call",
    "linear",
    "linear_call",
    "ready_attention",
    "run",
    "token_attention",
]

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SCORES = {"softmax": 0, "softmax_chosen": 1, "sigmoid": 2}


def ready_attention(weights: AttentionWeights, channels: int, epsilon: float, clip: float) -> AttentionCall:
    """The part of a call that is the same for every token."""
    queries, width = weights.query.shape
    norm = 0 if weights.query_gain is None else 1 if len(weights.query_gain) == channels else 2
    call = AttentionCall(width=width, heads=queries // channels, kv_heads=len(weights.key) // channels)
    call.head_dim, call.dtype, call.norm = channels, DTYPES[weights.query.dtype], norm
    call.has_wide_gains = weights.gain.dtype == torch.float32
    call.epsilon, call.clip = epsilon, clip
    for name, tensor in zip(weights._fields, weights, strict=True):
        setattr(call, name, None if tensor is None else tensor.data_ptr())
    return call


def token_attention(
    ready: AttentionCall,
    stream: Tensor,
    keys: Tensor,
    values: Tensor,
    turn: tuple[Tensor, Tensor],
    length: int,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The stream after the attention of its newest tokens, and their queries; the cache gets their keys and values."""
    # a copy: another thread may be at another token of the same layer.
    call = AttentionCall.from_buffer_copy(ready)
    stream, cosine, sine = stream.contiguous(), turn[0].contiguous(), turn[1].contiguous()
    call.batch, call.capacity = keys.shape[:2]
    call.length, call.threads = length, torch.get_num_threads()
    out, turned = torch.empty_like(stream), stream.new_empty(call.batch, call.heads * call.head_dim)
    call.stream, call.out, call.turned = stream.data_ptr(), out.data_ptr(), turned.data_ptr()
    call.cosine, call.sine = cosine.data_ptr(), sine.data_ptr()
    call.keys, call.values = keys.data_ptr(), values.data_ptr()
    seen = None if mask is None else mask.contiguous()
    if seen is not None:
        call.mask, call.mask_stride = seen.data_ptr(), seen.shape[1]
    run("workbench_attention", call)
    return out, turned


def choice_call(gate: ChoiceGate, dtype: torch.dtype) -> ChoiceCall:
    """The part of a call that is the same for every token; the gate and its bias must be contiguous."""
    experts, width = gate.weight.shape
    call = ChoiceCall(width, experts, gate.top_k, DTYPES[dtype], gate.weight.dtype == torch.float32)
    call.score, call.renormalises, call.scale = _SCORES[gate.score], gate.renormalise, gate.scale
    call.gate = gate.weight.data_ptr()
    call.selection_bias = None if gate.selection_bias is None else gate.selection_bias.data_ptr()
    return call


def choice(x: Tensor, gate: ChoiceGate, bias: Tensor | None) -> TokenChoice:
    """The choice of one token."""
    x = x.contiguous()
    experts, slots = gate.weight.shape[0], gate.top_k
    numbers = torch.empty(1, 2 * (experts + slots))
    expert = torch.empty(1, slots, dtype=torch.int64)
    call = choice_call(gate, x.dtype)
    call.x, call.bias = x.data_ptr(), None if bias is None else bias.data_ptr()
    # float32 takes 4 bytes; one look at the place of a tensor costs as much as all of these.
    call.logit = place = numbers.data_ptr()
    call.prob, call.weight = place + 4 * experts, place + 8 * experts
    call.rank, call.expert = place + 8 * experts + 4 * slots, expert.data_ptr()
    run("workbench_choice", call)
    logit, prob, weight, rank = numbers.split_with_sizes((experts, experts, slots, slots), dim=1)
    return TokenChoice(expert, weight, prob, logit, rank)


def experts_call(gate_up: Tensor, down: Tensor, slots: int) -> ExpertsCall:
    """The part of a call that is the same for every token."""
    experts, width, hidden = down.shape
    call = ExpertsCall(slots, experts, width, hidden, DTYPES[down.dtype], torch.get_num_threads())
    call.gate_up, call.down = gate_up.data_ptr(), down.data_ptr()
    return call


def experts(x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, expert: Tensor) -> Tensor:
    """The SwiGLU experts of one token; weights pass through once, split over the cores."""
    x, weight = x.contiguous(), weight.float().contiguous()
    gate_up, down, expert = gate_up.contiguous(), down.contiguous(), expert.long().contiguous()
    out = torch.empty_like(x)
    call = experts_call(gate_up, down, expert.shape[1])
    call.x, call.weight, call.expert = x.data_ptr(), weight.data_ptr(), expert.data_ptr()
    call.out = out.data_ptr()
    run("workbench_experts", call)
    return out


def linear_call(weight: Tensor, tokens: int) -> LinearCall:
    """The part of a call that is the same for every token."""
    outputs, inputs = weight.shape
    call = LinearCall(tokens, inputs, outputs, DTYPES[weight.dtype], torch.get_num_threads())
    call.weight = weight.data_ptr()
    return call


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """A matrix times a few tokens."""
    x = x.contiguous()
    out = x.new_empty(len(x), len(weight))
    call = linear_call(weight, len(x))
    call.x, call.out = x.data_ptr(), out.data_ptr()
    run("workbench_linear", call)
    return out


def run(name: str, call: ctypes.Structure) -> None:
    """One call of the library.

    Raises:
        MemoryError: there was no scratch memory.
    """
    loaded = kernels()
    if loaded.functions[name](ctypes.byref(call), 0, loaded.tier) != 1:
        raise MemoryError("the kernels got no scratch memory for a token; free some memory and call again")
