"""What the commands do, below the command line."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from workbench import commands
from workbench.core import Spec
from workbench.data import load_tokenizer
from workbench.model import PRESETS, ModelConfig, preset
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import save_model
from workbench.routers import ROUTERS
from workbench.session import Session
from workbench.trace import open_trace
from workbench.train.run_folder import RunFolder

CORPUS = "token_remap:num_domains=2,documents=4"
SIZES = {"width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "max_positions": 64}
SHAPE = ModelConfig(vocab_size=257, num_experts=4, expert_width=32, router=Spec("top_k"), **SIZES)


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(initialise(Transformer(SHAPE), 0), folder)
    load_tokenizer("byte").save(folder)
    return folder


def check_demo(folder, capsys, *, steps: int, prompts: tuple[str, ...]) -> None:
    """A finished demo has a run with a swap in the middle, texts, a report, and a table on the screen."""
    shown = capsys.readouterr()
    assert f"held-out {open_trace(folder / 'trace.zarr')['run']['domain'].values[0]}" in shown.out
    assert "texts by a model of" in shown.out
    assert f"step {steps // 2}: switch -> top_k: all" in shown.err
    assert str(folder / "report.html") in shown.err
    trace = open_trace(folder / "trace.zarr")
    assert trace["run"]["step"].values.tolist() == list(range(1, steps + 1))
    assert trace["control"]["applied_step"].values.tolist() == [steps // 2 + 1]
    samples = RunFolder(folder).samples()
    assert tuple(sample["prompt"] for sample in samples) == prompts
    page = (folder / "report.html").read_text()
    assert all(prompt in page for prompt in prompts)
    assert {"run.json", "checkpoints", "tokenizer", "samples.json"} <= {path.name for path in folder.iterdir()}


def test_the_demo_does_the_whole_job_on_a_small_model(tmp_path, capsys, monkeypatch):
    def small(*, model, router, folder, config):
        assert model == "tiny"
        config = replace(config, batch_size=2, sequence_length=32)
        return Session(model=SHAPE, corpus=CORPUS, router=router, folder=folder, config=config)

    monkeypatch.setattr(commands, "Session", small)
    monkeypatch.setattr(commands, "_DEMO_PROMPTS", ("once upon",))
    commands.demo(out=tmp_path / "demo", steps=4, seed=0)
    check_demo(tmp_path / "demo", capsys, steps=4, prompts=("once upon",))


@pytest.mark.slow
def test_the_demo_does_the_whole_job(tmp_path, capsys):
    commands.demo(out=tmp_path / "demo", steps=8, seed=0)
    check_demo(tmp_path / "demo", capsys, steps=8, prompts=("def ", "The ", "int main(", "Der "))


def test_routers_are_listed_with_their_papers_and_arguments():
    rows = {row["name"]: row for row in commands.listing("routers")}
    assert tuple(rows) == ROUTERS.names()
    assert rows["switch"]["arxiv"] == "2101.03961"
    assert rows["switch"]["arguments"]["capacity_factor"] == 1.25
    assert "layer" not in rows["switch"]["arguments"]
    assert (rows["top_k"]["causal"], rows["expert_choice"]["causal"]) == (True, False)


def test_presets_are_listed_with_their_size():
    rows = {row["name"]: row for row in commands.listing("presets")}
    assert tuple(rows) == tuple(PRESETS)
    assert rows["tiny"]["parameters"] == Transformer(preset("tiny")).num_parameters()
    assert rows["small"]["num_experts"] == 16


def test_corpora_are_listed_with_their_domains_and_licence():
    rows = {row["name"]: row for row in commands.listing("corpora")}
    assert rows["token_remap"]["is_synthetic"]
    assert not rows["mixed"]["is_synthetic"]
    assert len(rows["mixed"]["domains"]) >= 6
    assert all(row["licence"] and row["bytes"] > 0 for row in rows.values())
    assert json.loads(json.dumps(rows)) == rows


def test_a_continuation_is_printed_as_it_is_written(model, monkeypatch):
    pieces = []
    monkeypatch.setattr(commands, "write", pieces.append)
    commands.generate(model, "ab", max_new_tokens=8, temperature=0.0, stop=(), seed=0)
    assert pieces[0] == "ab"
    assert pieces[-1] == "\n"
    assert len(pieces) > 4


def test_what_is_not_said_of_the_drawing_is_as_in_a_session(model, capsys):
    commands.generate(model, "ab", max_new_tokens=12, temperature=None, stop=(), seed=4)
    session = Session(model=model, corpus=CORPUS, batch_size=1, sequence_length=8)
    assert capsys.readouterr().out == "ab" + session.ask("ab", max_new_tokens=12, seed=4).text + "\n"


def test_a_long_text_is_traced_in_windows_of_what_the_model_was_made_for(model, tmp_path):
    (tmp_path / "text.txt").write_text("x" * 150, encoding="utf-8")
    commands.trace(model, text=tmp_path / "text.txt", out=tmp_path / "t.zarr.zip")
    trace = open_trace(tmp_path / "t.zarr.zip")
    assert trace["routing"]["step"].values.tolist() == [0] * 64 + [1] * 64 + [2] * 22
    assert trace["routing"]["position"].values.tolist() == [*range(64), *range(64), *range(22)]
    assert trace.attrs["source"] == "text.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\0b", "NUL character, as binary files do"),
        (b"a\xff", "must be UTF-8 text; byte 1 is not"),
    ],
)
def test_text_that_cannot_be_traced_says_why(content, message, model, tmp_path):
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        commands.trace(model, text=tmp_path / "text.txt", out=tmp_path / "t.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_place_that_a_trace_cannot_take_is_refused_before_the_work(model, tmp_path):
    (tmp_path / "there.zarr").mkdir()
    for name in ("t.json", "there.zarr"):
        with pytest.raises(ValueError, match=r"--out must be a free path that ends in \.zarr, \.zarr\.zip, \.nc"):
            commands.trace(model, text=tmp_path / "no text", out=tmp_path / name)


def test_a_run_without_a_step_can_be_reported(tmp_path, capsys):
    Session(model=SHAPE, corpus=CORPUS, batch_size=1, sequence_length=8, folder=tmp_path / "a").close()
    commands.report(tmp_path / "a", out=None)
    assert (tmp_path / "a" / "report.html").stat().st_size > 1000
    assert "report.html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is damaged"), ('{"samples": [{"words": 1}]}', "texts of another version")]
)
def test_a_report_of_damaged_texts_says_so(content, message, tmp_path):
    Session(model=SHAPE, corpus=CORPUS, batch_size=1, sequence_length=8, folder=tmp_path / "a").close()
    (tmp_path / "a" / "samples.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        commands.report(tmp_path / "a", out=None)
    with pytest.raises(ValueError, match=message):
        Session.resume(tmp_path / "a")
    assert not list(tmp_path.rglob("*.lock"))


def test_a_model_without_a_tokenizer_reads_bytes_if_it_has_room_for_them(tmp_path, capsys):
    save_model(initialise(Transformer(SHAPE), 0), tmp_path / "roomy")
    commands.generate(tmp_path / "roomy", "ab", max_new_tokens=1, temperature=0.0, stop=(), seed=0)
    assert "text is read byte by byte, not as the model was trained" in capsys.readouterr().err
    narrow = ModelConfig(**{**vars(SHAPE), "vocab_size": 100})
    save_model(initialise(Transformer(narrow), 0), tmp_path / "narrow")
    with pytest.raises(ValueError, match="its vocabulary is too small for bytes"):
        commands.generate(tmp_path / "narrow", "ab", max_new_tokens=1, temperature=0.0, stop=(), seed=0)


def test_a_bug_is_no_mistake_of_the_user():
    assert not issubclass(AssertionError, commands.MISTAKES)
    assert not issubclass(TypeError, commands.MISTAKES)
    assert issubclass(torch.OutOfMemoryError, commands.MISTAKES)
