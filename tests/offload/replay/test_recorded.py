"""From traces to requests, on traces small enough to work out."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.offload.replay.recorded import requests_of
from workbench.trace import Recorder
from workbench.trace.convert import from_arrays
from workbench.trace.schema import Trace
from workbench.trace.synth import synthetic_trace


def output_of(*layers: list[list[int]], experts: int = 4, iterations: int = 1, keep=None, shadow=None) -> Output:
    """One pass: for every layer (and iteration) the experts of every token."""
    sites = []
    for number, chosen in enumerate(layers):
        expert = torch.tensor(chosen)
        kept = expert >= 0 if keep is None else (expert >= 0) & torch.tensor(keep)
        routing = SparseRouting(expert=expert, weight=torch.ones(expert.shape), kept=kept, num_experts=experts)
        place = {"layer": number // iterations, "iteration": number % iterations, "module": "m", "router": "top_k"}
        sites.append(Site(**place, routing=routing))
        if shadow is not None:
            watched = SparseRouting(expert=torch.tensor(shadow), weight=routing.weight, num_experts=experts)
            sites.append(Site(**place | {"router": "switch"}, routing=watched, is_shadow=True))
    return Output(logits=torch.zeros(1, len(layers[0]), 0), sites=tuple(sites))


def batch_of(rows: int, columns: int, mask: list[list[int]] | None = None) -> Batch:
    ids = torch.zeros(rows, columns, dtype=torch.long)
    return Batch(token_ids=ids, mask=None if mask is None else torch.tensor(mask, dtype=torch.bool))


@pytest.fixture
def record() -> Callable[..., Trace]:
    def make(*passes, attrs=None) -> Trace:
        recorder = Recorder(attrs=attrs)
        for step, (phase, batch, output) in enumerate(passes):
            recorder.add(batch, output, phase=phase, step=step)
        return recorder.trace()

    return make


def sets(trace: Trace, **options) -> list[tuple[int, int, list[int]]]:
    """First token, layer and pages of every set."""
    found = requests_of(trace, **options)
    return list(zip(found.token.tolist(), found.layer.tolist(), found.sets(), strict=True))


def test_a_prompt_is_one_pass_and_every_token_after_it_another(record):
    trace = record(
        ("prefill", batch_of(1, 2), output_of([[0, 1], [1, 3]], [[2, 3], [2, 0]])),
        ("decode", batch_of(1, 1), output_of([[3, 0]], [[1, 0]])),
        ("decode", batch_of(1, 1), output_of([[2, 1]], [[3, 2]])),
    )
    found = requests_of(trace)
    assert sets(trace) == [
        *[(0, 0, [0, 1, 3]), (0, 1, [4, 6, 7])],
        *[(2, 0, [0, 3]), (2, 1, [4, 5])],
        *[(3, 0, [1, 2]), (3, 1, [6, 7])],
    ]
    assert found.count.tolist()[:6] == [1, 2, 1, 1, 2, 1]
    assert found.asker.tolist()[:6] == [0, 0, 1, 1, 0, 0]
    assert found.tokens.tolist() == [2, 2, 1, 1, 1, 1]
    assert found.is_prefill.tolist() == found.is_first.tolist() == [True, True, False, False, False, False]
    assert (found.num_layers, found.num_experts, found.top_k, found.num_tokens) == (2, 4, 2, 4)


def test_token_passes_take_the_prompt_token_by_token(record):
    trace = record(
        ("prefill", batch_of(1, 2), output_of([[0, 1], [1, 3]])), ("decode", batch_of(1, 1), output_of([[3, 0]]))
    )
    assert sets(trace, passes="token") == [(0, 0, [0, 1]), (1, 0, [1, 3]), (2, 0, [0, 3])]
    assert requests_of(trace, passes="token").is_first.tolist() == [True, False, False]


def test_a_batch_of_prompts_is_one_pass_and_so_is_each_of_its_tokens(record):
    mask = [[0, 1], [1, 1]]
    trace = record(
        ("prefill", batch_of(2, 2, mask), output_of([[0], [1], [2]])),
        ("decode", batch_of(2, 1), output_of([[3], [3]])),
        ("decode", batch_of(2, 1), output_of([[0], [2]])),
        ("prefill", batch_of(2, 1), output_of([[1], [0]])),
        ("decode", batch_of(2, 1), output_of([[2], [2]])),
    )
    assert sets(trace) == [(0, 0, [0, 1, 2]), (3, 0, [3]), (5, 0, [0, 2]), (7, 0, [0, 1]), (9, 0, [2])]
    found = requests_of(trace)
    assert found.is_first.tolist() == [True, False, False, True, False]
    assert found.count.tolist() == [1, 1, 1, 2, 1, 1, 1, 1, 2]
    assert found.asker.tolist() == [0, 1, 2, 0, 0, 1, 1, 0, 0]


def test_tokens_of_one_step_are_told_apart_by_their_sequence():
    # as a text is recorded that a model wrote between two steps of training.
    recorder = Recorder()
    recorder.add(batch_of(1, 2), output_of([[0], [1]]), phase="prefill", step=7)
    for expert in (2, 3):
        recorder.add(batch_of(1, 1), output_of([[expert]]), phase="decode", step=7)
    assert sets(recorder.trace()) == [(0, 0, [0, 1]), (2, 0, [2]), (3, 0, [3])]


def test_the_iterations_of_a_chain_ask_in_turn(record):
    trace = record(("prefill", batch_of(1, 1), output_of([[0]], [[1]], [[2]], [[3]], iterations=2)))
    assert sets(trace) == [(0, 0, [0]), (0, 0, [1]), (0, 1, [6]), (0, 1, [7])]
    assert requests_of(trace).num_layers == 2


def test_shadows_lost_assignments_and_empty_slots_ask_for_nothing(record):
    output = output_of([[0, 1], [2, -1]], keep=[[True, False], [True, True]], shadow=[[3, 3], [3, 3]])
    trace = record(("prefill", batch_of(1, 2), output))
    assert sets(trace) == [(0, 0, [0, 2])]
    assert requests_of(trace).top_k == 1


def test_experts_that_a_router_brought_are_left_out(record):
    output = output_of([[0, 5], [4, 3]], experts=6)
    attrs = {"model": json.dumps({"num_experts": 4})}
    assert sets(record(("prefill", batch_of(1, 2), output), attrs=attrs)) == [(0, 0, [0, 3])]
    assert sets(record(("prefill", batch_of(1, 2), output))) == [(0, 0, [0, 3, 4, 5])]


def test_training_and_probes_are_no_requests(record):
    recorder = Recorder()
    recorder.add(batch_of(1, 1), output_of([[1]]), phase="train", step=1)
    recorder.add(batch_of(1, 1), output_of([[2]]), phase="prefill", step=1, is_probe=True)
    with pytest.raises(LookupError, match=r"holds no routing of a text that was read or written \(phases prefill"):
        requests_of(recorder.trace())
    recorder.add(batch_of(1, 1), output_of([[3]]), phase="prefill", step=2)
    assert sets(recorder.trace()) == [(0, 0, [3])]


def test_a_pass_in_which_a_layer_asks_for_nothing_keeps_its_place(record):
    trace = record(
        ("prefill", batch_of(1, 1), output_of([[-1]], [[1]])), ("decode", batch_of(1, 1), output_of([[0]], [[-1]]))
    )
    assert sets(trace) == [(0, 0, []), (0, 1, [5]), (1, 0, [0]), (1, 1, [])]


def test_a_dump_of_another_program_is_read_as_well():
    expert = np.array([[[0, 1], [2, 3]], [[1, 2], [0, -1]]])
    assert sets(from_arrays(np.zeros(2, np.int64), expert, num_experts=4)) == [(0, 0, [0, 1, 2]), (0, 1, [4, 6, 7])]


def test_a_large_trace_agrees_with_counting_by_hand():
    trace = synthetic_trace(num_tokens=40, num_layers=3, num_experts=5, top_k=2)
    found = requests_of(trace)
    expert = trace["routing"]["expert"].values
    assert found.num_sets == 120
    for number, pages in enumerate(found.sets()):
        token, layer = divmod(number, 3)
        assert pages == sorted(5 * layer + expert[layer, token])
