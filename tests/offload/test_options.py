"""Options of offloading as people type them."""

from dataclasses import fields

import pytest

from workbench.core import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.options import config_of_text, option_rows
from workbench.offload.precision.levels import usage_of
from workbench.offload.replay.recorded import requests_of
from workbench.trace.files import save_trace
from workbench.trace.synth import synthetic_trace


def test_text_says_what_python_says():
    given = {
        "budget": "64MiB",
        "policy": "lfu:half_life=64",
        "prefetch": "markov",
        "threads": "3",
        "host_budget": "50%",
        "host_policy": "lifo",
        "inclusive": "true",
        "host_compute": "False",
        "format": "int4:levels=2",
        "mean_levels": "1.5",
        "usage": "none",
        "calibration": "words.txt",
        "skip": "0.1",
    }
    assert given.keys() == {one.name for one in fields(OffloadConfig)}
    assert config_of_text(given) == OffloadConfig(
        budget="64MiB",
        policy=Spec("lfu", {"half_life": 64}),
        prefetch=Spec("markov"),
        threads=3,
        host_budget="50%",
        host_policy=Spec("lifo"),
        inclusive=True,
        format=Spec("int4", {"levels": 2}),
        mean_levels=1.5,
        calibration="words.txt",
        skip=0.1,
    )
    assert config_of_text({}) == OffloadConfig()


def test_every_option_is_listed_with_a_default_that_reads_back():
    rows = {row["name"]: row for row in option_rows()}
    assert list(rows) == [one.name for one in fields(OffloadConfig)]
    assert "; none for nobody;" in rows["prefetch"]["does"]
    assert all(row["does"] and "\n" not in row["does"] for row in rows.values())
    assert rows["usage"]["does"].endswith("a trace, in which it is counted")
    assert config_of_text({name: row["default"] for name, row in rows.items()}) == OffloadConfig()


def test_usage_is_counted_in_a_trace(tmp_path):
    trace, file = synthetic_trace(), tmp_path / "t.zarr.zip"
    save_trace(trace, file)
    found = config_of_text({"usage": str(file), "mean_levels": "1"}).usage
    assert found == usage_of(requests_of(trace)) and sum(found) > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"host_bugdet": "1"},
            r"no offload option 'host_bugdet' \(did you mean 'host_budget'\?\); the options: budget, ",
        ),
        ({"threads": "two"}, "threads: expected a whole number, got 'two'"),
        ({"threads": "none"}, "threads: expected a whole number, got 'none'"),
        ({"threads": "0"}, "threads must be at least 1"),
        ({"skip": "little"}, "skip: expected a number, got 'little'"),
        ({"inclusive": "1"}, "inclusive: expected true or false, got '1'"),
        ({"inclusive": "true"}, "give a host_budget as well"),
        ({"policy": "lfu:64"}, "policy: expected name:key=value"),
        ({"budget": "none"}, "a budget is bytes"),
    ],
)
def test_what_is_none_of_its_values_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        config_of_text(given)
