"""Colours and style variables of every view, read from the one file that the views read too (`views/theme.json`)."""

import json
from functools import cache
from importlib.resources import files
from typing import Literal, TypedDict, cast

__all__ = ["Theme", "cividis", "css_variables", "okabe_ito", "theme"]

Mode = Literal["light", "dark"]


class Theme(TypedDict):
    """The content of `views/theme.json`."""

    cividis: str
    okabe_ito: dict[str, list[str]]
    diverging: dict[str, dict[str, str]]
    variables: dict[str, dict[str, str]]


@cache
def theme() -> Theme:
    """The palettes and variables, as written in `views/theme.json`."""
    return cast(Theme, json.loads(files("workbench.view").joinpath("views/theme.json").read_text("utf-8")))


@cache
def cividis() -> tuple[str, ...]:
    """The 256 colours of cividis, dark to light: quantities. Even to the eye, with colour-vision deficiency too."""
    table = theme()["cividis"]
    return tuple(f"#{table[at : at + 6]}" for at in range(0, len(table), 6))


def okabe_ito(mode: Mode = "light") -> tuple[str, ...]:
    """The eight Okabe-Ito hues: identities, never quantities. In dark mode white stands in for black."""
    return tuple(theme()["okabe_ito"][mode])


def css_variables(selector: str, mode: Mode) -> str:
    """A style rule that sets the `--moe-*` variables on a selector, for pages that show views."""
    body = " ".join(f"--moe-{name}: {value[mode]};" for name, value in theme()["variables"].items())
    return f"{selector} {{ {body} color-scheme: {mode}; }}"
