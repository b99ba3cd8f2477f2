"""A run on disk is there whole or not at all, and says what is wrong with it."""

import json
import os

import pytest

from workbench.train.run_folder import RunFolder

FACTS = {"corpus": "mixed", "corpus_fingerprint": "abc", "train": {"seed": 1}}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "a")


def test_a_run_appears_when_the_block_has_ended(run):
    with run.begun(FACTS) as new:
        new.tokenizer.mkdir()
        assert not run.path.exists()
    assert run.facts() == FACTS
    assert sorted(path.name for path in run.path.iterdir()) == ["run.json", "tokenizer"]
    assert list(run.path.parent.iterdir()) == [run.path]


def test_a_block_that_fails_leaves_nothing(run):
    with pytest.raises(ZeroDivisionError), run.begun(FACTS):
        _ = 1 / 0
    assert list(run.path.parent.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_a_living_ones_is_not(run):
    dead, alive = (run.path.parent / f".a.part-{process}" for process in (2**22 + 1, os.getppid()))
    for part in (dead, alive):
        part.mkdir(parents=True)
    with run.begun(FACTS):
        pass
    assert (dead.exists(), alive.exists()) == (False, True)


def test_an_empty_folder_may_become_a_run(run):
    run.path.mkdir(parents=True)
    with run.begun(FACTS):
        pass
    assert run.facts() == FACTS


def test_a_run_is_not_begun_twice(run):
    with run.begun(FACTS):
        pass
    with pytest.raises(FileExistsError, match=r"already holds a run; resume it with `workbench train --resume"):
        run.check_free()
    assert run.facts() == FACTS


@pytest.mark.parametrize("is_folder", [True, False])
def test_other_files_are_not_mixed_with_a_run(is_folder, run):
    run.path.parent.mkdir(parents=True)
    if is_folder:
        run.path.mkdir()
    (run.path / "thesis.txt" if is_folder else run.path).write_text("years of work")
    with pytest.raises(FileExistsError, match="is not an empty folder; choose a new folder"):
        run.check_free()


def test_what_is_no_run_says_so(run):
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no run.json\)"):
        run.facts()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"run\.json is damaged"),
        (json.dumps(FACTS), "must have format 'moe-workbench.run/1'"),
        (json.dumps({"format": "moe-workbench.run/1", "corpus": "mixed"}), "lacks corpus_fingerprint, train"),
    ],
)
def test_a_damaged_run_is_named(content, message, run):
    run.path.mkdir(parents=True)
    (run.path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run.facts()


def test_one_process_writes_at_a_time(run):
    run.path.mkdir(parents=True)
    lock = run.lock()
    with pytest.raises(BlockingIOError, match="is being written by process"):
        run.lock()
    lock.release()
    run.lock().release()


def test_the_newest_checkpoint_and_the_one_before(run):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint any more"):
        run.newest()
    for step in (90, 100):
        (run.checkpoints / f"step_{step:08d}").mkdir(parents=True)
        (run.checkpoints / f"step_{step:08d}" / "state.json").write_text("{}")
    assert run.newest().name == "step_00000100"
    assert run.older(run.newest()).name == "step_00000090"
    assert run.older(run.older(run.newest())) is None


def test_texts_are_kept_in_order(run):
    assert run.samples() == []
    run.path.mkdir(parents=True)
    run.add_sample({"prompt": "a", "text": "ä\n"})
    run.add_sample({"prompt": "b", "text": ""})
    assert run.samples() == [{"prompt": "a", "text": "ä\n"}, {"prompt": "b", "text": ""}]


@pytest.mark.parametrize("content", ["{", "{}", '{"samples": [1]}'])
def test_damaged_texts_are_named(content, run):
    run.path.mkdir(parents=True)
    (run.path / "samples.json").write_text(content)
    with pytest.raises(ValueError, match=r"samples\.json is damaged"):
        run.samples()


def test_everything_lies_below_the_folder(run):
    places = (run.checkpoints, run.tokenizer, run.trace, run.report)
    assert [place.parent for place in places] == [run.path] * 4
