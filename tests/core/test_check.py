"""Errors in one voice, word for word."""

import math

import pytest

from workbench.core.check import at_least, did_you_mean, one_of, within


def test_the_closest_name_is_offered_and_nothing_far_away():
    assert did_you_mean("swich", ["switch", "top_k"]) == " (did you mean 'switch'?)"
    assert did_you_mean("zzz", ["switch", "top_k"]) == ""
    assert did_you_mean("switch", []) == ""


def test_one_of_gives_the_value_back():
    assert one_of("score", "sigmoid", ("softmax", "sigmoid")) == "sigmoid"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: one_of("score", "sigmoi", ("softmax", "sigmoid")),
            "score must be one of softmax, sigmoid; got 'sigmoi' (did you mean 'sigmoid'?)",
        ),
        (lambda: one_of("score", "zz", iter(["a"])), "score must be one of a; got 'zz'"),
        (lambda: within("jitter", 1.5, 0, 1), "jitter must be between 0 and 1, got 1.5"),
        (lambda: within("jitter", -0.1, 0, 1, hint="use 0"), "jitter must be between 0 and 1, got -0.1; use 0"),
        (lambda: at_least("z", -1, 0), "z must be at least 0, got -1"),
        (lambda: at_least("z", -1, 0, hint="use 0"), "z must be at least 0, got -1; use 0"),
        (lambda: at_least("z", math.nan, 0), "z must be at least 0, got nan"),
        (lambda: within("z", math.nan, 0, 1), "z must be between 0 and 1, got nan"),
    ],
)
def test_the_message_says_what_was_expected_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_the_bounds_themselves_are_allowed():
    within("x", 0, 0, 1)
    within("x", 1, 0, 1)
    at_least("x", 0, 0)
