"""The engine `cpp` for single tokens: tensors to the C++ kernels and back.

A record is made once for weights at one place and copied for every token: a copy costs a fifth of making one, and
another thread may be at another token of the same weights.
"""

import ctypes
from functools import lru_cache

import torch
from torch import Tensor

from workbench_kernels.cpu.calls import DTYPES
from workbench_kernels.cpu.library import AttentionCall, ChoiceCall, ExpertsCall, LinearCall, kernels
from workbench_kernels.token_attention import AttentionWeights
from workbench_kernels.token_choice import GatePlace, TokenChoice

__all__ = [
    "ReadyChoice",
    "choice_call",
    "experts",
    "experts_call",
    "linear",
    "linear_call",
    "ready_attention",
    "ready_choice",
    "run",
    "token_attention",
]

_CPU = torch.device("cpu")
# records of so many weights; and results that are allocated and taken apart at once.
_MOST_KEPT, _TOGETHER = 512, 16
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


def choice_call(gate: GatePlace, dtype: torch.dtype) -> ChoiceCall:
    """The part of a call that is the same for every token; the gate and its bias must be contiguous."""
    place, gate_dtype, (experts, width), (top_k, score, renormalises, scale), own = gate
    call = ChoiceCall(width, experts, top_k, DTYPES[dtype], gate_dtype == torch.float32)
    call.score, call.renormalises, call.scale = _SCORES[score], renormalises, scale
    call.gate, call.selection_bias = place, own
    return call


def ready_choice(gate: GatePlace, dtype: torch.dtype) -> "ReadyChoice":
    """The choice of one token after the other by a gate, for all threads."""
    return ReadyChoice(choice_call(gate, dtype))


class ReadyChoice:
    """The call of one gate, and room for the results of tokens to come."""

    def __init__(self, call: ChoiceCall):
        self._call, self._room = call, list[tuple[TokenChoice, int, int]]()

    def __call__(self, x: Tensor, bias: Tensor | None) -> TokenChoice:
        """The choice of a contiguous token; the bias is float32 and contiguous."""
        try:
            # one step of the interpreter: no other thread gets the same.
            found, numbers, expert = self._room.pop()
        except IndexError:
            found, numbers, expert = self._more()
        call = ChoiceCall.from_buffer_copy(self._call)
        call.x, call.numbers, call.expert = x.data_ptr(), numbers, expert
        if bias is not None:
            call.bias = bias.data_ptr()
        run("workbench_choice", call)
        return found

    def _more(self) -> tuple[TokenChoice, int, int]:
        """Room for one result and where it lies; what was made beside it is kept for the next."""
        experts, slots = self._call.experts, self._call.slots
        sizes = (slots, experts, experts, slots)
        # a tensor born under inference_mode could not be learned with outside of it.
        with torch.inference_mode(False):
            numbers = torch.empty(1, _TOGETHER * sum(sizes), dtype=torch.float32, device=_CPU)
            chosen = torch.empty(1, _TOGETHER * slots, dtype=torch.int64, device=_CPU)
            # unsafe only where somebody holds the whole too, and half as long as parts that know of it.
            parts = iter(numbers.unsafe_split_with_sizes(sizes * _TOGETHER, dim=1))
            made = map(
                TokenChoice._make, zip(chosen.unsafe_split(slots, dim=1), parts, parts, parts, parts, strict=True)
            )
        place, step = numbers.data_ptr(), 4 * sum(sizes)
        room = [(one, place + index * step, chosen.data_ptr() + index * slots * 8) for index, one in enumerate(made)]
        first = room.pop()
        self._room.extend(room)
        return first


def experts_call(gate_up: Tensor, down: Tensor, slots: int) -> ExpertsCall:
    """The part of a call that is the same for every token."""
    ready = _experts_call(gate_up.data_ptr(), down.data_ptr(), down.shape, down.dtype, slots)
    call = ExpertsCall.from_buffer_copy(ready)
    call.threads = torch.get_num_threads()
    return call


@lru_cache(maxsize=_MOST_KEPT)
def _experts_call(gate_up: int, down: int, shape: torch.Size, dtype: torch.dtype, slots: int) -> ExpertsCall:
    experts, width, hidden = shape
    call = ExpertsCall(slots, experts, width, hidden, DTYPES[dtype])
    call.gate_up, call.down = gate_up, down
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
    call = LinearCall.from_buffer_copy(_linear_call(weight.data_ptr(), weight.shape, weight.dtype, tokens))
    call.threads = torch.get_num_threads()
    return call


@lru_cache(maxsize=_MOST_KEPT)
def _linear_call(weight: int, shape: torch.Size, dtype: torch.dtype, tokens: int) -> LinearCall:
    call = LinearCall(tokens, shape[1], shape[0], DTYPES[dtype])
    call.weight = weight
    return call


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """A matrix times a few tokens."""
    x = x.contiguous()
    tokens = x.shape[0]
    out = x.new_empty(tokens, weight.shape[0])
    call = linear_call(weight, tokens)
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
