"""Router replay: equal outputs with the recorded routing, other outputs with another, refusal of what does not fit."""

import numpy as np
import pytest
import torch

from workbench.model.generate import Sampling
from workbench.model.host import HostModel, generate_host, record_host, replay_host

PROMPTS = [[5, 40, 33, 8], [7, 9]]
GREEDY = Sampling(max_new_tokens=5, temperature=0)


def tokens_of(trace):
    routing = trace["routing"]
    sequence = routing["sequence"].values
    return [routing["token_id"].values[sequence == n].tolist() for n in np.unique(sequence)]


def test_the_recorded_routing_gives_equal_outputs(folder, family, assert_close):
    host = HostModel.open(folder(family))
    trace = record_host(host, PROMPTS, sampling=GREEDY)
    outputs = list(replay_host(host, trace, tokens_of(trace)))
    expected = [step.output for step in generate_host(host, PROMPTS, GREEDY)]
    assert len(outputs) == len(expected) == 5
    for output, own in zip(outputs, expected, strict=True):
        # a generation asks the head for the last position alone: another shape, whose product may round otherwise.
        assert_close(output.logits[:, -1], own.logits[:, -1])
        assert output.logits.shape[1] > 1 or torch.equal(output.logits, own.logits)
        for site, one in zip(output.sites, own.sites, strict=True):
            assert torch.equal(site.routing.expert, one.routing.expert)


def test_a_batch_that_was_only_read_is_replayed_to_the_bit(folder):
    host = HostModel.open(folder("olmoe"))
    output = next(replay_host(host, record_host(host, PROMPTS), PROMPTS))
    ids, mask = torch.tensor([PROMPTS[0], [0, 0, *PROMPTS[1]]]), torch.tensor([[True] * 4, [False] * 2 + [True] * 2])
    own = host.forward(ids, mask=mask).output
    assert torch.equal(output.logits[mask], own.logits[mask])


def test_it_is_the_trace_that_decides(folder):
    host = HostModel.open(folder("olmoe"))
    trace = record_host(host, PROMPTS, sampling=GREEDY)
    own = next(replay_host(host, trace, tokens_of(trace)))
    routing = trace["routing"].to_dataset()
    trace["routing"] = routing.assign(expert=(routing["expert"] + 1) % 12)
    other = next(replay_host(host, trace, tokens_of(trace)))
    assert (other.sites[0].routing.expert == (own.sites[0].routing.expert + 1) % 12).all()
    assert (own.logits - other.logits).abs().max() > 1e-2


def test_another_router_can_be_undone(folder, plain, tmp_path):
    # the same experts behind other gates: with the recorded routing they give what the first model gave.
    model = plain("olmoe")
    for layer in model.model.layers:
        layer.mlp.gate.weight.data.neg_()
    model.save_pretrained(tmp_path)
    first, other = HostModel.open(folder("olmoe")), HostModel.open(tmp_path)
    trace = record_host(first, [5, 40, 33, 8])
    ids = torch.tensor([[5, 40, 33, 8]])
    replayed = next(replay_host(other, trace, [[5, 40, 33, 8]]))
    assert torch.equal(replayed.logits, first.forward(ids).output.logits)
    assert not torch.equal(other.forward(ids).output.logits, replayed.logits)


@pytest.mark.parametrize(
    "token_ids, fault",
    [
        ([[5, 40, 33, 9]], r"other tokens: sequence 0 has \[8\] at position 3, got \[9\]"),
        ([[5, 40, 33]], r"sequence 0 has \[8\] at position 3, got none \(4 and 3 tokens\)"),
        ([[5, 40, 33, 8], [1]], "expected the tokens of the trace's 1 sequences, got 2"),
    ],
)
def test_other_tokens_are_refused(folder, token_ids, fault):
    host = HostModel.open(folder("olmoe"))
    with pytest.raises(ValueError, match=fault):
        replay_host(host, record_host(host, [5, 40, 33, 8]), token_ids)


def test_a_trace_of_another_model_is_refused(folder):
    trace = record_host(HostModel.open(folder("deepseek_v3")), [5, 40])
    with pytest.raises(ValueError, match=r"expected a routing of 3 MoE layers with \[12\] experts, got 2 with \[12\]"):
        next(replay_host(HostModel.open(folder("olmoe")), trace, [[5, 40]]))


def test_assignments_without_weight_or_slot_are_refused(folder):
    host = HostModel.open(folder("olmoe"))
    trace = record_host(host, [5, 40])
    routing = trace["routing"].to_dataset()
    trace["routing"] = routing.assign(weight=routing["weight"] * np.nan)
    with pytest.raises(ValueError, match="does not know the weights of MoE layer 0"):
        next(replay_host(host, trace, [[5, 40]]))
    empty = routing["expert"].copy(data=np.where(np.arange(3) == 2, -1, routing["expert"].values))
    trace["routing"] = routing.assign(expert=empty)
    with pytest.raises(ValueError, match="expected 3 experts for every token in MoE layer 0, got 2 to 2"):
        next(replay_host(host, trace, [[5, 40]]))


def test_a_trace_without_routing_is_refused(folder):
    from workbench.trace.schema import empty_trace

    with pytest.raises(LookupError, match="has no /routing to replay"):
        replay_host(HostModel.open(folder("olmoe")), empty_trace(), [])
