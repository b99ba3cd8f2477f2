"""From names to a trainer: a mistake is found before anything is written, and a run says what it was."""

import json
from dataclasses import replace

import pytest
import torch

from workbench.core import Spec
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import load, save_model
from workbench.train.assemble import Request, resume_training, start_training
from workbench.train.checkpoint import checkpoints
from workbench.train.config import TrainConfig


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a"


@pytest.fixture
def damaged(start, folder):
    """A run of two steps with two checkpoints, and the path of the newer one."""
    trainer = start(folder=folder, checkpoint_every=1)
    list(trainer.run(2))
    trainer.close()
    return checkpoints(folder / "checkpoints")[-1]


@pytest.mark.parametrize(
    ("request_changes", "config_changes", "message"),
    [
        ({"router": "swich"}, {}, "did you mean 'switch'"),
        ({"router": "top_k:topk=2"}, {}, "did you mean 'top_k'"),
        ({"router": "top_k:top_k=two"}, {}, "must be int, got 'two'"),
        ({"router": "top_k:top_k=9"}, {}, "between 1 and num_experts=4, got 9"),
        ({"model": "tinny"}, {}, "no model preset 'tinny' .*'tiny'"),
        ({"model": "."}, {}, "holds no model"),
        ({"corpus": "mixxed"}, {}, "no corpus 'mixxed' .*'mixed'"),
        ({"corpus": "token_remap:domains=2"}, {}, "num_domains"),
        ({"tokenizer": "bite"}, {}, "no tokenizer 'bite' .*'byte'"),
        ({"tokenizer": "mixed_bpe_4096"}, {}, "must be read with tokenizer 'byte'"),
        ({}, {"sequence_length": 4096}, "use a smaller sequence_length or more text"),
    ],
)
def test_a_mistake_leaves_no_folder(request_changes, config_changes, message, shape, corpus, make_config, tmp_path):
    request = Request(**{"model": shape, "corpus": corpus, **request_changes})
    with pytest.raises((ValueError, LookupError, FileNotFoundError), match=message):
        start_training(request, make_config(**config_changes), folder=tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "empty or holds only white space"),
        ("binary.txt", b"\x7fELF\0\0\1", "NUL byte at byte 4: the file is binary"),
        ("latin.txt", "Grüße und Küsse".encode("latin1"), "0xFC at byte 2"),
    ],
)
def test_text_that_cannot_be_read_leaves_no_folder(name, content, message, shape, make_config, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        start_training(Request(model=shape, corpus=tmp_path / name), make_config(), folder=tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_is_there_from_its_first_moment(start, folder):
    start(folder=folder, seed=3)
    assert {path.name for path in folder.iterdir()} >= {"run.json", "checkpoints", "tokenizer", "trace.zarr"}
    facts = json.loads((folder / "run.json").read_text())
    assert facts["train"]["seed"] == 3
    assert facts["corpus"].startswith("token_remap:")
    assert load(folder).config == start(seed=3).model.config


def test_a_folder_with_a_run_or_with_something_else_is_left_alone(start, folder, tmp_path):
    start(folder=folder)
    before = (folder / "run.json").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run"):
        start(folder=folder)
    assert (folder / "run.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        start(folder=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_two_trainers_of_one_run_are_refused(start, folder):
    start(folder=folder)
    with pytest.raises(BlockingIOError, match=r"/a is being written by process \d+ on .*; stop that run first"):
        resume_training(folder)


def test_a_closed_run_can_be_taken_up_by_another(start, folder):
    start(folder=folder).close()
    resume_training(folder).close()
    assert not list(folder.rglob("*.lock"))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_names_itself_and_the_older_one(file, damaged, folder):
    (damaged / file).write_bytes((damaged / file).read_bytes()[:50])
    with pytest.raises(ValueError) as refused:
        resume_training(folder)
    text = str(refused.value)
    assert text.startswith(f"checkpoint {damaged} cannot be read: {damaged / file}")
    assert text.endswith(f"remove {damaged} and resume again, to go on from {damaged.with_name('step_00000001')}")
    assert not list(folder.rglob("*.lock"))


def test_after_removing_the_damaged_one_the_run_goes_on(damaged, folder, start, losses_of):
    (damaged / "model.safetensors").write_bytes(b"")
    damaged.rename(folder / "damaged")
    again = resume_training(folder)
    assert again.step == 1
    assert losses_of(again, 2) == losses_of(start(), 3)[1:]
    again.close()


def test_with_every_checkpoint_damaged_there_is_no_way_on(start, folder):
    start(folder=folder).close()
    [only] = checkpoints(folder / "checkpoints")
    (only / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="there is no older one; start the run anew in another folder"):
        resume_training(folder)


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no run\.json\)"):
        resume_training(tmp_path)


def write_text(path, line: str) -> None:
    path.write_text("".join(f"{line} number {number}.\n\n" + "word " * 900 + "\n\n" for number in range(8)))


@pytest.fixture
def own_text(tmp_path, shape, make_config):
    path = tmp_path / "text.txt"
    write_text(path, "A line")
    request = Request(model=shape, corpus=path, tokenizer="byte")
    trainer = start_training(request, make_config(), folder=tmp_path / "a")
    list(trainer.run(1))
    trainer.close()
    return path


def test_a_run_on_ones_own_text_can_be_resumed_from_elsewhere(own_text, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = resume_training(tmp_path / "a")
    assert again.batches.corpus.name == "text"
    again.close()


def test_a_corpus_that_has_changed_stops_the_resume(own_text, tmp_path):
    write_text(own_text, "Another line")
    with pytest.raises(ValueError, match=r"has changed since run .* began"):
        resume_training(tmp_path / "a")
    own_text.unlink()
    with pytest.raises(LookupError, match=r"no corpus '.*text\.txt'"):
        resume_training(tmp_path / "a")


def test_an_opened_model_keeps_its_weights_and_may_get_another_router(shape, corpus, make_config, tmp_path):
    model = initialise(Transformer(shape), 5)
    save_model(model, tmp_path / "model")
    with pytest.warns(UserWarning, match=r"holds no tokenizer\.json, so text is read byte by byte"):
        trainer = start_training(Request(model=tmp_path / "model", corpus=corpus, router="switch"), make_config())
    assert trainer.model.config == replace(shape, router=Spec("switch"))
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), model.parameters(), strict=True))


def test_a_run_can_be_the_beginning_of_another(start, folder, corpus, make_config, tmp_path):
    first = start(folder=folder)
    list(first.run(2))
    first.close()
    second = start_training(Request(model=folder, corpus=corpus), make_config(seed=9), folder=tmp_path / "b")
    assert second.step == 0
    assert all(torch.equal(a, b) for a, b in zip(second.model.parameters(), first.model.parameters(), strict=True))
    second.close()


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(shape, make_config, tmp_path):
    save_model(initialise(Transformer(replace(shape, vocab_size=100)), 0), tmp_path / "model")
    (tmp_path / "text.txt").write_text("a b c\n\n" * 4000)
    request = Request(model=tmp_path / "model", corpus=tmp_path / "text.txt", tokenizer="byte")
    with pytest.raises(ValueError, match="'byte' has 257 tokens, the model's vocabulary only 100"):
        start_training(request, make_config())


def test_the_model_gets_the_vocabulary_of_the_tokenizer(corpus):
    trainer = start_training(Request(model="tiny", corpus=corpus), TrainConfig(batch_size=1, sequence_length=8))
    assert trainer.model.config.vocab_size == 257
    assert trainer.model.config.width == 128
