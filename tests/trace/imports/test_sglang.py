"""Dumps of SGLang's expert distribution recorder: tokens and counts, and everything that can be wrong with them."""

import numpy as np
import pytest
import torch

from workbench.trace.checks import validate
from workbench.trace.imports import import_sglang

# three layers, the first dense; six physical experts are four logical ones, two of them twice.
LOGICAL = torch.tensor([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]])


def record(number, mode, ids, positions, lengths, chosen):
    """One forward pass, in the form of SGLang's `_DetailSinglePassGatherer`; eight slots, two used."""
    topk = torch.full((3, len(ids), 8), -1, dtype=torch.int32)
    topk[1:, :, :2] = torch.as_tensor(chosen, dtype=torch.int32)
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": ids,
        "positions": positions,
        "extend_seq_lens": lengths,
        "forward_mode": mode,
        "topk_ids_of_layer": topk,
        "misc_objects": [],
        "global_physical_count": torch.zeros(3, 6, dtype=torch.int32),
    }


def records():
    first = [[[0, 1], [2, 3], [4, 5], [1, 0], [3, 2]], [[0, 1], [2, 3], [4, 5], [1, 0], [3, 2]]]
    return [
        # two prompts of three and two tokens, then a token of each; a new prompt between.
        record(10, 1, [11, 12, 13, 21, 22], [0, 1, 2, 0, 1], [3, 2], first),
        record(11, 2, [14, 23], [3, 2], None, [[[0, 2], [1, 3]], [[0, 2], [1, 3]]]),
        record(12, 4, [], [], None, np.zeros((2, 0, 2))),
        record(13, 3, [31, 32, 15], [0, 1, 4], [2, 1], [[[5, 0], [4, 1], [2, 0]], [[5, 0], [4, 1], [2, 0]]]),
    ]


@pytest.fixture
def saved(tmp_path):
    def save(**data):
        torch.save(data, tmp_path / "expert_distribution_recorder_1_0.pt")
        return tmp_path / "expert_distribution_recorder_1_0.pt"

    return save


def test_every_token_comes_back_under_the_experts_of_the_model(saved):
    trace = import_sglang(saved(records=records(), last_physical_to_logical_map=LOGICAL))
    routing = trace["routing"]
    assert routing["token_id"].values.tolist() == [11, 12, 13, 21, 22, 14, 23, 31, 32, 15]
    assert routing["phase"].values.tolist() == ["prefill"] * 5 + ["decode"] * 2 + ["prefill"] * 2 + ["decode"]
    assert routing["sequence"].values.tolist() == [0, 0, 0, 1, 1, 0, 1, 2, 2, 0]
    assert routing["position"].values.tolist() == [0, 1, 2, 0, 1, 3, 2, 0, 1, 4]
    assert routing["module"].values.tolist() == ["model.layers.1.mlp", "model.layers.2.mlp"]
    assert routing["layer"].values.tolist() == [0, 1]
    # physical 4 is logical 0 in the first MoE layer, and 3 in the second.
    assert routing["expert"].values[0, :4].tolist() == [[0, 1], [2, 3], [0, 1], [1, 0]]
    assert routing["expert"].values[1, :4].tolist() == [[3, 2], [1, 0], [3, 2], [2, 3]]
    assert set(routing["num_experts"].values.tolist()) == {4}
    assert np.isnan(routing["weight"].values).all() and routing["kept"].values.all()
    assert trace.attrs["unknown"] == ["weight", "prob"]


def test_counts_become_loads(saved):
    counts = torch.tensor([[[0, 0, 0, 0], [2, 2, 0, 4]], [[0, 0, 0, 0], [1, 1, 1, 1]], [[0] * 4, [0] * 4]])
    path = saved(rank=0, logical_count=counts, average_utilization_rate_over_window=None)
    trace = import_sglang(path, top_k=2, phase="prefill")
    assert validate(trace) == []
    assert list(trace.children) == ["load"]
    load = trace["load"]
    np.testing.assert_allclose(load["load"].values[:2, 0], [[0.25, 0.25, 0, 0.5], [0.25] * 4])
    assert np.isnan(load["load"].values[2]).all() and np.isnan(load["prob_mean"].values).all()
    assert load["tokens"].values.tolist() == [4, 2, 0]
    np.testing.assert_allclose(load["cv"].values[:2, 0], [np.std([2, 2, 0, 4]) / 2, 0])
    np.testing.assert_allclose(load["dead_fraction"].values[:2, 0], [0.25, 0])
    assert load["phase"].values.tolist() == ["prefill"] * 3
    assert "tokens" in import_sglang(path).attrs["unknown"]


def broken(place, **fields):
    found = records()
    found[place] |= fields
    return found


@pytest.mark.parametrize(
    "found, fault",
    [
        ([], "expected at least one forward pass with tokens, got none"),
        ([3], "expected records of keys and values, got int as record 0"),
        (broken(1, forward_mode=5), r"expected forward_mode 1 to 4 .* in record 1, got 5; speculative"),
        (broken(1, positions=[3]), r"as many positions and routed tokens as input_ids \(2\) in record 1, got 1 and 2"),
        (broken(0, extend_seq_lens=[3, 3]), r"extend_seq_lens that sum to 5 tokens in forward pass 10, got \[3, 3\]"),
        (broken(0, positions=[0, 1, 3, 0, 1]), "positions that follow each other from 0 in forward pass 10"),
        (
            broken(0, topk_ids_of_layer=torch.zeros(3, 5)),
            "expected topk_ids_of_layer of record 0 as whole numbers of 3",
        ),
        (broken(1, topk_ids_of_layer=torch.full((3, 2, 8), 6)), "experts -1 to 5 in record 1, got 3 layers of 6 to 6"),
        (
            broken(1, topk_ids_of_layer=torch.full((3, 2, 8), -1)),
            "expected 2 experts for every token, got 0 for token 0",
        ),
    ],
)
def test_every_fault_names_file_record_expected_and_got(saved, found, fault):
    with pytest.raises(ValueError, match=fault) as caught:
        import_sglang(saved(records=found, last_physical_to_logical_map=LOGICAL))
    assert "recorder_1_0.pt: expected" in str(caught.value)


def test_a_dump_without_tokens_says_how_to_record_them(saved):
    found = records()
    for one in found:
        del one["topk_ids_of_layer"]
    with pytest.raises(ValueError, match="it was recorded per_pass, which keeps no tokens: record with mode per_token"):
        import_sglang(saved(records=found, last_physical_to_logical_map=LOGICAL))


def test_a_wrong_top_k_is_noticed(saved):
    path = saved(records=records(), last_physical_to_logical_map=LOGICAL)
    with pytest.raises(ValueError, match="expected 3 experts for every token, got 2 for token 0 of forward pass 10"):
        import_sglang(path, top_k=3)


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"records": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="it is damaged, or holds code, which is not run"):
        import_sglang(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_refused(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match=r"give one .pt file"):
        import_sglang(tmp_path / "none.pt")
    (tmp_path / "short.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="it is damaged"):
        import_sglang(tmp_path / "short.pt")
    with pytest.raises(ValueError, match="got keys weights; is it a file of the expert distribution recorder"):
        import_sglang(saved(weights=1))
