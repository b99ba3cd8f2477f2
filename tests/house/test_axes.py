"""One legend: every axis letter in a signature is in `workbench.core.axes.LEGEND`."""

import ast
import re

from workbench.core.axes import LEGEND

ARRAYS = {"Float", "Int", "Bool", "Num", "Shaped", "Integer", "UInt8", "Inexact"}


def axis_letters(tree: ast.AST) -> set[str]:
    """The single capital letters of every shape annotation."""
    shapes = (
        node.slice.elts[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ARRAYS
        and isinstance(node.slice, ast.Tuple)
        and isinstance(node.slice.elts[1], ast.Constant)
    )
    return {letter for shape in shapes for letter in re.findall(r"(?<![A-Za-z0-9_])[A-Z](?![A-Za-z0-9_])", shape)}


def test_every_axis_letter_is_in_the_legend(modules):
    unknown = {module.name: sorted(axis_letters(module.tree) - set(LEGEND)) for module in modules}
    assert {name: letters for name, letters in unknown.items() if letters} == {}


def test_every_meaning_is_given_once():
    assert len(set(LEGEND.values())) == len(LEGEND)
    assert all(len(letter) == 1 and letter.isupper() for letter in LEGEND)


def test_letters_are_read_from_annotations_only():
    code = 'def f(x: Float[Tensor, "T heads D+1 *batch"], y: dict["Q", 1]) -> Int[Tensor, "E"]: "A B"'
    assert axis_letters(ast.parse(code)) == {"T", "D", "E"}
