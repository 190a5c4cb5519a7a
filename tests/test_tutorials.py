"""Tutorials: what is stored was run as a whole, and still runs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    """The code cells as stored."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source(cell):
    """A cell's Python, without the lines that only notebooks know."""
    return re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE)


def lines(cell):
    """How many lines of code: neither blank, nor comments, nor docstrings."""
    text, words = source(cell), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            words |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    numbered = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(bool(line) and line[0] != "#" and at not in words for at, line in numbered)


def outputs(cells, kind):
    """Type and data of every output of a kind."""
    return [output for cell in cells for output in cell.outputs if output.output_type == kind]


@pytest.fixture
def execute(tmp_path):
    """Executes a copy in a folder of its own; the finished process."""
    (folder := tmp_path / "work").mkdir()
    own = {"BAYESVAE_SMOKE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    own |= {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}

    def run(notebook, **environment):
        return subprocess.run(
            [sys.executable, ROOT / "tutorials" / "execute.py", shutil.copy(notebook, folder)],
            cwd=folder,
            env=os.environ | own | environment,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
def test_it_runs_from_a_folder_of_its_own_and_its_claims_hold(path, execute, tmp_path):
    """Catches a package that moved on, claims that were luck, files left behind."""
    before = path.read_bytes()
    run = execute(path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert path.read_bytes() == before
    assert [left.name for left in (tmp_path / "work").iterdir()] == [path.name]


def notebook_of(folder, code):
    path = folder / "short.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, path)
    return path


def test_notebooks_run_under_this_python_whatever_kernels_are_installed(execute, tmp_path):
    """Catches the "python3" of another environment, and times in what is stored."""
    other = tmp_path / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["false"], "display_name": "", "language": "python"}))
    run = execute(notebook_of(tmp_path, "import sys; sys.executable"), JUPYTER_PATH=str(tmp_path))
    assert run.returncode == 0, run.stderr[-3000:]
    (cell,) = nbformat.read(tmp_path / "work" / "short.ipynb", as_version=4).cells
    assert cell.outputs[0].data["text/plain"] == repr(sys.executable)
    assert not cell.metadata


def test_a_notebook_that_fails_is_not_stored(execute, tmp_path):
    path = notebook_of(tmp_path, "assert 1 > 2, 'as claimed'")
    run = execute(path)
    assert run.returncode
    assert "as claimed" in run.stderr
    assert (tmp_path / "work" / path.name).read_bytes() == path.read_bytes()


def test_it_is_stored_as_one_run_in_order(cells):
    """Catches cells that were run by hand, twice, out of order or not at all."""
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_it_is_stored_with_pictures_and_without_errors_or_warnings(cells):
    shown = outputs(cells, "display_data") + outputs(cells, "execute_result")
    assert any("image/png" in output.data for output in shown)
    assert not outputs(cells, "error")
    assert all(output.name == "stdout" for output in outputs(cells, "stream"))


def test_it_ends_in_a_cell_that_asserts(cells):
    """Catches claims that nothing checks."""
    last = ast.parse(source(cells[-1]))
    assert any(isinstance(node, ast.Assert) for node in ast.walk(last))


def test_it_is_short(cells):
    assert sum(map(lines, cells)) < 150


def test_its_code_parses_as_a_whole(cells):
    """Catches a cell that only ever worked in an editor."""
    compile("\n".join(map(source, cells)), "tutorial", "exec")


def test_it_is_small_and_says_nothing_of_the_machine_that_ran_it(path):
    """Catches homes, temporary folders and addresses in outputs, and times in metadata."""
    assert path.stat().st_size < 1.5e6
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        assert not cell["metadata"]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    assert not re.search(r"/(home|root|tmp|Users|work|usr|opt)/| at 0x[0-9a-f]+", str(notebook))
    assert not {"version", "codemirror_mode"} & notebook["metadata"]["language_info"].keys()


def test_the_readme_names_it(path):
    assert path.name in (ROOT / "README.md").read_text()


def test_there_are_tutorials():
    """Catches a folder that moved, with which every test above would be empty."""
    assert NOTEBOOKS
