"""The shared modules as Panel components."""

import pytest

from workbench.view.bundle import view_module
from workbench.view.dashboard.panes import HomePane, LivePane

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(("pane", "module"), [(LivePane, "live"), (HomePane, "home")])
def test_a_pane_carries_its_module_and_the_traits_that_it_reads(pane, module):
    shown = pane(api="/x/workbench/api/v1", xsrf="a_cookie", run_id="0123")
    assert pane._esm == view_module(module)
    model = shown.get_root()
    data = model.data
    assert (data.api, data.xsrf, data.run_id, data.views) == ("/x/workbench/api/v1", "a_cookie", "0123", [])
    assert "http" not in data.api


def test_views_are_names():
    with pytest.raises(TypeError, match="items must be instances"):
        LivePane(views=[1])
