"""The one style of all figures, and saving them."""

from __future__ import annotations

import functools
import io
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.figure import Figure

from manas_lite.runs.checkpoint import write_atomic

P = ParamSpec("P")

# Okabe and Ito, "Color universal design", 2008
BLACK, GREY = "#000000", "#999999"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

MODULE_COLOURS = {"parallel": BLUE, "fusion": ORANGE}  # dark and light: told apart in grey as well
OPERATION_COLOURS = {
    "none": GREY,
    "skip_connect": BLACK,
    "sep_conv_3x3": BLUE,
    "dil_conv_3x3": SKY,
    "sep_conv_3x3_spatial": GREEN,
    "dil_conv_3x3_spatial": YELLOW,
    "SE": VERMILION,
    "SE_A_M": PURPLE,
    "CBAM": ORANGE,
}
CYCLE = (PURPLE, GREEN, VERMILION, SKY, YELLOW, BLUE, ORANGE)


def colour_of(name: str) -> str:
    """The colour of a module or an operation. One that is not published always gets the same one of CYCLE."""
    known = MODULE_COLOURS | OPERATION_COLOURS
    return known.get(name, CYCLE[zlib.crc32(name.encode()) % len(CYCLE)])


STYLE: Any = {
    "axes.grid": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters everywhere
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "savefig.dpi": 150,
    "svg.hashsalt": "manas_lite",  # ids of an SVG are then the same each time
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
_UNDATED = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class Drawing(Figure):
    """A Figure that a notebook shows as the value of a cell, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="png", metadata=_UNDATED["png"])
        return buffer.getvalue()


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this kit's style, leaving the caller's as it was."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def save(figure: Figure, path: str | os.PathLike[str], also: Sequence[str] = ()) -> tuple[Path, ...]:
    """Write a figure as PNG, SVG or PDF, by the ending of `path`, and in the formats `also` beside it.

    Each file is written whole or not at all, and equal figures give equal bytes: no date is stored. Folders
    are made as needed. Returns the paths. Raises ValueError for another ending.

    >>> save(draw.architecture(genotype), "runs/demo/genotype.png", also=("svg",))     # doctest: +SKIP
    """
    path = Path(path)
    targets = tuple(dict.fromkeys((path, *(path.with_suffix(f".{kind.lstrip('.')}") for kind in also))))
    for target in targets:
        if target.suffix[1:].lower() not in _UNDATED:
            raise ValueError(f"cannot save a figure as {target.name!r}: use {', '.join('.' + k for k in _UNDATED)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for target in targets:
        _write(figure, target)
    return targets


def _write(figure: Figure, path: Path) -> None:
    kind = path.suffix[1:].lower()
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format=kind, metadata=_UNDATED[kind])
    write_atomic(path, content.getvalue())
