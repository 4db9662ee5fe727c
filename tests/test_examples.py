"""The notebooks of ``examples/`` run from the first cell to the last, and their commands are those of the pages."""

import json

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


def cells(path, kind):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_short_says_what_it_does_and_shows_a_figure(path):
    assert cells(path, "markdown")[0].startswith("# ")
    assert len("\n".join(cells(path, "code")).splitlines()) <= 90
    assert path.stat().st_size < 200_000
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)
    texts = [output.get("text", "") for output in outputs] + [
        output.get("data", {}).get("text/plain") for output in outputs
    ]
    assert "/tmp/" not in json.dumps(texts)  # a message about the temporary folder of a function


@pytest.mark.examples
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs(path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(book, timeout=240, resources=place).execute()
    printed = [output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])]
    assert not any("Traceback" in text for text in printed)
