"""Modules and functions stay short enough to read."""

import ast

MODULE_LINES = 300
FUNCTION_LINES = 60


def long_functions(name: str, tree: ast.AST) -> list[str]:
    """Functions over the limit, with their length."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{name}.{node.name}": node.end_lineno - node.lineno + 1 for node in functions}
    return [f"{function}: {lines} lines" for function, lines in lengths.items() if lines > FUNCTION_LINES]


def test_no_module_is_longer_than_300_lines(tracked, root):
    lengths = {path: path.read_text().count("\n") for path in tracked if path.suffix == ".py"}
    assert {str(path.relative_to(root)): n for path, n in lengths.items() if n > MODULE_LINES} == {}


def test_no_function_is_longer_than_60_lines(tracked, root):
    trees = {path: ast.parse(path.read_text()) for path in tracked if path.suffix == ".py"}
    found = [long_functions(str(path.relative_to(root)), tree) for path, tree in trees.items()]
    assert [fault for faults in found for fault in faults] == []


def test_a_long_function_is_found():
    code = "def short():\n    pass\n\ndef long():\n" + "    pass\n" * FUNCTION_LINES
    assert long_functions("module", ast.parse(code)) == ["module.long: 61 lines"]
