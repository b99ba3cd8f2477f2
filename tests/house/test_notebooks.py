"""Every notebook is short, without outputs in git, and runs from the first cell to the last."""

import ast
from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_CELLS = 25
FUNCTION_LINES = 5
CELL_SECONDS = 400
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path: Path) -> list[str]:
    """The code cells of a notebook, without magics."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return ["\n".join(line for line in cell.splitlines() if not line.startswith(("%", "!"))) for cell in cells]


def test_the_tour_is_there():
    assert "00_tour" in {path.stem for path in NOTEBOOKS}


@each_notebook
def test_it_is_short_and_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < MOST_CELLS
    assert [cell.execution_count for cell in notebook.cells if cell.get("execution_count")] == []
    assert [cell.outputs for cell in notebook.cells if cell.get("outputs")] == []
    assert notebook.metadata.get("widgets") is None


@each_notebook
def test_its_functions_are_of_a_few_lines(path):
    trees = [ast.parse(cell) for cell in code_of(path)]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    long = [ast.unparse(node) for node in functions if node.end_lineno - node.lineno + 1 > FUNCTION_LINES]
    assert long == []


@each_notebook
def test_it_begins_with_its_question(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.notebook
@each_notebook
def test_it_runs(path, tmp_path, monkeypatch):
    # A kernel of this interpreter, whatever kernels the person has installed.
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert shown, "a notebook that shows nothing proves nothing"
    assert [output.name for output in shown if output.output_type == "stream" and output.name == "stderr"] == []
