"""The notebooks run as they are kept, without a network."""

import pytest
from pages import ROOT

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
from documents import notebooks  # noqa: E402 - they need what may be missing

FILES = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def test_each_is_kept_with_what_it_shows():
    assert {path.stem for path in FILES} == notebooks.CELLS.keys()
    for path in FILES:
        kept = nbformat.read(path, as_version=4)
        sources = [cell.source for cell in kept.cells]
        assert sources == [*notebooks.CELLS[path.stem]], "run `python tools/docs.py notebooks`"
        assert any(cell.get("outputs") for cell in kept.cells)
        assert not [cell for cell in kept.cells if "Traceback" in str(cell.get("outputs"))]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", notebooks.CELLS)
def test_a_notebook_runs(name):
    notebooks.run(notebooks.make_notebook(name))
