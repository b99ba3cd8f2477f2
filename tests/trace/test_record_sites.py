"""The recorder, where layers, routers and kinds of routing differ."""

import numpy as np
import pytest
import torch

from workbench.core.mixture import MergedRouting, SlotRouting
from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, Sampling, validate


def test_a_swap_adds_a_site_widens_slots_and_experts_and_pads_what_was_before(forward):
    recorder = Recorder(sampling=Sampling(train_every=1), block_steps=8)
    old = forward(columns=2, layers=1, experts=4, top_k=1, router="top_k")
    new = forward(columns=2, layers=1, experts=6, top_k=3, router="mask")
    for step in range(1, 31):
        recorder.add(*(old if step <= 20 else new), phase="train", step=step)
    trace = recorder.trace()
    assert validate(trace) == []
    routing = trace["routing"]
    assert routing["router"].values.tolist() == ["top_k", "mask"]
    assert routing["num_experts"].values.tolist() == [4, 6]
    assert routing.sizes["slot"] == 3
    before, after = routing["step"].values <= 20, routing["step"].values > 20
    assert (routing["expert"].values[0][before][:, 1:] == -1).all()
    assert (routing["expert"].values[1][after] >= 0).all()
    np.testing.assert_array_equal(routing["is_routed"].values, [before, after])
    load = trace["load"]["load"].values
    assert np.isnan(load[:20, 0, 4:]).all()
    assert not np.isnan(load[20:]).any()


def test_layers_may_differ_in_slots_and_in_experts(outputs):
    batch = Batch(token_ids=torch.tensor([[1, 2]]))
    narrow = SparseRouting.from_topk(torch.tensor([[1], [0]]), torch.ones(2, 1), num_experts=2)
    wide = SparseRouting.from_topk(torch.tensor([[4, 0, 1], [3, 2, -1]]), torch.ones(2, 3), num_experts=5,
                                   keep=torch.tensor([[True, True, True], [True, True, False]]))  # fmt: skip
    recorder = Recorder()
    recorder.add(batch, outputs(batch, [narrow, wide]), phase="prefill", step=0)
    trace = recorder.trace()
    assert trace["routing"]["expert"].values.tolist() == [[[1, -1, -1], [0, -1, -1]], [[4, 0, 1], [3, 2, -1]]]
    np.testing.assert_allclose(
        trace["load"]["load"].values[0], [[0.5, 0.5, np.nan, np.nan, np.nan], [0.2, 0.2, 0.2, 0.2, 0.2]], rtol=1e-6
    )
    assert trace["routing"]["weight"].values[1, 1, 2] == 0


def test_shadows_and_iterations_are_sites_and_only_iterations_count_as_load(outputs):
    batch = Batch(token_ids=torch.tensor([[1]]))

    def site(expert, iteration, is_shadow):
        routing = SparseRouting.from_topk(torch.tensor([[expert]]), torch.ones(1, 1), num_experts=3)
        return Site(layer=0, iteration=iteration, module="m", router="r", routing=routing, is_shadow=is_shadow)

    output = Output(logits=torch.zeros(1, 1, 1), sites=(site(0, 0, False), site(1, 1, False), site(2, 0, True)))
    recorder = Recorder()
    recorder.add(batch, output, phase="prefill", step=0)
    trace = recorder.trace()
    assert trace["routing"]["is_shadow"].values.tolist() == [False, False, True]
    assert trace["routing"]["iteration"].values.tolist() == [0, 1, 0]
    assert trace["load"]["load"].values.tolist() == [[[0.5, 0.5, 0.0]]]


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_pass_of_hardly_any_token(forward, tokens):
    recorder = Recorder()
    recorder.add(*forward(columns=tokens), phase="prefill", step=0)
    trace = recorder.trace()
    assert validate(trace) == []
    assert trace["load"]["tokens"].values.tolist() == [tokens]
    assert np.isnan(trace["load"]["load"].values).all() == (tokens == 0)
    assert ("routing" in trace.children) == (tokens == 1)


def test_slot_and_merged_routings_are_recorded_with_every_expert(outputs):
    batch = Batch(token_ids=torch.tensor([[1, 2, 3]]))
    combine = torch.rand(3, 2, 4)
    slots = SlotRouting(num_experts=2, dispatch=torch.rand(3, 2, 4), combine=combine)
    merged = MergedRouting(num_experts=2, mixture=torch.tensor([[0.25, 0.75]]), group=torch.zeros(3, dtype=torch.int64))
    recorder = Recorder()
    recorder.add(batch, outputs(batch, [slots, merged]), phase="prefill", step=0)
    routing = recorder.trace()["routing"]
    assert routing["expert"].values.tolist() == [[[0, 1]] * 3] * 2
    np.testing.assert_allclose(routing["weight"].values[0], combine.sum(-1), rtol=1e-6)
    np.testing.assert_allclose(routing["weight"].values[1], [[0.25, 0.75]] * 3)
