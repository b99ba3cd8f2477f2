"""`workbench compare` from the command line to the page."""

from pathlib import Path

import pytest

from workbench.cli import main

SMALL = "tiny:num_layers=1,width=32,num_heads=2,num_kv_heads=1,head_dim=16,num_experts=4,expert_width=16"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def compare(*options: str) -> tuple[int, str, str]:
        fixed = ["--model", SMALL, "--corpus", "token_remap:num_domains=2,documents=1", "--jobs", "1"]
        sizes = [
            part for pair in ("batch_size=2", "sequence_length=16", "evaluation_windows=2") for part in ("--set", pair)
        ]
        status = main(["compare", *fixed, *sizes, *options])
        return (status, *capsys.readouterr())

    return compare


def test_a_table_a_page_and_a_trace_come_out(run):
    status, out, err = run("--routers", "top_k:top_k=1,switch,expert_choice", "--steps", "2", "--seeds", "2")
    assert status == 0
    assert "expert_choice" in out
    assert "future" in out
    assert Path("runs/compare/comparison.html").is_file()
    assert Path("runs/compare/comparison.zarr.zip").is_file()
    assert "report: " in err
    assert "6 of" not in out
    assert "12/12" in err


def test_a_mistake_is_told_before_anything_is_written(run):
    status, out, err = run("--routers", "top_k,swich", "--steps", "2")
    assert (status, out) == (2, "")
    assert "did you mean 'switch'" in err
    assert not Path("runs").exists()
    assert run("--routers", "top_k", "--steps", "2", "--seeds", "0")[0] == 2
    assert "seeds must be at least 1" in run("--routers", "top_k", "--seeds", "0")[2]
