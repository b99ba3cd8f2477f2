"""What views ask of a trace."""

import numpy as np
import pytest
import torch

from workbench.core.records import Batch
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, Sampling, synthetic_trace
from workbench.trace.schema import empty_trace


@pytest.fixture(scope="module")
def run(forward, report):
    """Four steps, a swap after the second, the probe at steps 0 and 4."""
    recorder = Recorder(sampling=Sampling(train_every=1, probe_every=4), attrs={"model": "<tiny>"})
    recorder.add(*forward(columns=5, seed=9), phase="prefill", step=0, is_probe=True)
    for step in range(1, 5):
        router = {"router": "top_k"} if step < 3 else {"router": "mask", "top_k": 3}
        recorder.add(*forward(seed=step, **router), phase="train", step=step, report=report(step))
    recorder.add(*forward(columns=5, seed=9, router="mask", top_k=3), phase="prefill", step=4, is_probe=True)
    return recorder.trace()


def test_the_tokens_of_a_layer_follow_it_through_a_swap(run, forward):
    tokens = run.moe.tokens(1, phase="train")
    assert tokens["router"].values.tolist() == ["top_k"] * 6 + ["mask"] * 6
    assert tokens["step"].values.tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    first, last = (forward(seed=1)[1], forward(seed=4, router="mask", top_k=3)[1])
    assert tokens["expert"].values[:3, :2].tolist() == first.sites[1].routing.expert.tolist()
    assert (tokens["expert"].values[:3, 2] == -1).all()
    assert tokens["expert"].values[-3:].tolist() == last.sites[1].routing.expert.tolist()


def test_tokens_are_chosen_by_step_sequence_and_probe(run):
    assert run.moe.tokens(0, step=2)["position"].values.tolist() == [0, 1, 2]
    assert run.moe.tokens(0, sequence=1).sizes["token"] == 0
    assert run.moe.tokens(0, is_probe=True).sizes["token"] == 10
    with pytest.raises(LookupError, match=r"layer 7, iteration 0 has no router here; layers: \(0, 1\)"):
        run.moe.tokens(7)
    with pytest.raises(LookupError, match="layer 0, iteration 0 has no shadow router here"):
        run.moe.tokens(0, is_shadow=True)


def test_the_probe_is_found_by_its_step(run):
    assert run.moe.probe_steps == (0, 4)
    assert run.moe.probe(0)["router"].values[0] == "mask"
    assert run.moe.probe(0, step=0)["router"].values[0] == "top_k"
    with pytest.raises(LookupError, match="the probe text was not recorded at step 3; it was at: 0, 4"):
        run.moe.probe(0, step=3)


def test_load_of_one_phase(run):
    assert run.moe.load().sizes["step"] == 4
    assert run.moe.load(phase="decode").sizes["step"] == 0
    np.testing.assert_allclose(run.moe.load(phase="train").sum("expert"), 1, rtol=1e-6)


def test_facts(run):
    assert run.moe.layers == (0, 1)
    assert run.moe.routers == ("top_k", "mask")
    assert run.moe.sampling == run["routing"].attrs["sampling"]
    assert run.moe.summary()["tokens with routing"] == "10 prefill, 12 train"
    assert run.moe.summary()["training steps"] == "4, last loss 1.2500 nat/token"
    assert not run.moe.is_synthetic


def test_the_page_is_small_escaped_and_says_synthetic(run):
    page = run.moe._repr_html_()
    assert len(page) < 5000
    assert "&lt;tiny&gt;" in page
    assert "<tiny>" not in page
    assert str(run["routing"].attrs["sampling"]) in page
    assert "<b>Synthetic trace</b>" in synthetic_trace(num_tokens=4).moe._repr_html_()


def test_an_empty_trace_says_so():
    trace = empty_trace()
    assert trace.moe.events() == trace.moe.cache_events() == []
    assert (trace.moe.layers, trace.moe.routers, trace.moe.sampling, trace.moe.probe_steps) == ((), (), "", ())
    with pytest.raises(LookupError, match="the trace has no /load; it holds nothing"):
        trace.moe.load()


def test_a_token_that_chose_nothing_still_belongs_to_its_router(outputs):
    mask = torch.tensor([[False, False], [True, False]])
    batch = Batch(token_ids=torch.tensor([[1, 2]]))
    recorder = Recorder()
    recorder.add(batch, outputs(batch, [SparseRouting.from_mask(mask, mask.float())]), phase="prefill", step=0)
    tokens = recorder.trace().moe.tokens(0)
    assert tokens["expert"].values.tolist() == [[-1], [0]]
