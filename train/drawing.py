"""Look of the pictures, and how they are written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sshr_deploy.atomic import atomic_path

# Okabe and Ito's colours, told apart by colour-blind readers too, without yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK, MUTED = "#222222", "#777777"

_DPI = 110
_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e3e3",
    "lines.linewidth": 1.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sshr-deploy",  # the same picture is the same file
}


@contextmanager
def drawing(path: Path, size_in: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure, written at the end of the block, replacing `path` when it is whole.

    Args:
        path: an SVG where it ends in .svg, else a PNG.
        size_in: width and height, in inches.

    Raises:
        OutputError: the file cannot be written.
    """
    kind = "svg" if path.suffix.lower() == ".svg" else "png"
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in other scripts
        figure = Figure(figsize=size_in, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as partial, partial.open("wb") as file:
            figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
