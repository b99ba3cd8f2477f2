"""What a package exports is listed, lazy and documented."""

import importlib
import inspect

import pytest

# Constants carry no docstring of their own.
PLAIN_TYPES = (str, int, float, tuple, frozenset, dict)


def public_packages(modules) -> list[str]:
    """Packages with public names: all but plain folders of entries and files of data."""
    return [module.name for module in modules if module.is_package]


def is_documented(package, name: str) -> bool:
    """True if the object behind a public name explains itself."""
    value = vars(package)[name] if name in vars(package) else getattr(package, name)
    return isinstance(value, PLAIN_TYPES) or bool(inspect.getdoc(value))


def test_every_package_lists_what_it_exports(modules):
    assert [name for name in public_packages(modules) if "__all__" not in vars(importlib.import_module(name))] == []


def test_exports_are_listed_once(modules):
    # ruff (RUF022) keeps the order.
    for name in public_packages(modules):
        exported = list(importlib.import_module(name).__all__)
        assert len(exported) == len(set(exported)), name


def test_exports_exist_and_are_documented(modules):
    faults = []
    for name in public_packages(modules):
        package = importlib.import_module(name)
        faults += [f"{name}.{public}" for public in package.__all__ if not is_documented(package, public)]
    assert faults == []


def test_the_lazy_table_and_all_name_the_same(modules):
    for name in public_packages(modules):
        package = importlib.import_module(name)
        if "__getattr__" in vars(package):
            assert dir(package) == sorted(package.__all__), name


def test_a_wrong_name_is_an_attribute_error(modules):
    for name in public_packages(modules):
        with pytest.raises(AttributeError, match="no_such_name"):
            importlib.import_module(name).no_such_name  # noqa: B018


def test_every_module_of_a_package_states_its_public_names(modules):
    private = {module.name for module in modules if module.name.rpartition(".")[2].startswith("_")}
    listed = {module.name for module in modules if "__all__ = " in module.text or "__all__: " in module.text}
    entries = (
        "workbench.routers.",
        "workbench.experts.",
        "workbench.data.corpora.",
    )  # one class each, by file name
    assert {m.name for m in modules if not m.name.startswith(entries)} - private - listed == set()
