"""Palettes: the published tables, and differences that everyone can see."""

import itertools

import numpy as np

from workbench.view.theme import cividis, css_variables, okabe_ito, theme

# Machado, Oliveira and Fernandes (2009), severity 1.0, linear RGB.
SIMULATIONS = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    ratio = np.clip(to_xyz @ rgb, 0, None) / [0.95047, 1, 1.08883]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_cividis_is_the_published_table():
    table = cividis()
    assert len(table) == 256
    assert (table[0], table[128], table[255]) == ("#00224e", "#7d7c78", "#fee838")


def test_cividis_only_gets_brighter():
    values = [luminance(colour) for colour in cividis()]
    assert all(b > a - 2e-4 for a, b in itertools.pairwise(values))
    assert values[255] - values[0] > 0.7


def test_okabe_ito_has_eight_published_hues_and_white_for_black_in_the_dark():
    published = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
    assert set(okabe_ito("light")) == published
    assert set(okabe_ito("dark")) == published - {"#000000"} | {"#ffffff"}


def test_no_two_hues_look_alike_with_a_colour_vision_deficiency():
    for name, matrix in SIMULATIONS.items():
        seen = {hue: lab(np.array(matrix) @ linear(hue)) for hue in okabe_ito("light")}
        for a, b in itertools.combinations(seen, 2):
            assert np.linalg.norm(seen[a] - seen[b]) > 10, (name, a, b)


def test_less_and_more_are_told_apart_from_each_other_and_from_none():
    for ends in theme()["diverging"].values():
        for name, matrix in SIMULATIONS.items():
            seen = [lab(np.array(matrix) @ linear(colour)) for colour in (ends["low"], ends["middle"], ends["high"])]
            for a, b in itertools.combinations(seen, 2):
                assert np.linalg.norm(a - b) > 35, name


def test_text_reads_on_every_ground_in_both_modes():
    variables = theme()["variables"]
    for mode in ("light", "dark"):
        for ground in ("surface", "panel"):
            for ink in ("text", "muted", "accent", "event"):
                assert contrast(variables[ink][mode], variables[ground][mode]) >= 4.5, (mode, ink, ground)
        for mark in ("mark", "accent", "event"):
            assert contrast(variables[mark][mode], variables["surface"][mode]) >= 3


def test_css_variables_name_every_variable_once():
    rule = css_variables(":root", "dark")
    assert rule.startswith(":root { ") and rule.endswith("color-scheme: dark; }")
    assert all(rule.count(f"--moe-{name}: {value['dark']};") == 1 for name, value in theme()["variables"].items())
