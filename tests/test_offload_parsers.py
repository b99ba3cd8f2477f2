"""Options of the commands that offload, replay and judge caches."""

import argparse

import pytest

from workbench import cli
from workbench.offload_parsers import cacheability_parser, offload_options, replay_parser


def parsed(fill, *arguments):
    parser = argparse.ArgumentParser()
    fill(parser)
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if name != "run"}


def test_nothing_is_offloaded_unless_there_is_a_budget():
    assert set(parsed(offload_options).values()) == {None}
    assert parsed(offload_options, "--budget", "25%", "--policy", "lfu")["budget"] == "25%"


def test_experts_are_lossy_only_if_asked_for():
    found = parsed(offload_options, "--budget", "25%", "--format", "int4", "--levels", "1.5", "--skip", "0.1")
    assert (found["format"], found["levels"], found["skip"], found["measure"]) == ("int4", 1.5, 0.1, None)


def test_there_is_a_host_tier_only_if_asked_for():
    found = parsed(offload_options, "--budget", "25%", "--host-budget", "2GiB", "--host-compute")
    assert (found["host_budget"], found["host_compute"]) == ("2GiB", True)


def test_replay_takes_every_policy_at_three_sizes_by_default():
    found = parsed(replay_parser, "t.zarr")
    assert (found["policies"], found["capacities"], found["passes"]) == ("all", "10%,25%,50%", "recorded")
    assert (found["links"], found["formats"]) == (None, None)
    with pytest.raises(SystemExit):
        parsed(replay_parser, "t.zarr", "--passes", "sideways")


def test_a_model_is_judged_over_windows_of_sixteen_tokens():
    found = parsed(cacheability_parser, "m", "--text", "a.txt")
    assert (found["window"], found["miss_ms"]) == (16, 1.0)


def test_a_policy_without_a_budget_is_a_mistake(capsys):
    assert cli.main(["generate", "m", "text", "--policy", "lru"]) == 2
    assert "--policy needs --budget" in capsys.readouterr().err
    assert cli.main(["generate", "m", "text", "--policy", "lru", "--prefetch", "markov"]) == 2
    assert "--policy and --prefetch need --budget" in capsys.readouterr().err
    assert cli.main(["generate", "m", "text", "--skip", "0.1"]) == 2
    assert "--skip needs --budget" in capsys.readouterr().err
    assert cli.main(["generate", "m", "text", "--host-budget", "1GiB", "--host-compute"]) == 2
    assert "--host-budget and --host-compute need --budget" in capsys.readouterr().err
