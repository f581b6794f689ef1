"""The notebooks are their scripts, ran to the end, and give again what they show."""

import re

import nbformat
import pytest

from scripts.notebooks import NAMES, NOTEBOOKS, SCRIPTS, cells, executed
from tests.conftest import REPO
from tests.test_tutorial import numbers, words


def kept(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(made):
    return [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(output):
    """What a reader sees of an output, without markup."""
    shown = (
        output.get("text") or output.get("data", {}).get("text/html") or output.get("data", {}).get("text/plain", "")
    )
    return re.sub(r"<style.*?</style>|<[^>]+>", " ", "".join(shown), flags=re.S)


def test_every_script_has_a_notebook_and_a_place_on_the_site():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {path.stem for path in NOTEBOOKS.glob("*")} == set(NAMES)
    listed = re.findall(r"notebooks/(\w+)\.md", (REPO / "mkdocs.yml").read_text())
    assert tuple(listed) == NAMES


def test_a_script_is_cut_at_its_marks():
    script = '# header\n\n# %% [markdown]\n# # Title\n#\n# text\n\n# %% tags=["raises-exception"]\n# a remark\n1 / 0\n'
    assert cells(script) == [
        {"kind": "markdown", "source": "# Title\n\ntext", "tags": []},
        {"kind": "code", "source": "# a remark\n1 / 0", "tags": ["raises-exception"]},
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_the_cells_of_its_script(name):
    wanted = cells((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
    held = [
        {"kind": cell.cell_type, "source": cell.source, "tags": cell.metadata.get("tags", [])}
        for cell in kept(name).cells
    ]
    assert held == wanted
    assert wanted[0]["source"].startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_shows_pictures_and_names_no_machine(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    assert not re.search(r'/(home|root|tmp|work|Users)/|site-packages|"iopub', path.read_text(encoding="utf-8"))
    shown = outputs(kept(name))
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output.get("name") == "stderr" for output in shown)


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_one_line_and_only_where_it_is_meant(name):
    for cell in kept(name).cells:
        failed = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        assert bool(failed) == ("raises-exception" in cell.metadata.get("tags", []))
        assert all(output.traceback == [f"{output.ename}: {output.evalue}"] for output in failed)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_gives_what_it_shows(name):
    before, after = outputs(kept(name)), outputs(executed((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")))
    assert [sorted(output.get("data", {})) for output in before] == [sorted(output.get("data", {})) for output in after]
    for one, other in zip(before, after, strict=True):
        assert words(text_of(other)) == words(text_of(one))
        assert numbers(text_of(other)) == pytest.approx(numbers(text_of(one)), rel=0.05, abs=0.02)
