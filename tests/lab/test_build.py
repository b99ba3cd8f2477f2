"""The build of the JupyterLab extension: once per content, into this environment, and never in the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.lab import build
from workbench.lab.build import Build, content_hash, node_is_new_enough

PACKAGE = Path(build.__file__).parents[1]


@pytest.fixture
def package(tmp_path) -> Path:
    """A checkout with a file of every kind that the build reads."""
    files = {
        **{f"lab/{name}": "{}" for name in ("package.json", "package-lock.json", "rspack.config.js", "install.json")},
        "lab/src/index.ts": "export {};",
        "lab/style/index.css": "",
        "lab/schema/plugin.json": "{}",
        "view/views/live.js": "export default {};",
        "view/views/theme.json": "{}",
        "view/dashboard/icon.svg": "<svg/>",
        "lab/jupyter-config/moe-workbench.json": '{"ServerApp": {}}',
    }
    for name, text in files.items():
        (tmp_path / "workbench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "workbench" / name).write_text(text)
    return tmp_path / "workbench"


class Recorded(Build):
    """A build whose commands are a list of what was asked; the builder leaves one file behind."""

    def __init__(self, package: Path, *, fails: str = "", node: str = "v24.19.0"):
        super().__init__(package / "lab", package.parent / "venv")
        self.prefix.mkdir(exist_ok=True)
        self.asked: list[str] = []
        self.fails, self.node = fails, node

    def program(self, name: str) -> str | None:
        return f"/bin/{name}" if self.node else None

    def version_of(self, node: str) -> str:
        return self.node

    def command(self, *words: str) -> bool:
        self.asked.append(" ".join(words).replace(sys.executable, "python"))
        self.log.write_text("the last words of a command\n")
        if self.fails and self.fails in self.asked[-1]:
            return False
        if words[0] == "npm":
            self.modules.mkdir(exist_ok=True)
        if words[-1] == ".":
            self.built.mkdir(exist_ok=True)
            (self.built / "package.json").write_text(f"build {len(self.asked)}")
        return True

    def shown(self) -> str:
        """What JupyterLab would load."""
        return (self.prefix / "share/jupyter/labextensions/@moe-workbench/lab/package.json").read_text()


FETCH = "npm ci --omit=peer --ignore-scripts"
BUNDLE = "python -P -m jupyter_builder.main build ."
WHEEL = f"python -m pip install --no-input --timeout 15 --retries 1 {build.NODE_PACKAGE}"


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v20.19.0", True),
        ("v20.18.3", False),
        ("v21.7.0", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.0.1", True),
        ("v9.1.0", False),
        ("", False),
    ],
)
def test_the_bundler_decides_which_node_is_new_enough(version, fits):
    assert node_is_new_enough(version) is fits


def test_the_digest_knows_names_and_contents_apart(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    files = [tmp_path / "a", tmp_path / "b"]
    before = content_hash(files, tmp_path)
    assert content_hash(reversed(files), tmp_path) == before
    (tmp_path / "a").write_text("two")
    (tmp_path / "b").write_text("one")
    assert content_hash(files, tmp_path) != before


def test_a_first_build_fetches_bundles_and_installs(package, capsys):
    first = Recorded(package)
    assert first.run()
    assert [command.partition(" --no-audit")[0] for command in first.asked] == [FETCH, BUNDLE]
    assert first.shown() == "build 2"
    assert (first.prefix / "etc/jupyter/jupyter_server_config.d/moe-workbench.json").read_text() == '{"ServerApp": {}}'
    assert "JupyterLab extension: built in 0 s" in capsys.readouterr().out


def test_what_is_unchanged_is_not_built_again(package, capsys):
    Recorded(package).run()
    capsys.readouterr()
    second = Recorded(package, node="")
    assert second.run()
    assert second.asked == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "name",
    ["lab/src/index.ts", "lab/style/index.css", "lab/schema/plugin.json", "lab/package.json", "view/views/live.js"],
)
def test_a_changed_source_is_built_and_what_was_fetched_serves_again(package, name):
    Recorded(package).run()
    (package / name).write_text("changed")
    again = Recorded(package)
    assert again.run()
    assert again.asked == [BUNDLE]
    assert again.shown() == "build 1"


def test_a_changed_lock_file_is_fetched_anew(package):
    Recorded(package).run()
    (package / "lab/package-lock.json").write_text("changed")
    again = Recorded(package)
    assert again.run()
    assert len(again.asked) == 2


def test_another_environment_gets_a_copy_of_the_same_build(package):
    Recorded(package).run()
    other = Recorded(package)
    other.prefix = package.parent / "other"
    other.prefix.mkdir()
    assert other.run()
    assert other.asked == []
    assert other.shown() == "build 2"


def test_an_installed_copy_holds_nothing_of_the_build_before(package):
    first = Recorded(package)
    first.run()
    old = first.prefix / "share/jupyter/labextensions/@moe-workbench/lab/old.js"
    old.write_text("")
    (package / "lab/src/index.ts").write_text("changed")
    Recorded(package).run()
    assert not old.exists()
    assert not old.parent.is_symlink()


def test_without_the_registry_the_set_up_goes_on_and_says_so(package, capsys):
    offline = Recorded(package, fails="npm ci")
    assert not offline.run()
    said = capsys.readouterr().out
    assert "not built, and everything else works without it. npm could not fetch its packages; the log is" in said
    assert (offline.prefix / "share/jupyter/lab/settings/overrides.json").exists()


def test_a_failed_fetch_is_tried_again(package):
    Recorded(package, fails="npm ci").run()
    again = Recorded(package)
    assert again.run()
    assert len(again.asked) == 2


def test_a_failing_build_shows_its_last_words_and_leaves_the_old_copy(package, capsys):
    Recorded(package).run()
    (package / "lab/src/index.ts").write_text("changed")
    broken = Recorded(package, fails="jupyter_builder")
    assert not broken.run()
    assert "Its build failed:\nthe last words of a command" in capsys.readouterr().out
    assert broken.shown() == "build 2"


@pytest.mark.parametrize("node", ["", "v18.20.4"])
def test_without_a_node_that_fits_pip_supplies_one(package, node):
    bare = Recorded(package, node=node)
    assert bare.run()
    assert bare.asked[0] == WHEEL


def test_without_node_and_without_an_index_it_says_what_it_needs(package, capsys):
    assert not Recorded(package, node="", fails="pip install").run()
    assert "It needs Node.js 20.19, or 22.12 and up, with npm; pip could not fetch" in capsys.readouterr().out


def test_the_types_of_jupyterlab_are_fetched_only_to_check_types(package, capsys):
    Recorded(package).run()
    checked = Recorded(package)
    assert checked.check_types()
    assert checked.asked[0].startswith("npm ci --ignore-scripts")
    assert checked.asked[1].endswith("tsc --noEmit --pretty false")
    # what is there is more than a build needs: it fetches nothing
    (package / "lab/src/index.ts").write_text("changed")
    again = Recorded(package)
    again.run()
    assert again.asked == [BUNDLE]
    assert not Recorded(package, fails="tsc").check_types()
    assert "its types are wrong:\nthe last words" in capsys.readouterr().out


def test_the_lab_is_told_not_to_ask_about_news(package):
    quiet = Recorded(package)
    quiet.quieten()
    settings = json.loads((quiet.prefix / "share/jupyter/lab/settings/overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"] == {"checkForUpdates": False, "fetchNews": "false"}


def test_a_command_that_cannot_start_or_fails_is_a_failure_with_a_log(package):
    real = Build(package / "lab", package.parent)
    assert not real.command("no-such-program")
    assert "no-such-program" in real.log.read_text()
    assert not real.command(sys.executable, "-c", "import sys; print('said'); sys.exit(3)")
    assert real.log.read_text() == "said\n"
    assert real.command(sys.executable, "-c", "import os; print(os.environ['PATH'])")
    assert real.log.read_text().startswith(str(package.parent / "bin") + os.pathsep)


def test_a_node_that_does_not_start_has_no_version(package):
    real = Build(package / "lab", package.parent)
    assert real.version_of(str(package / "nowhere")) == ""
    assert real.version_of(sys.executable).startswith("Python 3")


def test_it_runs_by_path_with_the_standard_library_alone(tmp_path):
    copy = tmp_path / "workbench" / "lab" / "build.py"
    copy.parent.mkdir(parents=True)
    shutil.copy(build.__file__, copy)
    command = [sys.executable, "-P", "-S", str(copy), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--types" in done.stdout


def test_the_lock_file_is_whole_and_names_no_address():
    lock = json.loads((PACKAGE / "lab" / "package-lock.json").read_text())
    package = json.loads((PACKAGE / "lab" / "package.json").read_text())
    root = lock["packages"][""]
    assert {name: root.get(name, {}) for name in ("devDependencies", "peerDependencies")} == {
        name: package[name] for name in ("devDependencies", "peerDependencies")
    }
    others = {name: entry for name, entry in lock["packages"].items() if name}
    assert [name for name, entry in others.items() if "resolved" in entry or "integrity" not in entry] == []
    # every platform finds its bundler
    assert {
        f"node_modules/@rspack/binding-{name}" for name in ("linux-x64-gnu", "linux-arm64-gnu", "darwin-arm64")
    } <= set(others)


def test_what_jupyterlab_supplies_is_asked_of_it_and_never_bundled():
    package = json.loads((PACKAGE / "lab" / "package.json").read_text())
    shared = package["jupyterlab"]["sharedPackages"]
    asked = {name: version for name, version in package["peerDependencies"].items() if name.startswith("@jupyterlab/")}
    assert {name: options["requiredVersion"] for name, options in shared.items()} == asked
    assert all(options["singleton"] and options["bundled"] is False for options in shared.values())
    assert package["dependencies"] == {}
