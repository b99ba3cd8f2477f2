"""How Jupyter starts the dashboard."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from workbench.cli import main
from workbench.view.dashboard.proxy import NAME, proxied_app


def test_jupyter_finds_it_by_its_entry_point():
    [found] = entry_points(group="jupyter_serverproxy_servers", name=NAME)
    assert found.load() is proxied_app


def test_it_runs_the_command_on_a_unix_socket_below_jupyters_address(monkeypatch):
    entry = proxied_app()
    assert entry["unix_socket"] is True and entry["absolute_url"] is True
    filled = [part.format(unix_socket="/run/s", base_url="/user/ana/", port=0) for part in entry["command"]]
    assert filled[:3] == [sys.executable, "-m", "workbench"]
    asked = {}
    monkeypatch.setattr("workbench.app_command.app", lambda **options: asked.update(options))
    assert main(filled[3:]) == 0
    assert asked["unix_socket"] == Path("/run/s")
    assert asked["prefix"] == "/user/ana/workbench-app"
    assert asked["browser"] is False


def test_its_path_is_not_that_of_the_hub_inside_jupyter():
    assert NAME != "workbench"


def test_the_tile_has_a_picture_and_no_script_in_it():
    icon = Path(proxied_app()["launcher_entry"]["icon_path"]).read_text()
    assert icon.startswith("<svg") and "<script" not in icon


def test_jupyter_learns_of_it_without_loading_panel(tmp_path):
    code = (
        "import sys; from workbench.view.dashboard.proxy import proxied_app; proxied_app();"
        "print({'panel', 'torch', 'bokeh'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "set()"
