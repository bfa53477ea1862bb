"""The network as lanes: one per branch, searched modules as boxes across them, attention blocks on them.

`architecture` draws one architecture, `mixture` a relaxed network. They share the lanes and differ in what fills a box.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from manas_lite.draw.style import BLACK, GREY, Drawing, colours_of, luminance, styled
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.space import SearchSpace

UNIT = 0.42  # inches per unit of the drawing
ROW, TWO_LINES = 0.46, 0.82  # units a searched edge takes in an attention block, by the lines of its text
MODULE, BLOCK = 0.8, 3.4  # units, widths of a module and of an attention block (with the space after it)
GAP, TURN = 0.25, 1.1  # units between modules, and for a transition to one more branch
SMALL = 9.0  # points: 10 pixels where a page shows the `teach` space 800 pixels wide
LONGEST = 12  # letters of a line that fit an attention block at that size
THICK = 6.0  # points of a line of weight 1
KEY = {"parallel": "parallel: a residual block on each branch", "fusion": "fusion: all branches to all"}

ModulePainter = Callable[[Axes, int, float, Sequence[float]], None]  # row of alpha, x, lanes
EdgePainter = Callable[[Axes, int, float, float], None]  # row of beta, x, y


@styled
def architecture(genotype: Genotype) -> Figure:
    """Draw one architecture: P for a parallel module, F for a fusion module, an operation on each attention edge.

    A module of your own has a letter and a colour of its own, but no lines: what it connects is not known here. Every
    box and edge carries an id (`module:3:fusion`, `edge:5:SE`: row of alpha or beta, then the choice), also in an SVG.
    """
    space = genotype.space
    colours, letters = colours_of((*space.modules, *space.operations)), _letters(space.modules)
    names = {name: _lines(name) for name in space.operations}

    def paint_module(axes: Axes, row: int, x: float, lanes: Sequence[float]) -> None:
        name = genotype.modules[row]
        ink = "white" if luminance(colours[name]) < 0.4 else BLACK
        _box(axes, x, lanes, colours[name]).set_gid(f"module:{row}:{name}")
        for start, end in _paths(name, lanes) if name in PUBLISHED_MODULES else ():
            axes.plot([x + 0.15, x + MODULE - 0.15], [start, end], color=ink, lw=1.2, solid_capstyle="butt")
        axes.text(x + MODULE / 2, lanes[0] + 0.55, letters[name], ha="center", va="bottom", weight="bold")

    def paint_edge(axes: Axes, row: int, x: float, y: float) -> None:
        name = genotype.edges[row]
        colour = GREY if name == "none" else BLACK
        size = SMALL * min(1, LONGEST / max(map(len, names[name].split("\n"))))
        text = axes.text(x + 0.85, y, names[name], va="center", size=size, color=colour, linespacing=1.05)
        text.set_gid(f"edge:{row}:{name}")

    key = [Patch(color=colours[name], label=f"{letters[name]}  {KEY.get(name, name)}") for name in space.modules]
    height = TWO_LINES if any("\n" in names[name] for name in genotype.edges) else ROW
    return _network(space, paint_module, paint_edge, f"Architecture {genotype.id}", key, height)


@styled
def mixture(alpha_weights: Any, beta_weights: Any, space: SearchSpace) -> Figure:
    """Draw a relaxed network: the thickness of a line is the weight of its choice.

    The strokes of an attention edge stand in the order of `space.operations`, and those of modules of your own beside
    each lane. Every line carries an id (`module:3:fusion`, `edge:5:SE`).

    Args:
        alpha_weights: (modules, candidate modules), in the order of `space.modules`.
        beta_weights: (edges, operations), in the order of `space.operations`. Both are tensors, arrays or lists of
            softmax weights, not logits: each row sums to 1.
        space: the search space.
    """
    alpha = _weights(alpha_weights, (len(space.module_branches), len(space.modules)), "alpha_weights")
    beta = _weights(beta_weights, (len(space.edge_branch), len(space.operations)), "beta_weights")
    colours, letters = colours_of((*space.modules, *space.operations)), _letters(space.modules)
    own = [name for name in space.modules if name not in PUBLISHED_MODULES]
    beside = dict(zip(own, np.linspace(-0.26, 0.26, max(2, len(own))), strict=False))  # below and above the lane

    def paint_module(axes: Axes, row: int, x: float, lanes: Sequence[float]) -> None:
        _box(axes, x, lanes, "white")
        for name, weight in zip(space.modules, alpha[row], strict=True):
            paths = [(y + beside[name],) * 2 for y in lanes] if name in beside else _paths(name, lanes)
            for start, end in paths:
                xs = [x + 0.1, x + MODULE - 0.1]
                line = axes.plot(xs, [start, end], color=colours[name], lw=THICK * weight)[0]
                line.set(gid=f"module:{row}:{name}", solid_capstyle="butt")
        leader = letters[space.modules[int(alpha[row].argmax())]]
        label = f"{leader} {alpha[row].max():.2f}".replace("0.", ".")
        axes.text(x + MODULE / 2, lanes[0] + 0.55, label, ha="center", va="bottom", size=SMALL)

    def paint_edge(axes: Axes, row: int, x: float, y: float) -> None:
        places = np.linspace(x + 0.8, x + BLOCK - GAP - 0.3, len(space.operations))
        for place, name, weight in zip(places, space.operations, beta[row], strict=True):
            line = axes.plot([place] * 2, [y - 0.13, y + 0.13], color=colours[name], lw=THICK * weight)[0]
            line.set(gid=f"edge:{row}:{name}", solid_capstyle="butt")

    names = (*space.modules, *(space.operations if space.attention else ()))
    key = [Line2D([], [], color=colours[name], lw=3, label=name) for name in names]
    return _network(space, paint_module, paint_edge, "Relaxed network: thickness is weight", key, ROW)


def _network(
    space: SearchSpace,
    paint_module: ModulePainter,
    paint_edge: EdgePainter,
    title: str,
    key: list[Any],
    height: float,
) -> Figure:
    """Draw the lanes from left to right; `paint_module` and `paint_edge` fill what is searched, row by row.

    `height` is that of a searched edge, in units.
    """
    pitch = max(1.5, height * space.edges_per_block + 0.55) if space.attention else 1.5
    lanes = [-pitch * branch for branch in range(len(space.channels))]
    cell_width = TURN + space.modules_per_cell * (MODULE + GAP) + (BLOCK + GAP if space.attention else 0)
    left, right = -2.4, 1.6 + len(space.cells) * cell_width + 5.4
    columns = min(len(key), max(1, int((right - left) / 5.4)))  # of the legend
    top, bottom = lanes[0] + max(1.6, pitch / 2 + 1), lanes[-1] - pitch / 2 - 0.9 - 0.5 * -(-len(key) // columns)
    figure = Drawing(figsize=((right - left) * UNIT, (top - bottom) * UNIT))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    axes.text(left + 0.2, top - 0.1, title, va="top", weight="bold", size=9)
    axes.legend(handles=key, loc="lower left", ncols=columns, handlelength=1.2, columnspacing=1.2, fontsize=8.5)
    if space.attention:
        formula = r"each attention edge $o_{k,j}$:  $U_k = o_{k,0}(F_k) + \Sigma_{j=1}^k\, o_{k,j}(U_{j-1})$"
        groups = rf"$F_0 \ldots F_{{{space.groups - 1}}}$ are the branch's channel groups"
        axes.text(left + 0.2, lanes[-1] - pitch / 2 - 0.5, f"{formula},  {groups}", va="center", size=SMALL)

    _label(axes, 0, lanes[0], "stem")
    x, module, edge = 1.6, 0, 0
    born = [0.6] + [0.0] * (len(lanes) - 1)
    for branches in space.cells:
        new = branches - 1
        axes.plot([x - 0.1, x + 0.7], lanes[new - 1 : new + 1], color=BLACK, lw=0.8, zorder=1)
        born[new] = x + 0.7
        x += TURN
        for _ in range(space.modules_per_cell):
            paint_module(axes, module, x, lanes[:branches])
            module, x = module + 1, x + MODULE + GAP
        for branch in range(branches if space.attention else 0):
            edge = _attention(axes, space, edge, x, lanes[branch], paint_edge, height)
        x += BLOCK + GAP if space.attention else 0
    for branch, lane in enumerate(lanes):
        axes.plot([born[branch], x], [lane, lane], color=BLACK, lw=0.8, zorder=1)
        axes.plot([x, x + 0.9], [lane, lanes[0]], color=BLACK, lw=0.8, zorder=1)
        scale = space.scale * 2**branch
        size = "full size" if scale == 1 else f"1/{scale} size"
        text = f"branch {branch}\n{size}\n{space.channels[branch]} channels"
        axes.text(left + 0.2, lane, text, va="center", size=SMALL)
    axes.plot([x + 0.9, x + 2.6], [lanes[0]] * 2, color=BLACK, lw=0.8, zorder=1)
    _label(axes, x + 0.95, lanes[0], "fusion")
    result = "rainy − output\n= derained" if space.residual else "derained"
    axes.text(x + 2.7, lanes[0], result, va="center", size=SMALL)
    return figure


def _attention(
    axes: Axes, space: SearchSpace, row: int, x: float, lane: float, paint_edge: EdgePainter, height: float
) -> int:
    """Draw an attention block on its lane, `height` for each edge o_{k,j}; return the row of beta after it."""
    half = height * space.edges_per_block / 2
    style: dict[str, Any] = {"boxstyle": "round,pad=0.08", "fc": "white", "ec": BLACK, "lw": 0.7, "zorder": 2}
    axes.add_patch(FancyBboxPatch((x, lane - half), BLOCK - GAP, 2 * half, **style)).set_gid(f"attention:{row}")
    places = [(k, j) for k in range(space.groups) for j in range(k + 1)]
    for number, (k, j) in enumerate(places):
        y = lane + half - height * (number + 0.5)
        axes.text(x + 0.05, y, f"$o_{{{k},{j}}}$", va="center", size=SMALL)
        paint_edge(axes, row + number, x, y)
    return row + len(places)


def _paths(name: str, lanes: Sequence[float]) -> list[tuple[float, float]]:
    """Return the lanes that a published module connects: `parallel` each to itself, `fusion` each to the others."""
    return [(a, b) for a in lanes for b in lanes if (a == b) == (name == "parallel")]


def _lines(name: str) -> str:
    """Return a name in one line, or broken at that underscore which leaves the shorter lines."""
    breaks = [k for k, letter in enumerate(name) if letter == "_" and k]
    if len(name) <= LONGEST or not breaks:
        return name
    best = min(reversed(breaks), key=lambda k: max(k, len(name) - k))
    return f"{name[:best]}\n{name[best:]}"


def _letters(modules: Sequence[str]) -> dict[str, str]:
    """Return a sign for each module: the first letter of its name that no module before it has, else a number."""
    letters: dict[str, str] = {}
    for number, name in enumerate(sorted(modules, key=lambda name: name not in PUBLISHED_MODULES), start=1):
        free = [letter for letter in name.upper() if letter.isalpha() and letter not in letters.values()]
        letters[name] = (free or [str(number)])[0]
    return letters


def _box(axes: Axes, x: float, lanes: Sequence[float], colour: str) -> FancyBboxPatch:
    height = lanes[0] - lanes[-1] + 0.8
    style: dict[str, Any] = {"boxstyle": "round,pad=0.05", "fc": colour, "ec": BLACK, "lw": 0.7, "zorder": 2}
    patch = FancyBboxPatch((x, lanes[-1] - 0.4), MODULE, height, **style)
    axes.add_patch(patch)
    return patch


def _label(axes: Axes, x: float, lane: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.25", "fc": "#EEEEEE", "ec": BLACK, "lw": 0.7}
    axes.text(x + 0.6, lane, text, ha="center", va="center", bbox=box, zorder=3)


def _weights(values: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    """Return weights as an array, and refuse what cannot be weights, so that logits are not drawn for them."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float64)
    array = array.reshape(shape) if array.size == 0 and 0 in shape else array
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, the space has {shape}")
    if not (np.isfinite(array).all() and (array >= 0).all() and np.allclose(array.sum(1), 1, atol=1e-3)):
        raise ValueError(f"{name}: rows must be weights that sum to 1; pass softmax(logits), not the logits")
    return array
