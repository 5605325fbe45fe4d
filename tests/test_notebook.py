"""The tutorial as a notebook: it has the page's cells, and runs in a kernel of its own."""

from __future__ import annotations

import os

import pytest
from documents import DOCS, ROOT, quickened

jupytext = pytest.importorskip("jupytext", reason='notebooks are not run: pip install -e ".[docs]"')
nbclient = pytest.importorskip("nbclient", reason='notebooks are not run: pip install -e ".[docs]"')
PAGE, NOTEBOOK = DOCS / "own-environment.md", DOCS / "own-environment.ipynb"


def test_the_notebook_is_the_page():
    page, notebook = jupytext.read(PAGE), jupytext.read(NOTEBOOK)
    expected = [(cell.cell_type, cell.source) for cell in page.cells]
    found = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert found == expected, f"scripts/notebook makes {NOTEBOOK.name} anew"


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = jupytext.read(NOTEBOOK)
    for cell in notebook.cells:
        cell.source = quickened(cell.source)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("PlannerAgent" in text for text in printed)
