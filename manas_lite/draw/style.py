"""The one style of all figures, the colours of what can be searched, and saving."""

import functools
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from manas_lite.runs.checkpoint import write_atomic

P = ParamSpec("P")

# Okabe and Ito, "Color universal design", 2008
BLACK, GREY = "#000000", "#999999"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

MODULE_COLOURS = {"parallel": BLUE, "fusion": ORANGE}  # dark and light: told apart in grey as well
OPERATION_LOOKS: dict[str, tuple[str, Any]] = {  # colour and dash: colours near in grey differ in their dash
    "none": (GREY, "--"),
    "skip_connect": (BLACK, "-"),
    "sep_conv_3x3": (BLUE, "--"),
    "dil_conv_3x3": (SKY, "-."),
    "sep_conv_3x3_spatial": (GREEN, "-."),
    "dil_conv_3x3_spatial": (YELLOW, "-"),
    "SE": (VERMILION, ":"),
    "SE_A_M": (PURPLE, "-"),
    "CBAM": (ORANGE, ":"),
}
OWN_LOOKS: tuple[tuple[str, Any], ...] = (  # none of the published ones
    ("#7B3F00", (0, (1, 1))),
    ("#2E8B8B", (0, (6, 1))),
    ("#4B0082", (0, (4, 1, 1, 1, 1, 1))),
    ("#8A9A00", (0, (2, 2))),
    ("#8B0A3D", (0, (1, 1))),
    ("#F4A6A6", (0, (6, 1))),
)


def looks_of(names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return colour and dash of each module or operation: the published ones, else OWN_LOOKS in order."""
    known = {name: (colour, "-") for name, colour in MODULE_COLOURS.items()} | OPERATION_LOOKS
    own = [name for name in names if name not in known]
    return {name: known[name] if name in known else OWN_LOOKS[own.index(name) % len(OWN_LOOKS)] for name in names}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return the colour of each module or operation."""
    return {name: colour for name, (colour, _) in looks_of(names).items()}


def luminance(colour: str) -> float:
    """Return how bright a colour is in grey, from 0 (black) to 1 (white)."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


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
    """A Figure that a notebook shows as the value of a cell, even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        return _encoded(self, "png")


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return a function that draws in this kit's style and leaves the caller's as it was."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def save(figure: Figure, path: str | os.PathLike[str], also: Sequence[str] = ()) -> tuple[Path, ...]:
    """Write a figure as PNG, SVG or PDF, by the ending of `path`, and in the formats `also` beside it.

    Each file is written whole or not at all, and equal figures give equal bytes: no date is stored. Folders are made as
    needed. Returns the paths, and raises ValueError for another ending.

    Example:
        >>> save(draw.architecture(genotype), "runs/demo/genotype.png", also=("svg",))     # doctest: +SKIP
    """
    path = Path(path)
    targets = tuple(dict.fromkeys((path, *(path.with_suffix(f".{kind.lstrip('.')}") for kind in also))))
    for target in targets:
        if target.suffix[1:].lower() not in _UNDATED:
            raise ValueError(f"cannot save a figure as {target.name!r}: use {', '.join('.' + k for k in _UNDATED)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for target in targets:
        write_atomic(target, _encoded(figure, target.suffix[1:].lower()))
    return targets


def _encoded(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format=kind, metadata=_UNDATED[kind])
    return content.getvalue()
