"""Ctrl-C waits for the end of a block."""

import signal
import threading

import pytest

from workbench.train.interrupts import interrupts_held


def test_the_block_is_done_whole_before_the_interrupt_is_raised():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]


def test_without_an_interrupt_the_handler_comes_back_and_nothing_is_raised():
    usual = signal.getsignal(signal.SIGINT)
    with interrupts_held():
        assert signal.getsignal(signal.SIGINT) is not usual
    assert signal.getsignal(signal.SIGINT) is usual


def test_an_error_inside_passes_and_the_handler_comes_back():
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), interrupts_held():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is usual


def test_blocks_may_lie_inside_each_other():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_another_thread_leaves_the_handler_alone():
    usual, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with interrupts_held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [usual]
