"""Options of the commands that offload, replay and judge caches; light, so that the command line starts at once."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["cacheability_parser", "offload_given", "offload_options", "replay_parser"]


def offload_options(parser: argparse.ArgumentParser) -> None:
    """Options of a command that runs a model: with a budget its experts are read from disk."""
    offload = parser.add_argument_group("offloading, for a model that is larger than memory")
    offload.add_argument("--budget", help="memory for experts and KV cache: 64MiB, or 25%% of all experts")
    offload.add_argument("--policy", help="who leaves when another expert must enter (default lru)")
    offload.add_argument("--prefetch", help="who is fetched before being asked for (default nobody)")
    offload.add_argument(
        "--offload",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option, as host_budget=50%% or format=int4, any number of times; see `workbench list offload`",
    )
    offload.add_argument("--measure", type=Path, metavar="FILE", help="a text on which to say what a lossy model loses")


def offload_given(options: argparse.Namespace) -> dict[str, str]:
    """The options of offloading by their names in `OffloadConfig`, as texts; none where every expert is in memory.

    Raises:
        ValueError: an option without a value or with two, or others without a budget.
    """
    own = {name: vars(options)[name] for name in ("budget", "policy", "prefetch")}
    given = {name: value for name, value in own.items() if value is not None}
    words = [f"--{name}" for name in given]
    for pair in options.offload:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--offload expects NAME=VALUE, got {pair!r}; `workbench list offload` names the options")
        if name in given:
            raise ValueError(f"{name} is given twice, as {given[name]!r} and as {value!r}; give it once")
        given[name] = value
        words.append(f"--offload {name}")
    words += ["--measure"] * (options.measure is not None)
    if words and "budget" not in given:
        need = "need" if len(words) > 1 else "needs"
        raise ValueError(f"{' and '.join(words)} {need} --budget: without one every expert stays in memory")
    return given


def replay_parser(parser: argparse.ArgumentParser) -> None:
    """The options of `replay`; `options.run` does it."""
    parser.add_argument("trace", type=Path, help="a trace, or a run")
    parser.add_argument("--policies", default="all", help="names separated by commas (default all)")
    parser.add_argument(
        "--capacities", default="10%,25%,50%", help="experts, or shares of all (default 10%%,25%%,50%%)"
    )
    parser.add_argument(
        "--passes", choices=("recorded", "token"), default="recorded", help="token: as if written one token at a time"
    )
    parser.add_argument(
        "--links", help="predict the speed over these: nvme, sata, pcie3, pcie4, pcie5, 3.5GB/s; 2x is of the first"
    )
    parser.add_argument("--formats", help="with experts held so: exact (default), int8, int4, residual:levels=2, 9.4MB")
    parser.set_defaults(run=lambda options: _commands().replay_trace(**_given(options)))


def cacheability_parser(parser: argparse.ArgumentParser) -> None:
    """The options of `cacheability`; `options.run` does it."""
    parser.add_argument("model", type=Path, help="a run, a folder with a checkpoint, or a trace")
    parser.add_argument("--text", type=Path, help="a UTF-8 text file; a trace needs none")
    parser.add_argument("--window", type=int, default=16, help="tokens for which experts are fixed (default 16)")
    parser.add_argument("--miss-ms", type=float, default=1.0, help="time of a miss, for the stall saved (default 1)")
    parser.set_defaults(run=lambda options: _commands().judge(**_given(options)))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "run"}


def _commands() -> Any:
    return import_module("workbench.offload_command")
