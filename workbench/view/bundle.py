"""Views as self-contained scripts.

A view is an ES module that imports its helpers from files beside it; a browser or a bundler can load it as it is. A
widget and a static page need one text without imports: here each module becomes a function that returns its exports.
The grammar is small on purpose, and anything outside it is an error: named imports from `./file.js`, one default
import from `./file.json`, and `export function`, `export const` or `export default`.
"""

import json
import re
from functools import cache
from importlib.resources import files

__all__ = ["HOSTS", "script", "view_module", "view_names"]

HOSTS = ("home", "live")
"""Modules that show views and have no payload of their own: the runs of a server, and the live workbench of one run."""

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"\./([\w.]+\.js)";\n', re.MULTILINE)
_JSON_IMPORT = re.compile(r'^import\s+(\w+)\s+from\s+"\./([\w.]+\.json)"\s+with\s+\{ type: "json" \};\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class)\s+(\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_LEFT_OVER = re.compile(r"^\s*(?:import|export)\b.*$", re.MULTILINE)


@cache
def view_names() -> tuple[str, ...]:
    """Names of the views: the public modules in `views/` that show a payload."""
    folder = files("workbench.view").joinpath("views")
    stems = (entry.name.removesuffix(".js") for entry in folder.iterdir() if entry.name.endswith(".js"))
    return tuple(sorted(stem for stem in stems if not stem.startswith("_") and stem not in HOSTS))


@cache
def view_module(name: str) -> str:
    """One view or host as an ES module without imports: what a widget gets as `_esm`.

    Raises:
        LookupError: there is no such view.
    """
    if name not in HOSTS:
        _check(name)
    return f"{_functions((f'{name}.js',))}export default {_variable(f'{name}.js')}.default;\n"


@cache
def script(*names: str) -> str:
    """Several views and the page's start-up code as one script, for a page that loads nothing else.

    Raises:
        LookupError: there is no such view.
    """
    for name in names:
        _check(name)
    table = ", ".join(f"{name}: {_variable(f'{name}.js')}.default" for name in names)
    modules = _functions((*(f"{name}.js" for name in names), "_page.js"))
    return f'"use strict";\n{modules}{_variable("_page.js")}.start({{ {table} }});\n'


def _check(name: str) -> None:
    if name not in view_names():
        raise LookupError(f"no view named {name!r}; the views are {', '.join(view_names())}")


def _variable(file: str) -> str:
    return "module_" + re.sub(r"\W", "_", file)


def _functions(entries: tuple[str, ...]) -> str:
    """Every module that the entries need, each once, helpers before their users."""
    done: dict[str, str] = {}
    for entry in entries:
        _visit(entry, done, ())
    return "".join(done.values())


def _visit(file: str, done: dict[str, str], path: tuple[str, ...]) -> None:
    if file in done:
        return
    if file in path:
        raise ValueError(f"views import each other in a circle: {' -> '.join((*path, file))}")
    source = files("workbench.view").joinpath("views", file).read_text("utf-8")
    if file.endswith(".json"):
        done[file] = f"const {_variable(file)} = {json.dumps(json.loads(source))};\n"
        return
    for pattern in (_IMPORT, _JSON_IMPORT):
        for _, needed in pattern.findall(source):
            _visit(needed, done, (*path, file))
    done[file] = _as_function(file, source)


def _as_function(file: str, source: str) -> str:
    names = _EXPORT.findall(source)
    has_default = _DEFAULT.search(source) is not None
    body = _IMPORT.sub(lambda found: f"const {{{found[1].replace(' as ', ': ')}}} = {_variable(found[2])};\n", source)
    body = _JSON_IMPORT.sub(lambda found: f"const {found[1]} = {_variable(found[2])};\n", body)
    body = _DEFAULT.sub("const the_default = ", _EXPORT.sub("", body))
    if left := _LEFT_OVER.search(body):
        raise ValueError(f"{file}: this import or export is outside the small grammar of the bundle: {left[0]!r}")
    exports = ", ".join([*names, *(["default: the_default"] if has_default else [])])
    return f"const {_variable(file)} = (() => {{\n{body}return {{ {exports} }};\n}})();\n"
