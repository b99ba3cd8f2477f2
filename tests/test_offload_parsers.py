"""Options of the commands that offload, replay and judge caches."""

import argparse

import pytest

from workbench import cli
from workbench.offload_parsers import cacheability_parser, offload_given, offload_options, replay_parser


def parsed(fill, *arguments):
    parser = argparse.ArgumentParser()
    fill(parser)
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if name != "run"}


def given(*arguments):
    parser = argparse.ArgumentParser()
    offload_options(parser)
    return offload_given(parser.parse_args(arguments))


def test_nothing_is_offloaded_unless_there_is_a_budget():
    assert given() == {}
    assert given("--budget", "25%", "--policy", "lfu") == {"budget": "25%", "policy": "lfu"}
    assert given("--offload", "budget=1GiB", "--prefetch", "markov") == {"budget": "1GiB", "prefetch": "markov"}


def test_every_other_option_goes_by_its_name():
    more = ("--offload", "host_budget=50%", "--offload", "format=int4:levels=2,group=32")
    found = {"budget": "25%", "host_budget": "50%", "format": "int4:levels=2,group=32"}
    assert given("--budget", "25%", *more) == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--policy", "lru"], "--policy needs --budget: without one every expert stays in memory"),
        (["--policy", "lru", "--prefetch", "markov"], "--policy and --prefetch need --budget"),
        (["--offload", "skip=0.1", "--measure", "a.txt"], "--offload skip and --measure need --budget"),
        (["--budget", "1GiB", "--offload", "inclusive"], "--offload expects NAME=VALUE, got 'inclusive'"),
        (["--budget", "1GiB", "--offload", "budget=2GiB"], "budget is given twice, as '1GiB' and as '2GiB'"),
        (["--budget", "1GiB", "--offload", "skip=0", "--offload", "skip=1"], "skip is given twice, as '0' and as '1'"),
    ],
)
def test_what_does_not_go_together_is_a_mistake(asked, message, capsys):
    assert cli.main(["generate", "m", "text", *asked]) == 2
    assert message in capsys.readouterr().err


def test_replay_takes_every_policy_at_three_sizes_by_default():
    found = parsed(replay_parser, "t.zarr")
    assert (found["policies"], found["capacities"], found["passes"]) == ("all", "10%,25%,50%", "recorded")
    assert (found["links"], found["formats"]) == (None, None)
    with pytest.raises(SystemExit):
        parsed(replay_parser, "t.zarr", "--passes", "sideways")


def test_a_model_is_judged_over_windows_of_sixteen_tokens():
    found = parsed(cacheability_parser, "m", "--text", "a.txt")
    assert (found["window"], found["miss_ms"]) == (16, 1.0)
