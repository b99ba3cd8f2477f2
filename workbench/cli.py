"""The command line: `workbench demo | train | compare | app | generate | trace | replay | cacheability | ...`."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.app_command import app_parser
from workbench.core.spec import Spec
from workbench.core.units import human_bytes, human_count
from workbench.offload_parsers import cacheability_parser, offload_given, offload_options, replay_parser

__all__ = ["main"]

# what `list` prints of each kind without --json, and what it writes before it.
_SHOWN = {
    "routers": {"changes": "", "arxiv": "arXiv ", "arguments": "arguments "},
    "presets": {
        "parameters": "parameters ",
        "num_layers": "layers ",
        "width": "D=",
        "num_experts": "E=",
        "expert_width": "F=",
    },
    "corpora": {"bytes": "", "title": "", "domains": "domains "},
    "policies": {"does": "", "runs": "", "arguments": "arguments "},
    "prefetchers": {"does": "", "runs": "", "arguments": "arguments "},
    "offload": {"does": "", "default": "default "},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 for a mistake or a machine that is too small, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: _say(f"workbench: warning: {message}")
        try:
            return _run(run, options)
        except KeyboardInterrupt:
            _say("workbench: interrupted")
            return 130
        except BrokenPipeError:
            # the reader has enough; without this Python would complain when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


def _run(run: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    mistakes: tuple[type[BaseException], ...] = _commands().MISTAKES
    try:
        run(options)
        sys.stdout.flush()
    except (BrokenPipeError, KeyError, IndexError):
        # the last two are mistakes of ours, though they are LookupErrors.
        raise
    except mistakes as error:
        _say(f"workbench: error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench", description="Train, watch and compare Mixture-of-Experts models."
    )
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _demo_parser(commands.add_parser("demo", help="train a tiny model, swap its router, write a report"))
    _train_parser(commands.add_parser("train", help="train a model, or go on with a run"))
    _compare_parser(commands.add_parser("compare", help="train several routers under equal tokens and rank them"))
    app_parser(commands.add_parser("app", help="watch, start and compare runs in a browser"))
    _generate_parser(commands.add_parser("generate", help="continue a text with a run's or a checkpoint's model"))
    _trace_parser(commands.add_parser("trace", help="record the routing of a text"))
    # started by a server for its users; without a help text it is in no list.
    commands.add_parser("child").set_defaults(run=_child)
    replay_parser(commands.add_parser("replay", help="what every cache policy would do with a recorded routing"))
    cacheability_parser(commands.add_parser("cacheability", help="what expert caches can expect of a model on a text"))
    _report_parser(commands.add_parser("report", help="write a run's report.html"))
    _list_parser(commands.add_parser("list", help="names that can be used"))
    _doctor_parser(commands.add_parser("doctor", help="what this machine has and what will be used"))
    return parser


def _child(options: argparse.Namespace) -> None:
    import_module("workbench.live.child").main()


def _demo_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="folder of the run; runs/demo-DATE by default")
    parser.add_argument(
        "--steps", type=int, default=240, help="training steps (default 240, about two minutes on two cores)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_demo)


def _train_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="tiny, small, base, or a folder with a checkpoint (default tiny)")
    parser.add_argument("--corpus", help="a registered corpus or a path to text (default mixed)")
    parser.add_argument("--router", help="name or name:key=value,key=value (default the model's own)")
    parser.add_argument("--steps", type=int, default=200, help="train up to this step (default 200)")
    parser.add_argument("--seed", type=int, help="of weights, data order and noise (default 0)")
    parser.add_argument("--out", type=Path, help="folder of the new run; runs/run-DATE by default")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a training option, e.g. batch_size=8"
    )
    parser.set_defaults(run=_train)


def _compare_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--routers", required=True, help="names or name:key=value, separated by commas; the first is the base"
    )
    parser.add_argument("--steps", type=int, default=500, help="training steps of every run (default 500)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, counted from 0 (default 3)")
    parser.add_argument("--model", default="tiny", help="a preset, as tiny or tiny:num_experts=16 (default tiny)")
    parser.add_argument("--corpus", default="mixed", help="a registered corpus or a path to text (default mixed)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder of the runs; finished ones are kept"
    )
    parser.add_argument("--jobs", type=int, help="runs at a time; one per physical core by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a training option, e.g. batch_size=8"
    )
    parser.set_defaults(run=_compare)


def _generate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run, or a folder with a checkpoint")
    parser.add_argument("text", help="the prompt")
    parser.add_argument("--max-new-tokens", type=int, default=50)
    drawing = parser.add_mutually_exclusive_group()
    drawing.add_argument("--greedy", action="store_true", help="always the most probable token")
    drawing.add_argument("--temperature", type=float, help="below 1 keeps to the probable, above 1 strays")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--seed", type=int, default=0)
    offload_options(parser)
    parser.set_defaults(run=_generate)


def _trace_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run, or a folder with a checkpoint")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text file")
    parser.add_argument("--out", type=Path, required=True, help="t.zarr, t.zarr.zip or t.nc")
    parser.set_defaults(run=_trace)


def _report_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a run")
    parser.add_argument("--out", type=Path, help="the file (default report.html in the run)")
    parser.set_defaults(run=_report)


def _list_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=tuple(_SHOWN))
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_list)


def _doctor_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_doctor)


def _demo(options: argparse.Namespace) -> None:
    _commands().demo(out=options.out, steps=options.steps, seed=options.seed)


def _train(options: argparse.Namespace) -> None:
    fresh = {"model": options.model, "corpus": options.corpus, "router": options.router}
    given = {key: value for key, value in fresh.items() if value is not None}
    settings = _settings(options.set)
    if options.seed is not None:
        settings["seed"] = options.seed
    if options.resume is None:
        _commands().train(request=given, settings=settings, steps=options.steps, out=options.out)
        return
    extra = [*given, *settings, *(["out"] if options.out else [])]
    if extra:
        raise ValueError(f"--resume goes on with the run as it was started; leave out {', '.join(extra)}")
    _commands().resume(options.resume, steps=options.steps)


def _compare(options: argparse.Namespace) -> None:
    import_module("workbench.compare_command").compare_routers(
        options.routers,
        steps=options.steps,
        seeds=options.seeds,
        model=options.model,
        corpus=options.corpus,
        settings=_settings(options.set),
        out=options.out,
        jobs=options.jobs,
    )


def _generate(options: argparse.Namespace) -> None:
    how: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": 0.0 if options.greedy else options.temperature,
        "stop": tuple(options.stop),
        "seed": options.seed,
    }
    offload = offload_given(options)
    if offload:
        run = import_module("workbench.offload_command").generate_offloaded
        run(options.model, options.text, offload, measure=options.measure, **how)
        return
    _commands().generate(options.model, options.text, **how)


def _trace(options: argparse.Namespace) -> None:
    _commands().trace(options.model, text=options.text, out=options.out)


def _report(options: argparse.Namespace) -> None:
    _commands().report(options.folder, out=options.out)


def _list(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = _commands().listing(options.what)
    if options.json:
        _show(rows)
        return
    for row in rows:
        shown = [f"{label}{_words(key, row[key])}" for key, label in _SHOWN[options.what].items() if row[key]]
        sys.stdout.write(f"{row['name']:20}{'; '.join(shown)}\n")


def _doctor(options: argparse.Namespace) -> None:
    found: dict[str, Any] = _commands().examine()
    if options.json:
        _show(found)
        return
    for topic, content in found.items():
        for entry in content if isinstance(content, list) else [content]:
            sys.stdout.write(f"{topic}\n")
            pairs = entry.items() if isinstance(entry, dict) else [("", entry)]
            sys.stdout.writelines(f"  {_label(key):18}{_words(key, value)}\n" for key, value in pairs)
        if content == []:
            sys.stdout.write(f"{topic}\n  none\n")


def _commands() -> Any:
    # torch and xarray load only once the arguments are known to be well formed.
    return import_module("workbench.commands")


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    wrong = [pair for pair in pairs if not pair.partition("=")[1]]
    if wrong:
        raise ValueError(f"--set expects KEY=VALUE, got {wrong[0]!r}")
    return dict(Spec.parse("train:" + ",".join(pairs)).args)


def _label(key: str) -> str:
    return key.removesuffix("_bytes").replace("_", " ")


def _words(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={default}" for name, default in value.items())
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    if isinstance(value, int) and key.endswith("bytes"):
        return human_bytes(value)
    if isinstance(value, int) and key == "parameters":
        return human_count(value)
    return str(value)


def _show(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
