"""For the documentation: pages made of notebooks, and MathJax from its package, so that no other server is asked."""

# pyright: reportMissingImports=false
# (mkdocs comes with the docs group alone)

import html
import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_MATHJAX = re.compile(r".*/es5/(?P<name>tex-chtml\.js|output/chtml/fonts/woff-v2/.*)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Called by mkdocs with what lies in docs/: adds MathJax, and for every notebook a page beside it."""
    for path in distribution("django-static-mathjax").files or ():
        if found := _MATHJAX.match(path.as_posix()):
            files.append(File.generated(config, f"mathjax/{found['name']}", abs_src_path=str(path.locate())))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text = Path(str(file.abs_src_path)).read_text(encoding="utf-8")
        files.append(
            File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=page(json.loads(text), file.name))
        )
    return files


def page(notebook: dict[str, Any], name: str) -> str:
    """A notebook as Markdown: its texts, its code, and what each cell gave."""
    head, *rest = notebook["cells"]
    link = f"[This page as a notebook]({name}.ipynb)"
    return "\n\n".join(["".join(head["source"]), link, *(_cell(cell) for cell in rest)]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *(_output(output) for output in cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return f'<div class="output">{_one_block("".join(data["text/html"]))}</div>'
    lines = output.get("traceback") or ["".join(output.get("text") or data.get("text/plain", []))]
    text = _COLOURS.sub("", "\n".join(lines)).rstrip()
    return f'<pre style="white-space: pre-wrap"><code>{html.escape(text)}</code></pre>'


def _one_block(text: str) -> str:
    """Without empty lines, at which Markdown would end the block."""
    return re.sub(r"\n\s*", " ", text)
