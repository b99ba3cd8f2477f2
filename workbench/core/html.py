"""Small tables for `_repr_html_`: escaped, self-contained, a few rows."""

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["facts", "table"]

_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"


def facts(title: str, rows: Mapping[str, object], *, note: str = "") -> str:
    """A titled two-column table of facts, as HTML."""
    body = "".join(
        f'<tr><th style="{_CELL};font-weight:600">{escape(str(key))}</th>'
        f'<td style="{_CELL}">{escape(str(value))}</td></tr>'
        for key, value in rows.items()
    )
    return _wrap(title, body, note)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, note: str = "") -> str:
    """A titled table with a header row, as HTML."""
    head = "".join(f'<th style="{_CELL};font-weight:600">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(str(cell))}</td>' for cell in row) + "</tr>" for row in rows
    )
    return _wrap(title, f"<tr>{head}</tr>{body}", note)


def _wrap(title: str, body: str, note: str) -> str:
    tail = f'<div style="opacity:.7;margin-top:4px">{escape(note)}</div>' if note else ""
    return f'<div><b>{escape(title)}</b><table style="border-collapse:collapse">{body}</table>{tail}</div>'
