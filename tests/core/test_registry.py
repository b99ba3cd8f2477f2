"""A package whose files are entries, planted in a temporary folder."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from workbench.core import Registry

SHAPE = "class Shape:\n    pass\n"
CIRCLE = "from shelf_base import Shape\n\nclass Circle(Shape):\n    pass\n"
TWO = CIRCLE + "\nclass Disc(Shape):\n    pass\n"
NONE = "from shelf_base import Shape\n"
HELPED = "from shelf_base import Shape\n\nclass _Hidden(Shape):\n    pass\n\nclass Other:\n    pass\n"
HELPED += "\nclass Square(Shape):\n    pass\n"


@dataclass
class Entry:
    """An entry point of another distribution."""

    name: str
    value: str
    loaded: Any

    def load(self) -> Any:
        return self.loaded


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Registry:
    """The registry of a package of two good files, two bad ones and two that are no entries."""
    package = tmp_path / "shelf"
    (package / "_inner").mkdir(parents=True)
    files = {"__init__": "", "circle": CIRCLE, "square": HELPED, "two": TWO, "none": NONE, "_part": CIRCLE}
    files["broken"] = "raise RuntimeError('imported')\n"
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    (package / "folder").mkdir()
    (package / "folder" / "__init__.py").write_text("")
    (tmp_path / "shelf_base.py").write_text(SHAPE)
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("shelf", "shelf_base:Shape")
    for name in [name for name in sys.modules if name.split(".")[0] in {"shelf", "shelf_base"}]:
        del sys.modules[name]


@pytest.fixture
def outside(monkeypatch):
    """Plants an entry point in a group."""

    def plant(group: str, name: str, loaded: type) -> None:
        entry = Entry(name, f"{loaded.__module__}:{loaded.__qualname__}", loaded)
        monkeypatch.setattr(
            "workbench.core.registry.entry_points", lambda **k: [entry] if k == {"group": group} else []
        )

    return plant


def test_files_are_entries_and_listing_them_imports_nothing(shelf):
    assert shelf.names() == ("broken", "circle", "none", "square", "two")
    assert "shelf.circle" not in sys.modules


def test_a_planted_file_is_found_without_an_edit(shelf, tmp_path):
    (tmp_path / "shelf" / "added.py").write_text(CIRCLE.replace("Circle", "Added"))
    assert "added" in shelf.names()
    assert shelf.get("added").__name__ == "Added"


def test_a_name_gives_the_one_public_class_of_its_file(shelf):
    assert shelf.get("circle").__name__ == "Circle"
    assert shelf.get("square").__name__ == "Square"


@pytest.mark.parametrize(("name", "found"), [("two", 2), ("none", 0)])
def test_a_file_with_another_number_of_classes_is_refused(shelf, name, found):
    with pytest.raises(LookupError, match=rf"^shelf\.{name} must define one public Shape, found {found}$"):
        shelf.get(name)


def test_an_unknown_name_is_told_the_closest_and_all(shelf):
    with pytest.raises(LookupError) as error:
        shelf.get("cirle")
    assert error.value.args == (
        "shelf has no 'cirle' (did you mean 'circle'?). Known names: broken, circle, none, square, two.",
    )


def test_a_private_file_is_no_entry(shelf):
    with pytest.raises(LookupError, match="has no '_part'"):
        shelf.get("_part")


def test_an_error_inside_a_file_is_not_swallowed(shelf):
    with pytest.raises(RuntimeError, match="imported"):
        shelf.get("broken")


def test_a_class_knows_its_name(shelf):
    assert shelf.name_of(shelf.get("circle")) == "circle"


def test_a_class_from_elsewhere_has_no_name(shelf):
    with pytest.raises(LookupError, match=r"^int is not an entry of shelf; give it a file there or an entry point$"):
        shelf.name_of(int)


def test_an_entry_point_adds_a_name(shelf, outside):
    class Star:
        pass

    outside("shelf", "star", Star)
    assert "star" in shelf.names()
    assert shelf.get("star") is Star
    assert shelf.name_of(Star) == "star"


def test_an_entry_point_of_another_group_adds_nothing(shelf, outside):
    outside("other", "star", int)
    assert "star" not in shelf.names()


def test_a_file_of_ours_wins_over_an_entry_point_of_its_name(shelf, outside):
    outside("shelf", "circle", int)
    assert shelf.names().count("circle") == 1
    assert shelf.get("circle").__name__ == "Circle"


def test_a_class_is_added_for_this_process_and_may_be_replaced(shelf):
    import shelf_base

    @shelf.add("oval")
    class Oval(shelf_base.Shape):
        pass

    assert "oval" in shelf.names()
    assert shelf.get("oval") is Oval
    assert shelf.name_of(Oval) == "oval"

    @shelf.add("oval")
    class Rounder(shelf_base.Shape):
        pass

    assert shelf.get("oval") is Rounder


def test_a_name_of_a_file_and_a_stranger_are_refused(shelf):
    with pytest.raises(ValueError, match=r"needs a name of its own.*got 'circle', which exists already"):
        shelf.add("circle")
    with pytest.raises(ValueError, match="made of letters, digits and _; got 'no name'"):
        shelf.add("no name")
    with pytest.raises(TypeError, match="int must derive from Shape"):
        shelf.add("number")(int)
