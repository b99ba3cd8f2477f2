"""Which routings of training are kept."""

import pytest

from workbench.trace import Sampling


def test_the_first_step_and_every_tenth_are_kept():
    assert [step for step in range(1, 32) if Sampling().is_train_due(step)] == [1, 10, 20, 30]
    assert not any(Sampling(train_every=0).is_train_due(step) for step in range(9))


def test_micro_batches_share_the_tokens_of_a_step():
    sampling = Sampling(train_tokens=6)
    assert [sampling.take(10, tokens=4, taken=taken) for taken in (0, 4, 6)] == [4, 2, 0]
    assert sampling.take(11, tokens=4, taken=0) == 0


def test_it_says_what_it_does():
    assert str(Sampling()) == (
        "training: the first 256 tokens of step 1 and of every 10th step; probe text: every 50th step; "
        "prefill and decode: every token"
    )
    assert str(Sampling(train_every=0, probe_every=0, prob=True)) == (
        "training: none; probe text: not planned; prefill and decode: every token; with probabilities"
    )


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match="train_every must be at least 0, got -1"):
        Sampling(train_every=-1)
