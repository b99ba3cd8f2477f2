"""A disk that fails under a running model: the right tokens or an error, and afterwards the right tokens."""

import os

import pytest
import torch

from workbench.core import Spec
from workbench.offload.store.expert_store import DamagedExpert

BLOCK = 24 * 1024


@pytest.fixture
def offloaded(copied, opened):
    """A model under a quarter of its experts, with a prefetcher, on files of its own."""
    return opened(copied(), budget="40%", prefetch=Spec("markov"), threads=1)


@pytest.fixture
def goes_on(offloaded, checkpoint, steps, resident, assert_same, check_books):
    """After a fault: the books are right, and so is every token from now on."""

    def check() -> None:
        check_books(offloaded.engine)
        for _ in range(2):
            assert_same(steps(offloaded.model), resident(checkpoint()))
            check_books(offloaded.engine)

    return check


@pytest.mark.parametrize("fault", ["error", "short", "flip"])
def test_reads_that_fail_once_are_read_again(offloaded, steps, goes_on, disk, fault):
    disk.faults = [None, fault, None, None, fault, None, fault]
    goes_on()
    assert disk.faults == []


@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_disk_that_is_gone_is_an_error_and_the_model_goes_on_when_it_is_back(offloaded, steps, goes_on, disk, when):
    def breaks(done, step):
        disk.is_broken = step == when

    disk.is_broken = when == 0
    with pytest.raises(OSError, match="Input/output error"):
        steps(offloaded.model, after=breaks)
    disk.is_broken = False
    goes_on()


def test_any_pattern_of_faults_gives_right_tokens_or_an_error(
    offloaded, checkpoint, steps, resident, assert_same, check_books, goes_on, disk
):
    generator = torch.Generator().manual_seed(0)
    outcomes = set()
    for _ in range(12):
        drawn = torch.randint(0, 8, (40,), generator=generator).tolist()
        disk.faults = [{0: "error", 1: "short", 2: "flip"}.get(number) for number in drawn]
        try:
            assert_same(steps(offloaded.model), resident(checkpoint()))
            outcomes.add("tokens")
        except (OSError, DamagedExpert):
            outcomes.add("error")
        check_books(offloaded.engine)
    disk.faults = []
    assert "error" in outcomes
    goes_on()


def test_a_damaged_expert_is_named_and_the_others_are_served(offloaded, steps, goes_on, disk):
    disk.damages = lambda offset: offset // BLOCK == 9
    with pytest.raises(
        DamagedExpert, match=r"expert 1 of layer 1 in .*experts.bin is damaged \(its checksum differs\)"
    ):
        for token in range(60):
            steps(offloaded.model, [[token]])
    assert 9 not in offloaded.engine.loop.cache.slot_of
    disk.damages = lambda offset: False
    goes_on()


def test_a_file_that_is_cut_short_while_running_is_an_error(offloaded, steps):
    os.truncate(offloaded.engine.store.folder / "experts.bin", BLOCK)
    with pytest.raises(OSError, match=r"experts.bin gave .* of 24576 bytes at .*; it was cut short"):
        steps(offloaded.model)


def test_a_file_that_is_removed_while_running_is_still_there_for_us(offloaded, goes_on):
    folder = offloaded.engine.store.folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    goes_on()


def test_an_interrupt_while_waiting_serves_no_wrong_expert(offloaded, steps, goes_on, monkeypatch):
    link = offloaded.engine.loop.link
    real, calls = link.wait, []

    def interrupted(pages):
        calls.append(pages)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        return real(pages)

    monkeypatch.setattr(link, "wait", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            steps(offloaded.model)
    monkeypatch.undo()
    goes_on()


def test_without_o_direct_the_tokens_are_the_same(
    copied, opened, checkpoint, steps, resident, assert_same, monkeypatch
):
    real = os.open

    def refusing(path, flags, *rest, **options):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr("workbench.offload.store.expert_store.os.open", refusing)
    offloaded = opened(copied(), budget="40%")
    assert "no O_DIRECT here" in offloaded.engine.store.way
    assert "no O_DIRECT here" in offloaded._repr_html_()
    assert_same(steps(offloaded.model), resident(checkpoint()))
