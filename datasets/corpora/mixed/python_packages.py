"""Text of the Python installation and of the packages that this project depends on."""

import ast
import inspect
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from pydoc_data.topics import topics

from records import Raw

__all__ = ["LICENCES", "code", "headers", "json_files", "licence_files", "prose", "unicode_tables"]

# Licence of each distribution's own files; folders with other people's code are left out.
LICENCES = {
    "datasets": "Apache-2.0",
    "debugpy": "MIT",
    "hypothesis": "MPL-2.0",
    "ipykernel": "BSD-3-Clause",
    "ipython": "BSD-3-Clause",
    "ipywidgets": "BSD-3-Clause",
    "jsonschema": "MIT",
    "jupyter_server": "BSD-3-Clause",
    "jupyterlab": "BSD-3-Clause",
    "jupyterlab_server": "BSD-3-Clause",
    "markupsafe": "BSD-3-Clause",
    "networkx": "BSD-3-Clause",
    "numpy": "BSD-3-Clause",
    "rich": "MIT",
    "sympy": "BSD-3-Clause",
    "torch": "BSD-3-Clause",
    "tornado": "Apache-2.0",
    "traitlets": "BSD-3-Clause",
    "transformers": "Apache-2.0",
    "xarray": "Apache-2.0",
    "zarr": "MIT",
}
_CODE = "ipykernel ipython jupyter_server networkx numpy rich tornado traitlets xarray zarr".split()
_PROSE = "networkx numpy sympy torch transformers xarray".split()
_JSON = "datasets debugpy ipywidgets jsonschema jupyter_server jupyterlab jupyterlab_server torch".split()
_HEADERS = "markupsafe numpy".split()
_NOT_OURS = re.compile(
    r"(^|/)(tests?|testing|_vendor|_vendored|vendor|third_party|externals|site-packages|idle_test|lib2to3|"
    r"__pycache__|node_modules|_impl|staging)(/|$)|third-party|build_log|sbom"
)
# Character maps of encodings are tables of thousands of like lines.
_TABLES = re.compile(r"encodings/(cp|mac_|iso|koi|hp_|kz|ptcp|palmos|tis|big5)|pydoc_data/topics|html/entities")
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


def code() -> Iterator[Raw]:
    """Python source of the standard library and of packages."""
    for path, file in _standard_library():
        yield _python("python", "standard library", path, partial(_text, file))
    for name in _CODE:
        for path, file in _files(name, ".py"):
            yield _package("python", "packages", name, path, partial(_text, file))


def prose() -> Iterator[Raw]:
    """The Python reference, and the prose of documentation strings."""
    for topic in sorted(topics):
        yield _python("english", "reference", f"pydoc_data/topics.py:{topic}", partial(topics.get, topic, ""))
    for path, file in _standard_library():
        yield _python("english", "docstrings", path, partial(_docstrings_of, file))
    for name in _PROSE:
        for path, file in _files(name, ".py"):
            yield _package("english", "docstrings", name, path, partial(_docstrings_of, file))


def headers() -> Iterator[Raw]:
    """C of Python itself and of packages."""
    root = Path(sysconfig.get_path("include"))
    for path in sorted(root.rglob("*.h")):
        yield _python("c", "python", f"include/{path.relative_to(root)}", partial(_text, path))
    for name in _HEADERS:
        for suffix in (".h", ".c"):
            for relative, path in _files(name, suffix):
                yield _package("c", "packages", name, relative, partial(_text, path))


def json_files() -> Iterator[Raw]:
    """JSON, YAML and CSV files of packages."""
    for name in _JSON:
        for suffix in (".json", ".yaml", ".yml", ".csv"):
            for path, file in _files(name, suffix):
                yield _package("data", suffix[1:], name, path, partial(_text, file))


def unicode_tables() -> Iterator[Raw]:
    """The character tables in Python's `unicodedata`, as CSV, one block of 256 code points per document."""
    for block in range(0, 0x30000, 256):
        load = partial(_character_table, block)
        yield _python("data", "unicode", f"unicodedata:U+{block:04X}", load, licence="Unicode-3.0")


def _character_table(block: int) -> str:
    rows = [_character_row(code_point) for code_point in range(block, block + 256)]
    named = [row for row in rows if row]
    # Ideographs and syllables are named by number: nothing to read.
    if not named or "IDEOGRAPH" in named[0] or "HANGUL SYLLABLE" in named[0]:
        return ""
    return "\n".join(["code,name,category,bidirectional,decomposition", *named]) + "\n"


def _character_row(code_point: int) -> str:
    character = chr(code_point)
    name = unicodedata.name(character, "")
    parts = [unicodedata.category(character), unicodedata.bidirectional(character)]
    return f"U+{code_point:04X},{name},{','.join(parts)},{unicodedata.decomposition(character)}" if name else ""


def _standard_library() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = str(path.relative_to(root))
        if not _NOT_OURS.search(relative) and not _TABLES.search(relative):
            yield relative, path


def _files(name: str, suffix: str) -> Iterator[tuple[str, Path]]:
    for file in sorted(distribution(name).files or [], key=str):
        if file.suffix == suffix and ".dist-info" not in str(file) and not _NOT_OURS.search(str(file)):
            yield str(file).replace("../", ""), Path(file.locate())


def _text(path: Path) -> str:
    # A handful of fixtures are not UTF-8 on purpose; the builder leaves out what holds U+FFFD.
    return unicodedata.normalize("NFC", path.read_text("utf-8", errors="replace"))


def _python(domain: str, kind: str, path: str, load: Callable[[], str], licence: str = "PSF-2.0") -> Raw:
    return Raw(domain=domain, kind=kind, package="python", version=_PYTHON, licence=licence, path=path, load=load)


def _package(domain: str, kind: str, name: str, path: str, load: Callable[[], str]) -> Raw:
    version = distribution(name).version
    return Raw(domain=domain, kind=kind, package=name, version=version, licence=LICENCES[name], path=path, load=load)


def _docstrings_of(path: Path) -> str:
    return _docstrings(_text(path))


def _docstrings(source: str) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    strings = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    paragraphs = [part for text in strings for part in inspect.cleandoc(text).split("\n\n") if _is_prose(part)]
    return "\n\n".join(dict.fromkeys(paragraphs))


def _is_prose(paragraph: str) -> bool:
    letters = sum(character.isalpha() or character in " ,.\n" for character in paragraph)
    is_code = re.search(
        r">>>|^\s*(:\w+|\.\.|[-=~]{3,}|\w+ : )|[{}<>]|::|\*optional\*|^(Args|Returns|Parameters|Raises|Example)",
        paragraph,
        re.MULTILINE,
    )
    is_indented = paragraph.startswith("    ")
    ends = paragraph.rstrip().endswith((".", ":"))
    return len(paragraph) >= 120 and letters > 0.9 * len(paragraph) and ends and not is_code and not is_indented


def licence_files(package: str) -> Iterator[tuple[str, str]]:
    """The licence texts that a distribution carries."""
    if package == "python":
        path = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
        yield from [("LICENSE.txt", path.read_text("utf-8"))] if path.is_file() else []
        return
    for file in sorted(distribution(package).files or [], key=str):
        if re.search(r"dist-info/.*(LICEN[SC]E|COPYING|NOTICE)[^/]*$", str(file)) and "third" not in str(file).lower():
            yield str(file), Path(file.locate()).read_text("utf-8", errors="replace")
