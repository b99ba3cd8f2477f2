"""The command line: `workbench demo | train | generate | trace | report | list | doctor`."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.core.spec import Spec

__all__ = ["main"]

# what a person's mistake, a damaged file or a full disk raises; anything else is a bug and keeps its traceback.
_MISTAKES = (ValueError, LookupError, OSError, ArithmeticError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 for a mistake of the user, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    warnings.showwarning = lambda message, *rest, **more: _say(f"workbench: warning: {message}")
    try:
        run(options)
    except KeyboardInterrupt:
        _say("workbench: stopped; what was saved can be resumed")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except _MISTAKES as error:
        _say(f"workbench: error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workbench", description="Train, watch and compare Mixture-of-Experts models.")
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _demo_parser(commands.add_parser("demo", help="train a tiny model, swap its router, write a report"))
    _train_parser(commands.add_parser("train", help="train a model, or go on with a run"))
    _generate_parser(commands.add_parser("generate", help="continue a text with a run's or a checkpoint's model"))
    _trace_parser(commands.add_parser("trace", help="record the routing of a text"))
    _report_parser(commands.add_parser("report", help="write a run's report.html"))
    _list_parser(commands.add_parser("list", help="names that can be used"))
    _doctor_parser(commands.add_parser("doctor", help="what this machine has and what will be used"))
    return parser


def _demo_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="folder of the run; runs/demo-DATE by default")
    parser.add_argument("--steps", type=int, default=300, help="training steps (default 300, about two minutes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_demo)


def _train_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="tiny, small, base, or a folder with a checkpoint (default tiny)")
    parser.add_argument("--corpus", help="a registered corpus or a path to text (default mixed)")
    parser.add_argument("--router", help="name or name:key=value,key=value (default the model's own)")
    parser.add_argument("--steps", type=int, default=200, help="train up to this step (default 200)")
    parser.add_argument("--seed", type=int, help="of weights, data order and noise (default 0)")
    parser.add_argument("--out", type=Path, help="folder of the new run; runs/DATE by default")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="a training option, e.g. batch_size=8")
    parser.set_defaults(run=_train)


def _generate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run, or a folder with a checkpoint")
    parser.add_argument("text", help="the prompt")
    parser.add_argument("--max-new-tokens", type=int, default=50)
    parser.add_argument("--greedy", action="store_true", help="always the most probable token")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--seed", type=int, default=0)
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
    parser.add_argument("what", choices=("routers", "presets", "corpora"))
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
    settings = _settings(options.set or [])
    if options.seed is not None:
        settings["seed"] = options.seed
    if options.resume is None:
        _commands().train(request=given, settings=settings, steps=options.steps, out=options.out)
        return
    extra = [*given, *settings, *(["out"] if options.out else [])]
    if extra:
        raise ValueError(f"--resume goes on with the run as it was started; leave out {', '.join(extra)}")
    _commands().resume(options.resume, steps=options.steps)


def _generate(options: argparse.Namespace) -> None:
    _commands().generate(
        options.model,
        options.text,
        max_new_tokens=options.max_new_tokens,
        temperature=0.0 if options.greedy else options.temperature,
        stop=tuple(options.stop),
        seed=options.seed,
    )


def _trace(options: argparse.Namespace) -> None:
    _commands().trace(options.model, text=options.text, out=options.out)


def _report(options: argparse.Namespace) -> None:
    _commands().report(options.folder, out=options.out)


def _list(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = _commands().listing(options.what)
    _show(rows) if options.json else _table(rows)


def _doctor(options: argparse.Namespace) -> None:
    found: dict[str, Any] = _commands().examine()
    if options.json:
        _show(found)
        return
    for topic, content in found.items():
        for index, entry in enumerate(content if isinstance(content, list) else [content]):
            pairs = entry.items() if isinstance(entry, dict) else [("", entry)]
            sys.stdout.write(f"{topic}{f' {index}' if index else ''}\n")
            sys.stdout.writelines(f"  {key.replace('_', ' '):18}{value}\n" for key, value in pairs)
        if content == []:
            sys.stdout.write(f"{topic}\n  none\n")


def _commands() -> Any:
    # torch and xarray load only once the arguments are known to be well formed.
    return import_module("workbench.commands")


def _settings(pairs: list[str]) -> dict[str, Any]:
    return dict(Spec.parse("train:" + ",".join(pairs)).args)


def _show(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        name, *rest = [str(value) for value in row.values()]
        sys.stdout.write(f"{name:18}{'  '.join(part for part in rest if part and part != 'None')}\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
