"""The requests of a trace in the order of time, by hand."""

import numpy as np
import pytest

from workbench.analysis.streams import expert_streams
from workbench.trace import synthetic_trace
from workbench.trace.convert import from_arrays
from workbench.trace.schema import empty_trace


def test_tokens_stand_in_their_sequence_and_drops_are_left_out():
    expert = np.array([[[0, 1]], [[2, 3]], [[1, -1]], [[3, 0]]])
    kept = np.array([[[True, True]], [[True, False]], [[True, True]], [[True, True]]])
    # one token of each of two texts per step, as a batch of two decodes.
    trace = from_arrays(
        np.zeros(4, np.int64), expert, num_experts=4, kept=kept, step=np.array([0, 0, 1, 1]),
        sequence=np.array([0, 1, 0, 1]), phase="decode",
    )  # fmt: skip
    streams = expert_streams(trace)
    assert streams.expert.tolist() == [[[0, 1], [1, -1], [2, -1], [3, 0]]]
    assert streams.bounds.tolist() == [0, 2, 4]
    assert (streams.num_tokens, streams.num_sequences, streams.width, streams.top_k) == (4, 2, 4, 2)
    assert [part.tolist() for part in streams.sets(0)] == [[0, 1, 1, 2, 3, 0], [0, 2, 3, 4, 6]]


def test_rows_of_two_training_batches_are_four_sequences():
    trace = from_arrays(
        np.zeros(4, np.int64), np.zeros((4, 1, 1), np.int64), num_experts=1, step=np.array([1, 1, 2, 2]),
        sequence=np.array([0, 1, 0, 1]), phase="train",
    )  # fmt: skip
    assert expert_streams(trace).bounds.tolist() == [0, 1, 2, 3, 4]


def test_all_layers_of_a_token_are_one_set_of_pages():
    expert = np.array([[[1, 0], [2, -1]], [[2, 2], [0, 1]]])
    streams = expert_streams(from_arrays(np.zeros(2, np.int64), expert, num_experts=3))
    assert [part.tolist() for part in streams.sets()] == [[1, 0, 5, 2, 3, 4], [0, 3, 6]]


def test_experts_of_the_router_itself_are_left_out():
    expert = np.array([[[0, 2]], [[3, 1]], [[2, 3]]])
    model = {"model": '{"num_experts": 2}'}
    streams = expert_streams(from_arrays(np.zeros(3, np.int64), expert, num_experts=4, attrs=model))
    assert streams.num_experts.tolist() == [2]
    assert [part.tolist() for part in streams.sets(0)] == [[0, 1], [0, 1, 2, 2]]


def test_what_it_is_taken_from_is_said():
    streams = expert_streams(synthetic_trace(num_tokens=5, num_layers=2))
    assert streams.over == "5 decode tokens, 2 layers; routers: synthetic; 1 sequences"
    with pytest.raises(LookupError, match="the trace has no /routing"):
        expert_streams(empty_trace())
