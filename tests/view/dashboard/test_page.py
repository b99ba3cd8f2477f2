"""The page around the runs."""

import pytest

from workbench.view.dashboard.page import TITLE, make_page
from workbench.view.dashboard.panes import HomePane

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_page_shows_the_runs_of_its_hub():
    page = make_page(api="/user/ana/app/workbench/api/v1", xsrf="a_cookie")
    [home] = page.main
    assert isinstance(home, HomePane)
    assert (home.api, home.xsrf) == ("/user/ana/app/workbench/api/v1", "a_cookie")
    assert page.title == TITLE


def test_every_visitor_has_a_page_of_their_own():
    first, second = (make_page(api="/a", xsrf="x") for _ in range(2))
    assert first.main[0] is not second.main[0]


def test_it_follows_what_the_system_of_the_reader_prefers():
    page = make_page(api="/a", xsrf="x")
    assert not page.dark_theme
    page.main[0].prefers_dark = True
    assert page.dark_theme


def test_it_asks_no_other_host_for_anything():
    resources = make_page(api="/a", xsrf="x").resolve_resources()
    assert "http" not in str({kind: resources.get(kind) for kind in ("css", "js", "js_modules")})
