"""`workbench generate`, `trace` and `cacheability` with a family that only transformers can run."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from workbench import cli
from workbench.data import load_tokenizer

PROMPT = "an expert"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint as transformers writes it, of random weights, read byte by byte."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "vocab_size": 257, "num_local_experts": 6, "num_experts_per_tok": 2}
    config = AutoConfig.for_model("granitemoe", **sizes, **more, max_position_embeddings=64, initializer_range=0.3)
    written = tmp_path_factory.mktemp("granite")
    AutoModelForCausalLM.from_config(config, experts_implementation="eager").save_pretrained(written)
    load_tokenizer("byte").save(written)
    return written


@pytest.fixture(scope="module")
def expected(folder) -> str:
    """What transformers' own generate writes."""
    tokenizer = load_tokenizer("byte")
    model = AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()
    greedy = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=tokenizer.end_id, pad_token_id=0)
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)[0].tolist()
    return PROMPT + tokenizer.decode([token for token in written[ids.shape[1] :] if token != tokenizer.end_id])


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    return (code, *capsys.readouterr())


def test_it_writes_what_transformers_writes(folder, expected, capsys):
    code, out, err = run(capsys, "generate", folder, PROMPT, "--greedy", "--max-new-tokens", 8)
    assert (code, out) == (0, expected + "\n")
    assert "granitemoe: 2 MoE layers of 6 experts" in err and "tokens/s" in err


def test_with_a_budget_it_writes_the_same_and_says_what_was_read(folder, expected, capsys):
    budget = ("--budget", "60%", "--policy", "lfu")
    code, out, err = run(capsys, "generate", folder, PROMPT, "--greedy", "--max-new-tokens", 8, *budget)
    assert (code, out) == (0, expected + "\n")
    assert "room for 4 of 12 experts" in err and "hit rate" in err and "lossless" in err
    tiers = ("--offload", "host_budget=60%", "--offload", "host_policy=lfu")
    code, out, err = run(capsys, "generate", folder, PROMPT, "--greedy", "--max-new-tokens", 8, *budget, *tiers)
    assert (code, out) == (0, expected + "\n")
    assert "more in the host (policy lfu, exclusive)" in err and "sent down" in err


def test_what_needs_a_model_of_ours_is_refused(folder, tmp_path, capsys):
    text = tmp_path / "t.txt"
    text.write_text("words")
    code, out, err = run(capsys, "generate", folder, PROMPT, "--budget", "60%", "--measure", text)
    assert (code, out) == (2, "") and "--measure compares models of our own families" in err


def test_it_is_traced_and_judged(folder, tmp_path, capsys):
    text = tmp_path / "t.txt"
    text.write_text("the same experts again and again, or others")
    code, out, err = run(capsys, "cacheability", folder, "--text", text)
    assert code == 0 and "cache of 1 x K" in out and "in windows of 64" in err
    code, _, err = run(capsys, "trace", folder, "--text", text, "--out", tmp_path / "t.nc")
    assert code == 0 and "trace: " in err
    code, again, _ = run(capsys, "cacheability", tmp_path / "t.nc")
    assert (code, again) == (0, out)
