"""Small tables: escaped, balanced, complete."""

from html.parser import HTMLParser

import pytest

from workbench.core.html import facts, table

EVIL = "<script>alert('&')</script>\""


class Reader(HTMLParser):
    """Rows of cells, and whether every tag was closed."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        cell = self.open and self.open[-1] in {"td", "th"}
        (self.rows[-1] if cell else self.text).append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_facts_are_rows_of_two_cells():
    reader = read(facts("Title", {"tokens": 3, "name": "x"}, note="a note"))
    assert reader.rows == [["tokens", "3"], ["name", "x"]]
    assert reader.text == ["Title", "a note"]


def test_a_table_has_a_header_row():
    reader = read(table("Title", ["a", "b"], [[1, 2], [3, None]]))
    assert reader.rows == [["a", "b"], ["1", "2"], ["3", "None"]]
    assert reader.text == ["Title"]


@pytest.mark.parametrize("html", [facts(EVIL, {EVIL: EVIL}, note=EVIL), table(EVIL, [EVIL], [[EVIL]], note=EVIL)])
def test_nothing_a_user_wrote_becomes_markup(html):
    reader = read(html)
    assert "<script" not in html
    assert {EVIL} == {*reader.text, *(cell for row in reader.rows for cell in row)}


def test_nothing_to_show_is_an_empty_table():
    assert read(facts("Title", {})).rows == []
