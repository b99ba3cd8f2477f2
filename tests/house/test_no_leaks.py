"""Files in git name no path of the machine they were written on and no address that packages came from."""

import re
import sys
from pathlib import Path

TEXT = {
    ".py",
    ".js",
    ".ts",
    ".tsx",
    ".json",
    ".toml",
    ".yml",
    ".yaml",
    ".md",
    ".txt",
    ".ipynb",
    ".html",
    ".css",
    ".cpp",
}
DOWNLOADS = re.compile(r'"resolved": *"http|https?://[^\s"\'<>)]+\.(?:whl|tgz|tar\.gz)\b|https?://[^\s"\'<>)]+/simple/')
SOMEONES_HOME = re.compile(r"(?<![\w.~/])/(?:home|Users)/[a-z][\w.-]*/")


def leaks(text: str, machine_paths: set[str]) -> list[str]:
    """What a file says about one machine."""
    found = [match.group() for pattern in (DOWNLOADS, SOMEONES_HOME) for match in pattern.finditer(text)]
    return found + [path for path in machine_paths if re.search(rf"(?<![\w.~/]){re.escape(path)}(?![\w-])", text)]


def is_text(path: Path) -> bool:
    return path.suffix in TEXT or path.name in {"Makefile", "run", ".gitignore"}


def test_no_file_names_this_machine_or_a_download(tracked, root):
    # A home at the file system's root, as containers have it, is too common a word to search for.
    machine = {str(path) for path in (root, Path.home(), Path(sys.prefix)) if len(path.parts) > 2}
    found = {str(path.relative_to(root)): leaks(path.read_text(), machine) for path in tracked if is_text(path)}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_leaks_are_found():
    hosts = "https://example.org"
    assert leaks(f"torch @ {hosts}/torch-2.13.0.whl", set()) == [f"{hosts}/torch-2.13.0.whl"]
    assert leaks('"resolved": ' + f'"{hosts}', set()) == ['"resolved": "' + "http"]
    assert leaks("open('/" + "home/someone/data.txt')", set()) == ["/" + "home/someone/"]
    assert leaks("cd /srv/checkout/tests", {"/srv/checkout"}) == ["/srv/checkout"]
    assert leaks(f"see {hosts}/guide and ~/data and /srv/checkouts", {"/srv/checkout"}) == []
