"""What several commands open."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.core import Spec
from workbench.data import load_tokenizer
from workbench.model import ModelConfig
from workbench.model.host import HostModel
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import export_hugging_face, save_model
from workbench.opening import is_trace, needs_host, open_tokenizer, read_text, record_file, record_windows

SIZES = {"width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "max_positions": 8}


def config(vocab_size: int = 257) -> ModelConfig:
    return ModelConfig(vocab_size=vocab_size, num_experts=4, expert_width=32, router=Spec("top_k"), **SIZES)


def test_a_folder_without_a_tokenizer_is_read_byte_by_byte_and_says_so(tmp_path):
    save_model(initialise(Transformer(config()), 0), tmp_path)
    tokenizer, words = open_tokenizer(tmp_path, 257)
    assert tokenizer.name == "byte" and "byte by byte" in words
    with pytest.raises(ValueError, match="too small for bytes"):
        open_tokenizer(tmp_path, 10)
    load_tokenizer("byte").save(tmp_path)
    assert open_tokenizer(tmp_path, 257)[1] == ""


def test_a_text_is_recorded_in_windows_of_what_the_model_can_see(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("twenty bytes of text")
    trace, extent = record_windows(initialise(Transformer(config()), 0), load_tokenizer("byte"), file)
    assert extent == "20 tokens in windows of 8"
    # each window begins with the start token.
    assert trace["routing"].sizes["token"] == 20 + 3 * (load_tokenizer("byte").start_id is not None)
    assert trace.attrs["source"] == "a.txt"


def foreign(folder: Path) -> Path:
    """A checkpoint of a family that only transformers knows."""
    kinds = AutoConfig.for_model("granitemoe")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    kinds.update({**sizes, "num_key_value_heads": 2, "vocab_size": 257, "num_local_experts": 6})
    kinds.update({"num_experts_per_tok": 2, "max_position_embeddings": 8})
    AutoModelForCausalLM.from_config(kinds).save_pretrained(folder)
    return folder


def test_a_family_that_is_not_ours_is_recorded_as_transformers_runs_it(tmp_path):
    folder, file, told = foreign(tmp_path / "granite"), tmp_path / "a.txt", []
    file.write_text("twenty bytes of text")
    assert needs_host(folder)
    trace = record_file(folder, file, tell=told.append)
    assert any("granitemoe: 2 MoE layers of 6 experts, 2 a token" in words for words in told)
    assert told[-1] == "20 tokens in windows of 8"
    assert trace.attrs["source"] == "a.txt"
    routing = trace["routing"]
    assert set(routing["step"].values.tolist()) == {0, 1, 2}
    host = HostModel.open(folder)
    first = load_tokenizer("byte").encode("twenty b")
    expected = host.forward(torch.tensor([first])).output.sites[1].routing.expert
    assert routing["expert"].sel(layer=1).values[: len(first)].tolist() == expected.tolist()


def test_our_own_models_need_no_host(tmp_path):
    model = initialise(Transformer(config()), 0)
    save_model(model, tmp_path / "own")
    export_hugging_face(model, tmp_path / "foreign")
    assert not needs_host(tmp_path / "own") and not needs_host(tmp_path / "foreign")
    file, told = tmp_path / "a.txt", []
    file.write_text("twenty bytes of text")
    trace = record_file(tmp_path / "own", file, tell=told.append)
    again, extent = record_windows(model, load_tokenizer("byte"), file)
    assert told[-1] == extent and trace["routing"].to_dataset().equals(again["routing"].to_dataset())


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe", "byte 0 is not"), (b"a\0b", "NUL character")])
def test_what_is_no_text_is_refused(content, message, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(file)


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        record_windows(initialise(Transformer(config()), 0), load_tokenizer("byte"), tmp_path / "a.txt")


def test_traces_are_known_by_their_endings():
    names = {"t.zarr": True, "t.zarr.zip": True, "t.nc": True, "runs": False, "t.zip": False}
    assert {name: is_trace(Path(name)) for name in names} == names
