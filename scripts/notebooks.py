"""Write docs/notebooks/*.ipynb from examples/notebooks/*.py: `just notebooks [NAME …]`; a minute each on one core.

The scripts are in the percent format: `# %%` begins a cell, `# %% [markdown]` one of text. Each runs in a kernel of its
own, in an empty folder with an empty cache, offline. Outputs are kept without times, paths and what a library says on
stderr.
"""

import argparse
import base64
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS, NOTEBOOKS = ROOT / "examples" / "notebooks", ROOT / "docs" / "notebooks"
NAMES = ("first_audit", "trl_run", "plan_and_retrain", "papers_figures")
"""In the order in which they are read."""
_MARK = re.compile(r"^# %%(?P<kind> \[markdown\])?(?: tags=\[(?P<tags>.*)\])?$", re.M)


def cells(text: str) -> list[dict[str, Any]]:
    r"""The cells of a script: kind, source and tags.

    Example:
        >>> cells("# %% [markdown]\n# # Title\n\n# %%\n1 + 1\n")
        [{'kind': 'markdown', 'source': '# Title', 'tags': []}, {'kind': 'code', 'source': '1 + 1', 'tags': []}]
    """
    marks = [*_MARK.finditer(text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        source = text[mark.end() : end].strip("\n")
        if mark["kind"]:
            source = re.sub(r"^# ?", "", source, flags=re.M)
        tags = re.findall(r'"(.*?)"', mark["tags"] or "")
        found.append({"kind": "markdown" if mark["kind"] else "code", "source": source, "tags": tags})
    return found


def notebook(text: str) -> Any:
    """The script as a notebook without outputs."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for place, cell in enumerate(cells(text)):
        new = nbformat.v4.new_markdown_cell if cell["kind"] == "markdown" else nbformat.v4.new_code_cell
        made.cells.append(
            new(cell["source"], id=f"cell-{place}", metadata={"tags": cell["tags"]} if cell["tags"] else {})
        )
    return made


def executed(text: str) -> Any:
    """The script as a notebook with the outputs of a run; a cell fails only where its tag is raises-exception."""
    made = notebook(text)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, _environment(folder)):
        NotebookClient(made, timeout=600, resources={"metadata": {"path": folder}}).execute()
    made.metadata.pop("language_info", None)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for data in (output.data for output in cell.outputs if "data" in output):
                if "image/png" in data:
                    data["image/png"] = _of_few_colours(data["image/png"])
    return made


def _of_few_colours(picture: str) -> str:
    """The same with 64 colours: a third of the bytes, and nothing that an eye misses in a chart."""
    small = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(64).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _environment(folder: str) -> dict[str, str]:
    plain = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return {**plain, "PREFDYN_CACHE": f"{folder}/cache", "IPYTHONDIR": f"{folder}/ipython"}


def main() -> None:
    """Write those that are named; all of them without a name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    for name in parser.parse_args().names:
        made = executed((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
        nbformat.write(made, NOTEBOOKS / f"{name}.ipynb")
        print(f"{name}: {(NOTEBOOKS / f'{name}.ipynb').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
