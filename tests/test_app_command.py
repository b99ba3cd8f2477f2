"""`workbench app` from its options to the page it opens."""

import importlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from workbench import app_command
from workbench.cli import main

TOKEN = "a-token-of-tests"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def served(monkeypatch):
    """What would have been served, and what would have been opened."""
    server = importlib.import_module("workbench.view.dashboard.server")
    places, opened = [], []

    async def run_app(place, *, on_ready):
        places.append(place)
        on_ready("http://127.0.0.1:1/?token=t")

    monkeypatch.setattr(server, "run_app", run_app)
    monkeypatch.setattr(app_command.webbrowser, "open", opened.append)
    return places, opened


def test_without_options_it_serves_this_machine_and_opens_a_browser(served, capsys):
    places, opened = served
    assert main(["app"]) == 0
    [place] = places
    assert (place.port, place.token, place.address, place.unix_socket, place.prefix) == (0, "", "127.0.0.1", None, "")
    assert opened == ["http://127.0.0.1:1/?token=t"]
    assert capsys.readouterr().out == "workbench app: http://127.0.0.1:1/?token=t\n"


def test_options_reach_the_place_and_no_browser_is_opened(served):
    places, opened = served
    main(["app", "--port", "8811", "--token", TOKEN, "--no-browser", "--address", "::", "--open"])
    main(["app", "--unix-socket", "/run/s", "--prefix", "/user/ana/x/"])
    assert (places[0].port, places[0].token, places[0].address, places[0].is_open) == (8811, TOKEN, "::", True)
    assert (places[1].unix_socket, places[1].prefix) == (Path("/run/s"), "/user/ana/x")
    assert opened == []


def test_an_open_address_without_the_word_is_a_mistake(served, capsys):
    assert main(["app", "--address", "0.0.0.0"]) == 2
    assert "add --open if the network is yours" in capsys.readouterr().err
    assert served[0] == []


def test_without_panel_it_says_what_to_install(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError("No module named 'panel'", name="panel")

    monkeypatch.setattr(app_command, "import_module", missing)
    assert main(["app"]) == 2
    assert "pip install 'moe-workbench[app]'" in capsys.readouterr().err


def test_a_missing_part_of_ours_is_not_blamed_on_panel(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'workbench.view.x'", name="workbench.view.x")

    monkeypatch.setattr(app_command, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"workbench\.view\.x"):
        app_command._server()


def test_the_command_serves_and_ends_when_it_is_told_to(tmp_path):
    command = [sys.executable, "-m", "workbench", "app", "--token", TOKEN, "--no-browser"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().removeprefix("workbench app: ").strip()
        assert address.startswith("http://127.0.0.1:") and address.endswith(f"/?token={TOKEN}")
        asked = urllib.request.Request(
            address.partition("?")[0] + "workbench/api/v1/health", headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(address.partition("?")[0] + "workbench/api/v1/health", timeout=10)
        refused.value.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
