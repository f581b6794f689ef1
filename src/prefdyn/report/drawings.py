"""Pictures that matplotlib alone draws: as files, and as addresses that hold the whole picture."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from prefdyn._files import atomic_write
from prefdyn.report.figures import drawing_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One picture that matplotlib alone draws, for the page and as files."""

    id: str
    """Fixed, never from data; also the name of its files."""
    title: str
    caption: str
    draw: Callable[[], Figure]


def picture(drawing: Drawing) -> dict[str, Any]:
    """What the page needs of a drawing."""
    return {"id": drawing.id, "title": drawing.title, "caption": drawing.caption, "src": _source(drawing)}


def write_drawings(drawn: Sequence[Drawing], folder: Path) -> list[Path]:
    """Every picture as an SVG and a PNG file."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for drawing in drawn:
        for kind, raw in drawing_bytes(drawing.draw).items():
            path = folder / f"{drawing.id}.{kind}"
            atomic_write(path, raw)
            written.append(path)
    return written


def _source(drawing: Drawing) -> str:
    """The picture as a data address: SVG, or PNG where that is smaller."""
    raw = drawing_bytes(drawing.draw)
    kind = min(raw, key=lambda name: len(raw[name]))
    media = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{media};base64,{base64.b64encode(raw[kind]).decode()}"
