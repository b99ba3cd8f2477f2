"""Whether this is a notebook."""

import sys

from workbench.live.notebook import in_notebook


def test_a_script_is_none_and_imports_nothing_to_find_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert in_notebook() is False
    assert "IPython" not in sys.modules
