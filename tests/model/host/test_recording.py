"""A host's routing as a trace: valid, the same whether read at once or written token by token."""

import numpy as np
import pytest

from workbench.data.tokenizer import ByteTokenizer
from workbench.model.generate import Sampling
from workbench.model.host import HostModel, record_host
from workbench.model.host.recording import host_recorder
from workbench.trace.checks import validate
from workbench.trace.files import open_trace
from workbench.trace.store import TraceWriter

GREEDY = Sampling(max_new_tokens=6, temperature=0)


def test_what_was_written_routes_as_when_it_is_read(folder, family):
    host = HostModel.open(folder(family))
    written = record_host(host, [5, 40, 33, 8], sampling=GREEDY)
    assert validate(written) == []
    routing = written["routing"]
    ids = routing["token_id"].values.tolist()
    assert ids[:4] == [5, 40, 33, 8] and len(ids) == 4 + 5
    assert routing["phase"].values.tolist() == ["prefill"] * 4 + ["decode"] * 5
    assert routing["step"].values.tolist() == [0] * 4 + [1, 2, 3, 4, 5]
    assert routing["position"].values.tolist() == list(range(9))
    assert routing["layer"].values.tolist() == list(range(len(host.layers)))
    assert routing["router"].values.tolist() == [family] * len(host.layers)
    read = record_host(host, ids)["routing"]
    np.testing.assert_array_equal(np.sort(read["expert"].values), np.sort(routing["expert"].values))
    np.testing.assert_allclose(np.sort(read["weight"].values), np.sort(routing["weight"].values), rtol=1e-4, atol=1e-6)


def test_probabilities_are_kept_where_the_family_shows_them(folder):
    host = HostModel.open(folder("deepseek_v3"))
    routing = record_host(host, [5, 40, 33, 8])["routing"]
    prob, expert = routing["prob"].values, routing["expert"].values.astype(int)
    np.testing.assert_allclose(prob.sum(-1), 1, rtol=1e-5)
    chosen = np.take_along_axis(prob, expert, -1)
    # scaled by a factor of the family after they were made to sum to one.
    factor = host.model.config.routed_scaling_factor
    np.testing.assert_allclose(routing["weight"].values, factor * chosen / chosen.sum(-1, keepdims=True), rtol=1e-4)
    bare = record_host(host, [5, 40], recorder=host_recorder(host, with_probabilities=False))
    assert "prob" not in bare["routing"]


def test_texts_of_unequal_length_are_sequences_of_one_batch(folder):
    host = HostModel.open(folder("olmoe"))
    both = record_host(host, [[5, 40, 33, 8], [7, 9]])["routing"]
    assert both["sequence"].values.tolist() == [0] * 4 + [1] * 2
    alone = record_host(host, [7, 9])["routing"]
    np.testing.assert_array_equal(both["expert"].values[:, 4:], alone["expert"].values)


def test_a_text_is_recorded_with_its_pieces(plain, tmp_path):
    from transformers import OlmoeConfig, OlmoeForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OlmoeConfig(vocab_size=300, num_experts=4, num_experts_per_tok=2, **sizes)
    OlmoeForCausalLM(config).save_pretrained(tmp_path)
    trace = record_host(HostModel.open(tmp_path), "abc", tokenizer=ByteTokenizer())
    assert trace["routing"]["piece"].values.tolist()[-3:] == ["a", "b", "c"]
    assert trace.attrs["tokenizer"] == ByteTokenizer().name
    assert '"model_type": "olmoe"' in trace.attrs["model"]


def test_a_text_needs_a_tokenizer(folder):
    with pytest.raises(ValueError, match="a text needs the tokenizer of the checkpoint"):
        record_host(HostModel.open(folder("olmoe")), "abc")


def test_a_trace_on_disk_is_that_in_memory(folder, tmp_path):
    host = HostModel.open(folder("olmoe"))
    with host_recorder(host, writer=TraceWriter(tmp_path / "trace.zarr")) as recorder:
        record_host(host, [5, 40, 33, 8], sampling=GREEDY, recorder=recorder)
    kept, memory = open_trace(tmp_path / "trace.zarr"), record_host(host, [5, 40, 33, 8], sampling=GREEDY)
    np.testing.assert_array_equal(kept["routing"]["expert"].values, memory["routing"]["expert"].values)
