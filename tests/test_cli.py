"""The command line as a person types it: what it prints, where it writes, how it ends."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from workbench import cli
from workbench.cli import main
from workbench.core import Spec
from workbench.data import load_tokenizer
from workbench.model import ModelConfig
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import load, save_model
from workbench.trace import open_trace, validate
from workbench.train.checkpoint import checkpoints
from workbench.train.run_folder import RunFolder

CORPUS = "token_remap:num_domains=2,documents=1"
SETTINGS = ("batch_size=4", "sequence_length=16", "checkpoint_every=4", "dtype=float32")
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of width 32 in a folder, with its tokenizer."""
    sizes = {"width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    shape = ModelConfig(vocab_size=257, num_experts=4, expert_width=32, router=Spec("top_k"), **sizes)
    folder = tmp_path_factory.mktemp("model")
    save_model(initialise(Transformer(shape), 0), folder)
    load_tokenizer("byte").save(folder)
    return folder


@pytest.fixture(scope="module")
def train(model):
    """Runs `workbench train` on the small model; more words may follow."""
    return lambda *words: main(["train", "--model", str(model), "--corpus", CORPUS, *SET, *map(str, words)])


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory) -> Path:
    """A run of six steps; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    assert train("--steps", 6, "--out", folder) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the run, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.splitlines()[-1].startswith("workbench: error: ")
    return shown.err


def test_a_run_has_all_its_parts_and_says_what_it_did(train, tmp_path, capsys):
    assert train("--steps", 5, "--seed", 3, "--router", "switch:jitter=0.0", "--out", tmp_path / "a") == 0
    shown = capsys.readouterr()
    assert "step 5: loss " in shown.err
    assert "router switch:jitter=0.0" in shown.err
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"run.json", "checkpoints", "tokenizer", "trace.zarr"}
    facts = RunFolder(tmp_path / "a").facts()
    assert (facts["train"]["seed"], facts["train"]["batch_size"]) == (3, 4)
    assert [path.name[-1] for path in checkpoints(tmp_path / "a" / "checkpoints")] == ["0", "4", "5"]
    trace = open_trace(tmp_path / "a" / "trace.zarr")
    assert validate(trace) == []
    assert trace["run"].sizes["step"] == 5


def test_steps_count_from_the_beginning_of_the_run_also_after_a_resume(train, run, tmp_path, capsys):
    assert train("--steps", 11, "--out", tmp_path / "whole") == 0
    assert main(["train", "--resume", str(run), "--steps", "11"]) == 0
    assert f"resuming {run} at step 6" in capsys.readouterr().err
    one, two = (checkpoints(folder / "checkpoints")[-1] for folder in (tmp_path / "whole", run))
    assert one.name == two.name == "step_00000011"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    traces = [open_trace(folder / "trace.zarr")["run"] for folder in (tmp_path / "whole", run)]
    assert traces[0]["step"].values.tolist() == traces[1]["step"].values.tolist() == list(range(1, 12))
    assert traces[0]["loss"].values.tolist() == traces[1]["loss"].values.tolist()


def test_a_step_that_is_reached_already_is_said_and_nothing_is_trained(run, capsys):
    before = (run / "checkpoints").stat().st_mtime_ns
    assert main(["train", "--resume", str(run), "--steps", "6"]) == 0
    assert "is at step 6 already; --steps counts from the beginning of the run" in capsys.readouterr().err
    assert (run / "checkpoints").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--router", "swich"], "did you mean 'switch'"),
        (["--router", "switch:jiter=0.1"], "did you mean 'jitter'"),
        (["--router", "top_k:top_k=two"], "argument top_k of router top_k must be int, got 'two'"),
        (["--router", "top_k:top_k=99"], "top_k must be between 1 and num_experts=4, got 99"),
        (["--router", "top_k:3"], "expected name:key=value"),
        (["--model", "tinny"], "did you mean 'tiny'"),
        (["--corpus", "mixxed"], "did you mean 'mixed'"),
        (["--set", "dtype=float23"], "did you mean 'float32'"),
        (["--set", "batchsize=3"], "did you mean 'batch_size'"),
        (["--set", "batch_size=many"], "batch_size must be int, got 'many'"),
        (["--set", "aux_weights={'entrpy':0.001}"], "did you mean 'entropy'"),
        (["--set", "aux_schedule={'balance':'linear'}"], "aux_schedule needs num_steps"),
        (["--set", "batch_size"], "--set expects KEY=VALUE, got 'batch_size'"),
        (["--set", "sequence_length=5000"], "use a smaller sequence_length or more text"),
        (["--steps", "-1"], "steps must be at least 0, got -1"),
    ],
)
def test_a_mistake_is_answered_with_what_is_right_and_leaves_no_folder(words, message, model, tmp_path, capsys):
    given = ["--corpus", CORPUS, *SET, *words]
    given += [] if "--model" in words else ["--model", model]
    assert message in refused(["train", *given, "--out", tmp_path / "a"], capsys)
    assert list(tmp_path.iterdir()) == []


def test_losses_are_weighted_and_scheduled_from_the_command_line(train, tmp_path):
    settings = ["num_steps=4", "balance_over=global_batch", "aux_weights={'entropy':0.001,'z':0.5}"]
    settings += ["aux_schedule={'z':'linear:first=1,last=0.5'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert train("--steps", 2, *words, "--out", tmp_path / "a") == 0
    weights = open_trace(RunFolder(tmp_path / "a").trace)["run"]["aux_weight"]
    assert weights.sel(aux="z").values.tolist() == [0.5, 0.4375]
    assert weights.sel(aux="entropy").values.tolist() == [0.001, 0.001]


def test_a_folder_that_holds_a_run_is_not_overwritten(train, run, capsys):
    before = (run / "run.json").read_bytes()
    assert train("--steps", 1, "--out", run) == 2
    assert f"already holds a run; resume it with `workbench train --resume {run}`" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before


def test_resuming_needs_a_run_and_nothing_else(run, tmp_path, capsys):
    assert "holds no run" in refused(["train", "--resume", tmp_path], capsys)
    assert "leave out router, out" in refused(
        ["train", "--resume", run, "--router", "hash", "--out", tmp_path / "b"], capsys
    )


def test_a_damaged_checkpoint_names_the_older_one(run, capsys):
    newest = checkpoints(run / "checkpoints")[-1]
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    error = refused(["train", "--resume", run, "--steps", "9"], capsys)
    assert f"remove {newest} and resume again, to go on from {newest.with_name('step_00000004')}" in error
    assert "is damaged" in refused(["generate", run, "ab"], capsys)
    shutil.rmtree(newest)
    assert main(["train", "--resume", str(run), "--steps", "5"]) == 0


def test_a_run_that_another_process_writes_is_refused(run, capsys):
    lock = RunFolder(run).lock()
    assert "is being written by process" in refused(["train", "--resume", run, "--steps", "9"], capsys)
    lock.release()


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_way_back(train, tmp_path, capsys):
    assert train("--steps", 40, "--set", "learning_rate=1e38", "--set", "warmup_steps=0", "--out", tmp_path / "a") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "expected a finite loss and gradient" in error
    assert f"the last good checkpoint is {checkpoints(tmp_path / 'a' / 'checkpoints')[-1]}" in error


def test_the_most_probable_continuation_is_printed_after_the_prompt(finished, capsys):
    words = ["generate", str(finished), "ab", "--max-new-tokens", "9", "--greedy"]
    texts = []
    for seed in ("0", "1"):
        assert main([*words, "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("ab")
    assert len(texts[0]) == len("ab") + 9 + len("\n")
    stop = texts[0][5:7]
    assert main([*words, "--stop", stop]) == 0
    assert capsys.readouterr().out == texts[0][: texts[0].index(stop, 2)] + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-new-tokens", "-1"], "max_new_tokens must be at least 0, got -1"),
        (["--temperature", "-0.5"], "temperature must be at least 0, got -0.5"),
        (["--stop", ""], "a stop string must not be empty"),
    ],
)
def test_sampling_out_of_range_is_refused(words, message, finished, capsys):
    capsys.readouterr()
    assert main(["generate", str(finished), "ab", *words]) == 2
    assert message in capsys.readouterr().err


def test_what_holds_no_model_says_so(tmp_path, capsys):
    assert "is not a folder" in refused(["generate", tmp_path / "nowhere", "ab"], capsys)
    assert "holds no model" in refused(["generate", tmp_path, "ab"], capsys)
    assert "holds no run" in refused(["report", tmp_path], capsys)


def test_a_router_that_sees_later_tokens_is_handled_and_said(train, tmp_path, capsys):
    assert train("--steps", 1, "--router", "expert_choice", "--out", tmp_path / "a") == 0
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "a"), "ab", "--max-new-tokens", "3", "--greedy"]) == 0
    shown = capsys.readouterr()
    assert "expert_choice sees later tokens: the prefix is routed anew for every token" in shown.err
    assert len(shown.out) == len("ab") + 3 + len("\n")


def test_a_text_is_traced_and_a_run_reported(finished, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("some words", encoding="utf-8")
    assert main(["trace", str(finished), "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "t.zarr")]) == 0
    trace = open_trace(tmp_path / "t.zarr")
    assert validate(trace) == []
    assert "".join(trace["routing"]["piece"].values.tolist()) == "some words"
    assert main(["report", str(finished), "--out", str(tmp_path / "r.html")]) == 0
    assert "<html" in (tmp_path / "r.html").read_text()
    assert str(tmp_path / "r.html") in capsys.readouterr().err


@pytest.mark.parametrize("what", ["routers", "presets", "corpora", "policies", "prefetchers", "offload"])
def test_lists_are_json_or_lines_with_the_same_names(what, capsys):
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert main(["list", what]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [row["name"] for row in rows]
    wanted = {
        "routers": "top_k",
        "presets": "tiny",
        "corpora": "mixed",
        "policies": "lru",
        "prefetchers": "markov",
        "offload": "host_budget",
    }
    assert wanted[what] in [row["name"] for row in rows]


def test_the_doctor_speaks_json_and_plain(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["doctor"]) == 0
    plain = capsys.readouterr().out
    assert set(found) == {line for line in plain.splitlines() if line[0] != " "}
    assert f"cores usable      {found['cpu']['cores_usable']}" in plain
    assert "GiB" in plain


@pytest.mark.parametrize(
    "words", [[], ["trian"], ["train", "--stepz", "3"], ["generate", "a", "b", "--greedy", "--temperature", "1"]]
)
def test_words_that_are_no_command_end_with_2_and_the_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: workbench" in capsys.readouterr().err


def test_a_run_can_be_opened_in_python(finished):
    assert load(finished)(torch.tensor([[1, 2]])).logits.shape == (1, 2, 257)
    assert cli.__all__ == ["main"]
