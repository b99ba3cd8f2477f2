"""The engine `cpp` for a whole step of decoding: records that are tied to each other once and run in one call."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from workbench_kernels.cpu.calls import DTYPES
from workbench_kernels.cpu.library import AttentionCall, ChoiceCall, ExpertsCall, LinearCall, NormCall, StepCall
from workbench_kernels.cpu.tokens import choice_call, experts_call, linear_call, run
from workbench_kernels.token_step import BlockWeights, Bring

__all__ = ["Step"]

# as call.h numbers them.
_KINDS = {AttentionCall: 0, NormCall: 1, ChoiceCall: 2, ExpertsCall: 3, LinearCall: 4}
_NOBODY, _DONE = -1, -2


class Step:
    """The records of all blocks, of the last norm and of the head, over buffers of their own.

    Args:
        ready: of each block's attention, what is the same for every token.
        caches: keys and values of each block.
    """

    def __init__(
        self,
        blocks: Sequence[BlockWeights],
        ready: Sequence[AttentionCall],
        caches: Sequence[tuple[Tensor, Tensor]],
        *,
        embedding: Tensor,
        gain: Tensor,
        head: Tensor,
        epsilon: float,
    ):
        gate, width = blocks[0].gate, head.shape[1]
        self._epsilon, self.words = epsilon, len(embedding)
        self._first, self._row_bytes = embedding.data_ptr(), width * embedding.element_size()
        # what the blocks hand to each other: the stream twice, the normed stream, queries that nobody reads.
        self._stream, self._between, self._normed = head.new_empty(3, 1, width).unbind()
        self._queries = head.new_empty(max(len(block.attention.query) for block in blocks))
        self.logits = head.new_empty(1, 1, len(head))
        # who is chosen, as two words each; then weights, shares, logits and ranks of each layer.
        self.sizes = (len(blocks), gate.weight.shape[0], gate.top_k)
        self.choices = torch.empty(len(blocks) * (4 * gate.top_k + 2 * len(gate.weight)))
        words = 2 * len(blocks) * gate.top_k
        self._chosen = self.choices[:words].view(torch.int64).view(len(blocks), gate.top_k)
        self.is_brought = blocks[0].is_brought
        self._brought = [(ctypes.c_int64 * gate.top_k)() for _ in blocks]
        # what experts give that compute while others are on their way.
        self._outputs = torch.empty(gate.top_k, width) if self.is_brought else None
        self._early: list[ExpertsCall] = []
        self._attention = [AttentionCall.from_buffer_copy(one) for one in ready]
        # held here: the records know addresses only.
        self._held: tuple[object, ...] = (tuple(blocks), tuple(caches), embedding, gain, head)
        records: list[ctypes.Structure] = []
        for index, (block, cache) in enumerate(zip(blocks, caches, strict=True)):
            records += self._block(index, block, cache)
        last = linear_call(head, 1)
        last.x, last.out = self._normed.data_ptr(), self.logits.data_ptr()
        records += [self._norm(self._stream, gain), last]
        kinds = (ctypes.c_int32 * len(records))(*(_KINDS[type(one)] for one in records))
        calls = (ctypes.c_void_p * len(records))(*(ctypes.addressof(one) for one in records))
        self._held += (records, kinds, calls)
        # with experts that are brought it stands still between a choice and the experts.
        cuts = [3 + 4 * index for index in range(len(blocks))] if self.is_brought else []
        self._calls = [
            StepCall(last - first, 1, ctypes.addressof(kinds) + 4 * first, ctypes.addressof(calls) + 8 * first)
            for first, last in pairwise([0, *cuts, len(records)])
        ]

    def run(self, token_id: int, cosine: Tensor, sine: Tensor, length: int, bring: Bring | None = None) -> None:
        """Fills `logits` and `choices`; the caches get the newest column."""
        place = (cosine.data_ptr(), sine.data_ptr())
        self._attention[0].stream = self._first + token_id * self._row_bytes
        for call in self._attention:
            call.length = length
            call.cosine, call.sine = place
        threads = torch.get_num_threads()
        for index, part in enumerate(self._calls):
            if index:
                assert bring is not None, "who starts a step has checked"
                self._bring(index - 1, bring)
            part.threads = threads
            run("workbench_step", part)

    def _bring(self, block: int, bring: Bring) -> None:
        """Has the experts of a block brought; those that are there before the others compute meanwhile."""
        places, early = self._brought[block], list[int]()

        def meanwhile(there: Sequence[int]) -> None:
            places[:] = there
            early.extend(slot for slot, place in enumerate(there) if place != _NOBODY)
            self._early[block].threads = torch.get_num_threads()
            run("workbench_experts", self._early[block])

        places[:] = bring(block, self._chosen[block].tolist(), self._normed, meanwhile)
        for slot in early:
            places[slot] = _DONE

    def _block(self, index: int, block: BlockWeights, cache: tuple[Tensor, Tensor]) -> list[ctypes.Structure]:
        layers, _, slots = self.sizes
        attention, (keys, values) = self._attention[index], cache
        attention.batch, attention.stream, attention.out = 1, self._stream.data_ptr(), self._between.data_ptr()
        attention.turned, attention.capacity = self._queries.data_ptr(), keys.shape[1]
        attention.keys, attention.values = keys.data_ptr(), values.data_ptr()
        choice = choice_call(block.gate.place, block.down.dtype)
        choice.x, choice.expert = self._normed.data_ptr(), self.choices.data_ptr() + index * slots * 8
        choice.numbers = self.choices[2 * layers * slots :].view(layers, -1)[index].data_ptr()
        call = experts_call(block.gate_up, block.down, slots)
        # the weights are the first of the numbers.
        call.x, call.weight = choice.x, choice.numbers
        call.expert = choice.expert
        if self._outputs is not None:
            call.expert, call.outputs = ctypes.addressof(self._brought[index]), self._outputs.data_ptr()
            self._early.append(ExpertsCall.from_buffer_copy(call))
            self._early[-1].is_part = 1
        call.residual, call.out = self._between.data_ptr(), self._stream.data_ptr()
        return [attention, self._norm(self._between, block.gain), choice, call]

    def _norm(self, x: Tensor, gain: Tensor) -> NormCall:
        call = NormCall(1, len(gain), DTYPES[x.dtype], 1, self._epsilon, x.data_ptr())
        if gain.dtype == torch.float32:
            call.gain = gain.data_ptr()
        else:
            call.narrow_gain = gain.data_ptr()
        call.out = self._normed.data_ptr()
        return call
