"""Factors of loss weights worked by hand."""

import pytest

from workbench.train.aux_schedule import cosine, linear, parse_schedule, step


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear:first=1,last=0.1", [1.0, 0.775, 0.55, 0.1, 0.1]),
        # cos(pi/4) = 0.7071.
        ("cosine:first=1,last=0", [1.0, 0.5 + 0.5 * 0.7071068, 0.5, 0.0, 0.0]),
        ("step:first=1,last=0.005,at=0.5", [1.0, 1.0, 0.005, 0.005, 0.005]),
        ("linear:first=0,last=2", [0.0, 0.5, 1.0, 2.0, 2.0]),
        ("step", [1.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_a_factor_goes_from_first_to_last_and_stays_there(text, expected):
    factor = parse_schedule("aux_schedule of 'z'", text)
    assert [factor(done) for done in (0, 0.25, 0.5, 1, 7)] == pytest.approx(expected)


def test_the_shapes_have_the_same_ends():
    for shape in (linear, cosine, step):
        assert shape(0.0, first=3, last=2) == 3
        assert shape(1.0, first=3, last=2) == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linea", "the shape of L must be one of linear, cosine, step; got 'linea' (did you mean 'linear'?)"),
        ("linear:lst=1", "L: linear has no argument 'lst' (did you mean 'last'?). It takes: first, last."),
        ("linear:at=0.5", "L: linear has no argument 'at' (did you mean 'last'?). It takes: first, last."),
        ("linear:last=low", "L: last must be float, got 'low'"),
        ("linear:last=-1", "L: last must be a finite number of at least 0, got -1"),
        ("linear:first=inf", "L: first must be a finite number of at least 0, got inf"),
        ("step:at=1.5", "L: at must be between 0 and 1, got 1.5; it is a share of num_steps"),
        ("linear:first", "expected name:key=value,key=value; got 'first' in 'linear:first'"),
    ],
)
def test_what_does_not_fit_is_refused(text, message):
    with pytest.raises(ValueError) as refused:
        parse_schedule("L", text)
    assert str(refused.value) == message
