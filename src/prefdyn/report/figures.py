"""Pictures as SVG, PNG and PDF files, the same bytes each time, and as addresses that hold a whole picture."""

import base64
import contextlib
import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from prefdyn._files import atomic_write
from prefdyn._typed import Style
from prefdyn.errors import StoreError
from prefdyn.picture import Picture
from prefdyn.report.charts import CHARTS
from prefdyn.report.plots import PLOTS
from prefdyn.report.sheet import DPI, SETTINGS, untitled

Format = Literal["svg", "png", "pdf"]
STYLES: Mapping[Style, tuple[Format, ...]] = {"screen": ("svg", "png"), "paper": ("svg", "pdf")}
"""Formats of the files, by style; those of a paper have no titles."""


def write_figures(
    pictures: Iterable[Picture],
    folder: str | Path,
    *,
    formats: Sequence[Format] = ("svg", "png"),
    titled: bool = True,
) -> list[Path]:
    """Draw every picture into a folder, one file per format, named by the picture's id.

    Args:
        pictures: As `panels(read_folder(…))` gives them, or a recipe.
        folder: Made if missing. Names of files never come from data.
        formats: Of the files.
        titled: Whether each has its title drawn in; without, its edges are cut to what is drawn.

    Returns:
        The paths written, in order.

    Raises:
        StoreError: The folder cannot be made, or a file in it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror or error}); give another folder") from error
    written = []
    for picture in pictures:
        for kind, raw in figure_bytes(picture, formats=formats, titled=titled).items():
            path = folder / f"{picture.id}.{kind}"
            atomic_write(path, raw)
            written.append(path)
    return written


def figure_bytes(
    picture: Picture, *, formats: Sequence[Format] = ("svg", "png"), titled: bool = True
) -> dict[Format, bytes]:
    """One picture as the bytes of its files, by format."""
    mark, found, figure = hashlib.sha256(pickle.dumps((picture, titled))).digest(), dict[Format, bytes](), None
    for kind in formats:
        if (mark, kind) not in _KEPT:
            figure = figure or figure_of(picture)
            with matplotlib.rc_context(SETTINGS):
                _KEPT[mark, kind] = _WRITE[kind](figure) if titled else _cut(figure, kind)
        found[kind] = _KEPT[mark, kind]
    while len(_KEPT) > _KEEP:
        _KEPT.popitem(last=False)
    return found


def figure_of(picture: Picture) -> Figure:
    """One picture as a matplotlib figure."""
    with matplotlib.rc_context(SETTINGS):
        if picture.draw:
            return picture.draw()
        return PLOTS[picture.plots[0].kind](picture) if picture.plots else CHARTS[picture.kind](picture)


def address(picture: Picture, formats: Sequence[Format] = ("svg", "png")) -> str:
    """The picture as a data address: as the first of the formats where that is small, else as the smallest of them."""
    first = figure_bytes(picture, formats=formats[:1])
    small = len(first[formats[0]]) < _SMALL
    return smallest(first if small else figure_bytes(picture, formats=formats))


@contextlib.contextmanager
def _light_fonts() -> Iterator[None]:
    """Fonts go into a PDF without the tables by which letters would be placed anew: in a PDF they have their places.

    To cut those tables down to the letters used takes half of the time of a drawing.
    """
    from fontTools import subset  # as matplotlib does where a PDF is asked for

    given = subset.Options

    def lighter(**chosen: Any) -> subset.Options:
        options = given(**chosen)
        options.drop_tables += ["GDEF", "GPOS", "GSUB", "MATH", "kern"]
        return options

    subset.Options = lighter
    try:
        yield
    finally:
        subset.Options = given


def smallest(raw: Mapping[Format, bytes]) -> str:
    """The data address of the smallest of these files."""
    kind = min(raw, key=lambda name: len(raw[name]))
    media = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{media};base64,{base64.b64encode(raw[kind]).decode()}"


_SMALL = 60_000
"""Bytes of a drawing for which no smaller form is tried."""
_KEEP = 64
_KEPT: OrderedDict[tuple[bytes, Format], bytes] = OrderedDict()
"""The last drawings by content and format: a page asks for those that were just written as files."""


_UNDATED: Mapping[Format, Mapping[str, None]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What would differ from day to day or from version to version, left out of the files."""


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=_UNDATED["svg"])
    return _shorter(buffer.getvalue())


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata=_UNDATED["png"], pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


@_light_fonts()
def _pdf(figure: Figure) -> bytes:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # a third of a second, and seldom asked for

    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        FigureCanvasPdf(figure).print_pdf(buffer, metadata=_UNDATED["pdf"])
    return buffer.getvalue()


def _cut(figure: Figure, kind: Format) -> bytes:
    """Without its title, and with no more room around than what is drawn needs."""
    untitled(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata=_UNDATED[kind], bbox_inches="tight", pad_inches=0.04)
    return _shorter(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _shorter(svg: bytes) -> bytes:
    """The same drawing with two decimals in its paths, which is a hundredth of a point."""
    return re.sub(rb'(?<= d=")[^"<>&]+(?=")', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path.group()), svg)


_WRITE: Mapping[Format, Callable[[Figure], bytes]] = {"svg": _svg, "png": _png, "pdf": _pdf}
