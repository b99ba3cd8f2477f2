"""The recorder: what forward passes returned is what the trace says."""

import numpy as np
import pytest
import torch
import xarray as xr

from workbench.core.records import Batch, CacheEvent, ControlEvent, ExpertKey, Output, Site, Tally
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, Sampling, TraceWriter, open_trace, validate


@pytest.fixture
def two_tokens(outputs):
    """Two tokens, two layers, three experts; layer 0 loses the first choice of token 1 to capacity."""
    batch = Batch(token_ids=torch.tensor([[7, 9]]), domain=torch.tensor([[1, 0]]), domains=("prose", "code"))
    first = SparseRouting.from_topk(
        torch.tensor([[2, 0], [2, 1]]),
        torch.tensor([[0.75, 0.25], [0.5, 0.5]]),
        num_experts=3,
        keep=torch.tensor([[True, True], [False, True]]),
        prob=torch.tensor([[0.25, 0.0, 0.75], [0.0, 0.5, 0.5]]),
    )
    second = SparseRouting.from_topk(
        torch.tensor([[0, 1], [1, 0]]), torch.full((2, 2), 0.5), num_experts=3, prob=torch.full((2, 3), 1 / 3)
    )
    return batch, outputs(batch, [first, second])


def test_two_tokens_worked_by_hand(two_tokens):
    recorder = Recorder(sampling=Sampling(prob=True), decode_piece=lambda token: f"<{token}>")
    recorder.add(*two_tokens, phase="prefill", step=4)
    trace = recorder.trace()

    routing = trace["routing"]
    assert routing["layer"].values.tolist() == [0, 1]
    assert routing["num_experts"].values.tolist() == [3, 3]
    assert routing["token_id"].values.tolist() == [7, 9]
    assert routing["piece"].values.tolist() == ["<7>", "<9>"]
    assert routing["domain"].values.tolist() == ["code", "prose"]
    assert routing["position"].values.tolist() == [0, 1]
    assert routing["sequence"].values.tolist() == [0, 0]
    assert routing["step"].values.tolist() == [4, 4]
    assert routing["phase"].values.tolist() == ["prefill", "prefill"]
    assert routing["expert"].values.tolist() == [[[2, 0], [2, 1]], [[0, 1], [1, 0]]]
    assert routing["weight"].values.tolist() == [[[0.75, 0.25], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    assert routing["kept"].values.tolist() == [[[True, True], [False, True]], [[True, True], [True, True]]]
    assert routing["prob"].values[0].tolist() == [[0.25, 0.0, 0.75], [0.0, 0.5, 0.5]]

    load = trace["load"]
    np.testing.assert_allclose(load["load"].values, [[[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]]], rtol=1e-6)
    np.testing.assert_allclose(load["prob_mean"].values[0, 0], [0.125, 0.25, 0.625], rtol=1e-6)
    np.testing.assert_allclose(load["entropy"].values, [[(0.5623351 + 0.6931472) / 2, np.log(3)]], rtol=1e-6)
    np.testing.assert_allclose(load["cv"].values, [[np.sqrt(2) / 4, np.sqrt(0.5)]], rtol=1e-6)
    np.testing.assert_allclose(load["dead_fraction"].values, [[0, 1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(load["dropped_fraction"].values, [[0.25, 0]], rtol=1e-6)
    assert load["tokens"].values.tolist() == [2]
    assert validate(trace) == []


def test_load_sums_to_one_in_every_step_and_layer(forward):
    recorder, passes = Recorder(block_steps=8), [forward(columns=5, seed=seed) for seed in range(7)]
    for step in range(1, 24):
        recorder.add(*passes[step % 7], phase="train", step=step)
    load = recorder.trace()["load"]["load"]
    assert load.shape == (23, 2, 4)
    np.testing.assert_allclose(load.sum("expert"), 1, rtol=1e-6)


def test_training_keeps_the_first_tokens_of_sampled_steps_and_the_load_of_all(forward):
    recorder = Recorder(sampling=Sampling(train_every=10, train_tokens=4))
    for step in range(1, 31):
        recorder.add(*forward(rows=2, columns=3, seed=step), phase="train", step=step)
    trace = recorder.trace()
    assert trace["routing"]["step"].values.tolist() == [1] * 4 + [10] * 4 + [20] * 4 + [30] * 4
    assert trace["routing"]["sequence"].values[:4].tolist() == [0, 0, 0, 1]
    assert trace["routing"]["position"].values[:4].tolist() == [0, 1, 2, 0]
    assert trace["load"]["step"].values.tolist() == list(range(1, 31))
    assert "first 4 tokens of step 1 and of every 10th step" in trace["routing"].attrs["sampling"]


def test_a_graph_is_measured_at_once_and_equals_what_is_measured_later(forward):
    batch, output = forward(columns=40)
    traces = []
    for logits in (output.logits, output.logits.clone().requires_grad_()):
        recorder = Recorder()
        recorder.add(batch, Output(logits=logits, sites=output.sites), phase="train", step=1)
        traces.append(recorder.trace())
    xr.testing.assert_identical(traces[0]["load"].to_dataset(), traces[1]["load"].to_dataset())
    xr.testing.assert_identical(traces[0]["routing"].to_dataset(), traces[1]["routing"].to_dataset())


def test_micro_batches_of_one_step_share_a_row(forward):
    whole, parts = Recorder(sampling=Sampling(train_tokens=7)), Recorder(sampling=Sampling(train_tokens=7))
    batch, output = forward(rows=2, columns=5)
    whole.add(batch, output, phase="train", step=1)
    for row in range(2):
        sites = tuple(
            Site(
                layer=site.layer,
                iteration=0,
                module=site.module,
                router=site.router,
                routing=SparseRouting(
                    expert=site.routing.expert[5 * row : 5 * row + 5],
                    weight=site.routing.weight[5 * row : 5 * row + 5],
                    kept=site.routing.kept[5 * row : 5 * row + 5],
                    prob=site.routing.prob[5 * row : 5 * row + 5],
                    num_experts=4,
                ),
            )
            for site in output.sites
        )
        part = Batch(token_ids=batch.token_ids[row : row + 1])
        parts.add(part, Output(logits=output.logits[row : row + 1], sites=sites), phase="train", step=1)
    one, two = whole.trace(), parts.trace()
    xr.testing.assert_allclose(one["load"].to_dataset(), two["load"].to_dataset())
    assert two["load"]["tokens"].values.tolist() == [10]
    np.testing.assert_array_equal(one["routing"]["expert"], two["routing"]["expert"])
    assert two["routing"].sizes["token"] == 7


def test_the_probe_keeps_its_routing_and_does_not_count_as_load(forward):
    recorder = Recorder(sampling=Sampling(train_every=0))
    assert [step for step in range(101) if recorder.is_probe_due(step)] == [0, 50, 100]
    recorder.add(*forward(seed=1), phase="eval", step=0, is_probe=True)
    recorder.add(*forward(seed=2), phase="train", step=1)
    trace = recorder.trace()
    assert trace["routing"]["is_probe"].values.tolist() == [True] * 3
    assert trace["load"]["phase"].values.tolist() == ["train"]


def test_a_generation_continues_where_its_prefill_ended(forward):
    recorder = Recorder()
    recorder.add(*forward(rows=2, columns=3), phase="prefill", step=9)
    for step in range(2):
        recorder.add(*forward(rows=2, columns=1, seed=step), phase="decode", step=9)
    recorder.add(*forward(rows=1, columns=2), phase="prefill", step=9)
    routing = recorder.trace()["routing"]
    assert routing["sequence"].values.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 2, 2]
    assert routing["position"].values.tolist() == [0, 1, 2, 0, 1, 2, 3, 3, 4, 4, 0, 1]
    assert routing["phase"].values.tolist() == ["prefill"] * 6 + ["decode"] * 4 + ["prefill"] * 2


def test_a_token_buffer_that_generation_overwrites_is_recorded_as_it_was(forward):
    batch, output = forward(columns=1)
    first = int(batch.token_ids[0, 0])
    recorder = Recorder()
    recorder.add(batch, output, phase="prefill", step=0)
    batch.token_ids.fill_(first + 1)
    recorder.add(batch, output, phase="decode", step=1)
    assert recorder.trace()["routing"]["token_id"].values.tolist() == [first, first + 1]


def test_padding_is_left_out_and_does_not_move_positions(outputs):
    mask = torch.tensor([[False, True, True], [True, True, False]])
    batch = Batch(token_ids=torch.tensor([[0, 11, 12], [21, 22, 0]]), mask=mask)
    routing = SparseRouting.from_topk(torch.tensor([[0], [1], [2], [3]]), torch.ones(4, 1), num_experts=4)
    recorder = Recorder()
    recorder.add(batch, outputs(batch, [routing]), phase="prefill", step=0)
    trace = recorder.trace()["routing"]
    assert trace["token_id"].values.tolist() == [11, 12, 21, 22]
    assert trace["sequence"].values.tolist() == [0, 0, 1, 1]
    assert trace["position"].values.tolist() == [0, 1, 0, 1]
    assert trace["expert"].values[0, :, 0].tolist() == [0, 1, 2, 3]


def test_reports_and_events_fill_run_control_and_offload(forward, report):
    swap = ControlEvent(
        op="swap_router",
        args={"name": "mask", "args": {"threshold": 0.5}},
        time_ns=5,
        actor="ana",
        accepted_step=1,
        applied_step=2,
        result="experts kept",
    )
    miss = CacheEvent(time_ns=7, step=2, token=0, key=ExpertKey(1, 3), kind="miss", bytes=64, stall_seconds=0.5)
    recorder = Recorder()
    recorder.add(*forward(), phase="train", step=1, report=report(1, bits_per_byte={"code": 2.0}))
    recorder.add(*forward(), phase="train", step=2, report=report(2, events=(swap,), aux_losses={}), events=[miss])
    trace = recorder.trace()
    assert validate(trace) == []
    run = trace["run"]
    assert run["loss"].values.tolist() == [5.0, 2.5]
    assert run["loss"].attrs["units"] == "nat/token"
    assert run["eval_loss"].sel(domain="code").values.tolist()[0] == 2.0
    assert np.isnan(run["eval_loss"].values[1, 0])
    np.testing.assert_array_equal(run["aux_loss"].sel(aux="balance"), [2.0, np.nan])
    assert trace.moe.events() == [swap]
    assert trace.moe.cache_events() == [miss]


def test_tallies_of_all_ranks_win_over_what_this_process_saw(forward, report):
    recorder = Recorder()
    recorder.add(*forward(layers=1), phase="train", step=1)
    demand, kept = torch.tensor([3, 0, 0, 5]), torch.tensor([3, 0, 0, 1])
    tally = Tally(layer=0, iteration=0, demand=demand, kept=kept, losses={"balance": 1.5}, tokens=8)
    recorder.add_report(report(1), tallies=[tally])
    load = recorder.trace()["load"]
    assert load.sizes["step"] == 1
    assert load["load"].values.tolist() == [[[0.375, 0.0, 0.0, 0.625]]]
    assert load["dropped_fraction"].values.tolist() == [[0.5]]
    assert load["tokens"].values.tolist() == [8]
    assert load["aux_loss"].sel(aux="balance").values.tolist() == [[1.5]]


def test_memory_and_disk_hold_the_same_trace(forward, report, tmp_path):
    traces, passes = [], [forward(seed=seed) for seed in range(3)]
    for writer in (None, TraceWriter(tmp_path / "a.zarr")):
        recorder = Recorder(writer, attrs={"created_at": "now"}, decode_piece=chr, block_steps=4)
        for step in range(1, 24):
            recorder.add(*passes[step % 3], phase="train", step=step, report=report(step))
        traces.append(recorder.trace().load())
        recorder.close()
    xr.testing.assert_identical(*traces)


def test_reading_the_trace_does_not_change_what_is_recorded_later(forward):
    calm, watched = (Recorder(attrs={"created_at": "now"}, block_steps=8) for _ in range(2))
    passes = [forward(seed=seed) for seed in range(3)]
    for step in range(1, 30):
        for recorder in (calm, watched):
            recorder.add(*passes[step % 3], phase="train", step=step)
        if step % 5 == 0:
            watched.trace()
    xr.testing.assert_identical(calm.trace(), watched.trace())


def test_rewind_forgets_what_came_after(forward, report):
    recorder, one = Recorder(sampling=Sampling(train_every=1), block_steps=8), forward()
    for steps in (range(1, 21), range(11, 16)):
        recorder.rewind(steps.start - 1)
        for step in steps:
            recorder.add(*one, phase="train", step=step, report=report(step))
    trace = recorder.trace()
    assert validate(trace) == []
    for group in ("run", "load"):
        assert trace[group]["step"].values.tolist() == list(range(1, 16))
    assert np.unique(trace["routing"]["step"]).tolist() == list(range(1, 16))


def test_what_must_be_refused(forward):
    recorder = Recorder()
    recorder.add(*forward(rows=2), phase="prefill", step=3)
    with pytest.raises(ValueError, match=r"step went back from 3 to 2; call rewind\(2\) first"):
        recorder.add(*forward(), phase="prefill", step=2)
    with pytest.raises(ValueError, match=r"a decode step of 3 rows follows a prefill of 2; .* sequence="):
        recorder.add(*forward(rows=3, columns=1), phase="decode", step=3)
    with pytest.raises(TypeError, match=r"attribute 'config' must be text, .* got dict; give a mapping as JSON text"):
        Recorder(attrs={"config": {"width": 1}})


def test_pieces_and_domains_survive_what_files_cannot_hold(forward):
    recorder = Recorder(decode_piece=lambda token: "\0\udc80")
    recorder.add(*forward(columns=1), phase="prefill", step=0)
    assert recorder.trace()["routing"]["piece"].values.tolist() == ["␀?"]


def test_who_watches_gets_every_row_once_and_the_blocks_on_disk_stay_whole(forward, tmp_path):
    def record(recorder, *, packs):
        seen = []
        recorder.listen(lambda block: seen.extend(block.get("load", {}).get("step", np.zeros(0)).tolist()))
        for step in range(1, 21):
            recorder.add(*forward(columns=5, seed=step), phase="train", step=step)
            if packs and step % 3 == 0:
                recorder.pack()
        recorder.close()
        return seen

    watched, plain = (TraceWriter(tmp_path / name) for name in ("watched.zarr", "plain.zarr"))
    assert record(Recorder(watched, block_steps=8), packs=True) == list(range(1, 21))
    assert record(Recorder(plain, block_steps=8), packs=False) == list(range(1, 21))
    traces = [open_trace(tmp_path / name) for name in ("watched.zarr", "plain.zarr")]
    assert traces[0]["load"].to_dataset().equals(traces[1]["load"].to_dataset())
    chunks = [len(list((tmp_path / name / "load" / "load" / "c").iterdir())) for name in ("watched.zarr", "plain.zarr")]
    assert chunks[0] == chunks[1]
