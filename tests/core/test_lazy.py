"""Names that are imported on first use."""

import sys

import pytest

from workbench.core.lazy import lazy_exports


@pytest.fixture
def package():
    return lazy_exports("shop", {"Fraction": "fractions", "b64encode": "base64"})


def test_a_name_is_looked_up_in_its_module(package):
    find, _ = package
    assert find("Fraction")(1, 2) + find("Fraction")(1, 2) == 1


def test_nothing_is_imported_before_a_name_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    find, _ = lazy_exports("shop", {"value": "late_module"})
    assert "late_module" not in sys.modules
    assert find("value") == 7
    del sys.modules["late_module"]


def test_the_names_are_listed_sorted(package):
    assert package[1]() == ["Fraction", "b64encode"]


def test_an_unknown_name_is_an_attribute_error_in_python_s_words(package):
    with pytest.raises(AttributeError, match=r"^module 'shop' has no attribute 'price'$"):
        package[0]("price")


def test_a_name_that_its_module_lacks_is_not_hidden():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lazy_exports("shop", {"nothing": "fractions"})[0]("nothing")
