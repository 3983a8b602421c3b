"""Each tutorial runs as a notebook in an empty folder; its own asserts look at what it finds.

DEEPKNN_NOTEBOOKS=DIR keeps the notebooks there, for the site (docs/site/hooks.py).
"""

import os
from pathlib import Path

import pytest
from support.optional import require
from support.runs import ROOT

TUTORIALS = ("folder_to_report", "features_in_scikit_learn", "own_loop", "new_class")


def test_all_are_run():
    assert {path.stem for path in (ROOT / "docs/tutorials").glob("*.py")} == {*TUTORIALS}


@pytest.mark.docs
@pytest.mark.filterwarnings("default")  # of Jupyter, whose process is not this one
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name, tmp_path, monkeypatch):
    jupytext, nbclient, _ = require("jupytext"), require("nbclient"), require("ipykernel")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as a reader has
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = jupytext.read(ROOT / f"docs/tutorials/{name}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    if folder := os.environ.get("DEEPKNN_NOTEBOOKS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        jupytext.write(notebook, Path(folder) / f"{name}.ipynb")
