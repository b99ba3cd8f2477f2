"""Views as self-contained scripts."""

import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from workbench.view import bundle
from workbench.view.bundle import HOSTS, script, view_module, view_names


def test_the_views_of_this_package():
    assert view_names() == (
        "expert_effect",
        "expert_flow",
        "expert_load",
        "generation",
        "loss_curves",
        "offload_timeline",
        "residency",
        "router_swap",
        "run_table",
        "shadow_router",
        "token_strip",
    )


@pytest.mark.parametrize("name", (*view_names(), *HOSTS))
def test_a_bundled_view_imports_nothing_and_has_one_default_export(name):
    text = view_module(name)
    assert re.findall(r"^\s*import\b", text, re.MULTILINE) == []
    assert len(re.findall(r"^export default ", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^const module__payload_js = ", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", (*view_names(), *HOSTS))
def test_no_view_names_an_address_or_writes_markup(name):
    text = view_module(name)
    for forbidden in (
        "http:",
        "https:",
        "//cdn",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ):
        assert forbidden not in text
    assert "model.send" not in text


def test_helpers_come_before_their_users():
    text = script("expert_load", "loss_curves", "token_strip")
    places = {
        name: text.index(f"const {name} = ") for name in re.findall(r"^const (module_\w+) = ", text, re.MULTILINE)
    }
    for name, start in places.items():
        end = min((place for place in places.values() if place > start), default=len(text))
        for used in re.findall(r"\} = (module_\w+);", text[start:end]):
            assert places[used] < start, (name, used)


def test_a_page_script_holds_each_helper_once_and_starts_all_views():
    text = script("loss_curves", "token_strip")
    assert text.count("const module__frame_js = ") == 1
    assert text.rstrip().endswith(
        "start({ loss_curves: module_loss_curves_js.default, token_strip: module_token_strip_js.default });"
    )


def test_an_unknown_view_is_named_with_the_right_ones():
    with pytest.raises(LookupError, match=f"no view named 'loss'; the views are {', '.join(view_names())}"):
        view_module("loss")


@pytest.mark.parametrize(
    "line",
    [
        'import "./_dom.js";',
        'import * as dom from "./_dom.js";',
        "export { a };",
        'import { h } from "https://cdn/x.js";',
    ],
)
def test_an_import_outside_the_grammar_is_an_error_not_a_broken_script(line):
    with pytest.raises(ValueError, match="outside the small grammar"):
        bundle._as_function("x.js", f"{line}\nconst a = 1;\n")


def test_a_circle_of_imports_is_named(tmp_path, monkeypatch):
    (tmp_path / "views").mkdir()
    for one, other in (("a.js", "b.js"), ("b.js", "a.js")):
        (tmp_path / "views" / one).write_text(f'import {{ x }} from "./{other}";\nexport const x = 1;\n')
    monkeypatch.setattr(bundle, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=r"circle: a\.js -> b\.js -> a\.js"):
        bundle._functions(("a.js",))


def test_every_source_file_is_within_300_lines_and_checked():
    for entry in files("workbench.view").joinpath("views").iterdir():
        if entry.name.endswith(".js"):
            text = entry.read_text("utf-8")
            assert text.startswith("// @ts-check\n"), entry.name
            assert text.count("\n") <= 300, entry.name


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here; the browser tests parse the same scripts")
@pytest.mark.parametrize("name", (*view_names(), *HOSTS))
def test_node_parses_a_bundled_view(name, tmp_path):
    file = tmp_path / f"{name}.mjs"
    file.write_text(view_module(name), "utf-8")
    done = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def modules_of(*entries):
    """The files that these views are made of."""
    done = {}
    for entry in entries:
        bundle._visit(f"{entry}.js", done, ())
    return {file for file in done if file.endswith(".js")}


def test_the_styles_of_a_host_reach_no_view_in_it():
    # Views and hosts share a page, and so a name in one style sheet means the same in all of them.
    folder = files("workbench.view").joinpath("views")
    views = modules_of(*view_names())
    theirs = {file: set(re.findall(r"\bmoe-[a-z-]+", folder.joinpath(file).read_text("utf-8"))) for file in views}
    styled = set()
    for file in modules_of(*HOSTS) - views:
        styled |= set(re.findall(r"\.(moe-[a-z-]+)", folder.joinpath(file).read_text("utf-8")))
    common = {"moe-view", *theirs["_style.js"], *theirs["_dom.js"], *theirs["_frame.js"]}
    shared = {file: names & styled - common for file, names in theirs.items() if names & styled - common}
    # Scoped by the part of the page that they stand in.
    assert shared == {file: {"moe-quiet"} for file in shared}


def test_a_module_asks_of_its_host_only_what_every_host_of_widgets_has():
    # Panel has no `send`, and marimo and VS Code pass on changes of traits alone.
    sources = [
        path.read_text("utf-8")
        for path in files("workbench.view").joinpath("views").iterdir()
        if path.name.endswith(".js")
    ]
    asked = {name for source in sources for name in re.findall(r"\bmodel\??\.([A-Za-z_]+)", source)}
    assert asked == {"get", "set", "save_changes", "on", "off"}
    heard = {event for source in sources for event in re.findall(r"\bmodel\??\.o(?:n|ff)\(\s*[\"`]([^\"`$]*)", source)}
    assert heard
    assert all(event.startswith("change:") for event in heard)
