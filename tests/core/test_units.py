"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.units import human_bytes, human_count, human_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (27_472_691, "26.2 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
        (-2048, "-2.0 KiB"),
        (1023.7, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 k"),
        (26_300_000, "26.3 M"),
        (7e9, "7.0 G"),
        (-1500, "-1.5 k"),
        (12.4, "12"),
        (999.7, "1.0 k"),
        (999_999, "1.0 M"),
    ],
)
def test_counts(count, text):
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7321, "2 h 02 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert human_seconds(seconds) == text


@given(
    st.floats(0, 1e15)
    | st.integers(1, 4).map(lambda n: 1024**n - 0.001)
    | st.integers(1, 3).map(lambda n: 1000**n - 0.001)
)
def test_no_number_is_written_as_a_thousand_of_a_unit(count):
    number, unit = human_bytes(count).split()
    assert unit == "TiB" or float(number) < 1024
    assert float(human_count(min(count, 9e11)).split()[0]) < 1000
