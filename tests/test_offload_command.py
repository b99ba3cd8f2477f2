"""`workbench generate --budget`, `workbench replay`, `workbench cacheability`."""

import re

import pytest

from workbench import cli
from workbench.core import Spec
from workbench.data import load_tokenizer
from workbench.model import ModelConfig
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import save_model

SIZES = {"width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "max_positions": 64}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shape = ModelConfig(vocab_size=257, num_experts=8, expert_width=32, router=Spec("top_k"), **SIZES)
    save_model(initialise(Transformer(shape), 0), folder)
    load_tokenizer("byte").save(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_text("The quick brown fox jumps over the lazy dog. " * 3)
    return file


@pytest.fixture(scope="module")
def trace(model, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("trace") / "t.zarr.zip"
    assert cli.main(["trace", str(model), "--text", str(text), "--out", str(out)]) == 0
    return out


def test_a_model_on_disk_writes_what_it_writes_in_memory(model, capsys):
    asked = ["generate", str(model), "The ", "--greedy", "--max-new-tokens", "8"]
    assert cli.main(asked) == 0
    expected = capsys.readouterr().out
    for how in (["--budget", "40%"], ["--budget", "400KB", "--policy", "lfu", "--prefetch", "markov"]):
        assert cli.main([*asked, *how]) == 0
        shown = capsys.readouterr()
        assert shown.out == expected
        assert "of 16 experts" in shown.err and "hit rate" in shown.err and "lossless" in shown.err


def test_experts_lie_in_the_host_and_compute_there_if_asked_to(model, capsys):
    asked = ["generate", str(model), "The ", "--greedy", "--max-new-tokens", "8"]
    assert cli.main(asked) == 0
    expected = capsys.readouterr().out
    tiers = ["--budget", "40%", "--offload", "host_budget=50%"]
    assert cli.main([*asked, *tiers]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected
    assert "room for 7 more in the host (policy lru, exclusive)" in shown.err and "sent down" in shown.err
    assert shown.err.strip().endswith("bit for bit")
    kept = ["--offload", "inclusive=true", "--offload", "host_policy=lfu"]
    assert cli.main([*asked, *tiers, *kept]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected and "in the host (policy lfu, inclusive)" in shown.err
    assert cli.main([*asked, *tiers, "--offload", "host_compute=true"]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected
    assert shown.err.strip().endswith("same greedy tokens, not bit-exact: experts compute on cpu and in the host")


def test_lossy_experts_are_measured_and_say_so(model, text, capsys):
    asked = ["generate", str(model), "The ", "--greedy", "--max-new-tokens", "4", "--budget", "80%"]
    lossy = ("format=int4:levels=2", "mean_levels=1.5", "skip=0.2")
    assert cli.main([*asked, *(word for pair in lossy for word in ("--offload", pair))]) == 0
    shown = capsys.readouterr().err
    assert "room for 24 of 24 pages of experts, 1.5 an expert" in shown
    assert shown.strip().endswith("int4:levels=2 at 1.50 of 2 levels, skipping below 0.2: lossy, not measured yet")
    assert cli.main([*asked, "--offload", "format=int8", "--measure", str(text)]) == 0
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"int8: lossy, KL [\d.e-]+ nats a token, loss [+-][\d.]+ on 135 tokens", shown)
    assert "lossless" not in shown


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (["--budget", "12 parsecs"], "a budget is bytes"),
        (["--budget", "50%", "--offload", "format=int5"], "has no 'int5'"),
        (["--budget", "50%", "--offload", "mean_levels=3"], "mean_levels must be between 1 and 1, got 3"),
        (["--budget", "50%", "--offload", "skip=1"], "skip is a share of a token's largest weight"),
        (["--budget", "50%", "--offload", "skipp=1"], "no offload option 'skipp' (did you mean 'skip'?); the options"),
        (["--budget", "50%", "--offload", "threads=many"], "threads: expected a whole number, got 'many'"),
        (["--budget", "50%", "--measure", "nowhere.txt"], "nowhere.txt"),
        (["--budget", "1KiB"], "must be at least"),
        (["--budget", "50%", "--offload", "host_budget=1KiB"], "a host tier holds at least one of the experts"),
        (["--budget", "50%", "--policy", "lruu"], "did you mean 'lru'"),
        (["--budget", "50%", "--policy", "min"], "looks into the future"),
        (["--budget", "50%", "--prefetch", "nobody"], "has no 'nobody'"),
    ],
)
def test_a_mistake_is_answered_in_words(how, message, model, capsys):
    assert cli.main(["generate", str(model), "The ", "--greedy", *how]) == 2
    assert message in capsys.readouterr().err


def test_replay_shows_every_asked_policy_beside_the_optimum(trace, capsys):
    asked = ["replay", str(trace), "--policies", "lru,lfu", "--capacities", "4,50%", "--passes", "token"]
    assert cli.main(asked) == 0
    shown = capsys.readouterr().out
    assert "540 requests of 135 tokens" in shown and "predicted" not in shown
    assert "4 experts (25%)" in shown and "8 experts (50%)" in shown
    assert all(name in shown for name in ("lru", "lfu", "min, knows the future", "if tokens were independent"))
    rates = {name: re.search(rf"{name}[^\d]*([\d.]+) │ +([\d.]+)", shown).groups() for name in ("lru", "min, knows")}
    assert [float(best) > float(lru) for best, lru in zip(rates["min, knows"], rates["lru"], strict=True)] == [True] * 2


def test_replay_predicts_the_speed_over_links_with_experts_in_formats(trace, capsys):
    asked = ["replay", str(trace), "--policies", "lru", "--capacities", "4,8", "--passes", "token"]
    assert cli.main([*asked, "--links", "1MB/s,2x", "--formats", "exact,int8"]) == 0
    shown = capsys.readouterr()
    assert "predicted tokens/s, simulated" in shown.out and "room as exact experts" in " ".join(shown.out.split())
    assert "2x: predicted: 2x the speed of 1MB/s, which is predicted: 1MB/s assumed" in shown.err
    rows = re.findall(r"│ (exact|int8), ([\d.]+ KiB) +│ (\S+) +│ lru +│ +([\d.,]+) │", shown.out)
    speed = {(name, link): float(value.replace(",", "")) for name, _, link, value in rows}
    assert {(name, each) for name, each, _, _ in rows} == {("exact", "12.0 KiB"), ("int8", "3.2 KiB")}
    assert speed["exact", "2x"] == pytest.approx(2 * speed["exact", "1MB/s"], rel=0.02)
    # a quarter of the bytes, and room for nearly four times the experts.
    assert speed["int8", "1MB/s"] > 3.8 * speed["exact", "1MB/s"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--capacities", "0"], "between 1 and all 16 experts"),
        (["--capacities", "many"], "a number of experts, or a share"),
        (["--policies", "lruu"], "did you mean 'lru'"),
        (["--links", "pcie6"], "no link is called 'pcie6' (did you mean"),
        (["--links", "2x"], "2x is a multiple of the first link"),
        (["--formats", "int5"], "has no 'int5'"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(asked, message, trace, capsys):
    assert cli.main(["replay", str(trace), *asked]) == 2
    assert message in capsys.readouterr().err


def test_a_model_and_its_trace_are_judged_alike(model, text, trace, capsys):
    assert cli.main(["cacheability", str(model), "--text", str(text)]) == 0
    of_model = capsys.readouterr().out
    assert cli.main(["cacheability", str(trace)]) == 0
    assert capsys.readouterr().out == of_model
    assert all(words in of_model for words in ("SRP of 16 tokens", "by chance", "cache of 2 x K", "slots by layer"))


def test_a_model_cannot_be_judged_without_a_text(model, capsys):
    assert cli.main(["cacheability", str(model)]) == 2
    assert "needs --text FILE" in capsys.readouterr().err
