"""The course's own pictures; those of networks, searches and photographs are in `manas_lite.draw`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from manas_course.toy import START, Path
from manas_lite.draw.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, Drawing, styled

__all__ = ["bars", "forest", "phase_plane", "profile", "scatter"]

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
MARKS = "osD^vP"
BESIDE = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
"""Sides of a point where its name can stand, (right, up), the first ones preferred."""


@styled
def phase_plane(paths: Sequence[Path]) -> Figure:
    """Draw the toy's plane: contours of L_val, the line of best weights w = a, and where each descent went."""
    figure = Drawing(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    w, a = np.meshgrid(np.linspace(-2.4, 3, 160), np.linspace(-0.6, 4.3, 160))
    contours = axes.contour(w, a, a * w - 2 * a + 1, levels=np.arange(-14, 8), colors=GREY, linewidths=0.5)
    axes.clabel(contours, fontsize=6, fmt="%g")
    axes.plot([-0.4, 3], [-0.4, 3], color=BLACK, lw=0.8, ls="--", label="best weights, w = a")
    lines = ("-", "-", (0, (3, 3)), ":")  # of two paths one upon the other, both are seen
    for path, colour, mark, line in zip(paths, COLOURS, MARKS, lines, strict=False):
        inside = np.clip(path.points, [-2.4, -0.6], [3, 4.3])
        label = f"{path.label}: ends at ({path.end[0]:.2f}, {path.end[1]:.2f})"
        axes.plot(*inside.T, color=colour, ls=line, lw=2, marker=mark, markersize=3, markevery=8, label=label)
        axes.plot(*inside[-1], marker=mark, markersize=8, color=colour, mec=BLACK)
    axes.plot(*START, marker="x", color=BLACK)
    axes.annotate("start", START, xytext=(-2, -13), textcoords="offset points")  # below all paths that leave it
    axes.plot(1, 1, marker="*", markersize=13, color="white", mec=BLACK, zorder=5)
    axes.annotate("the true optimum", (1, 1), xytext=(8, -12), textcoords="offset points")
    axes.set(xlabel="w, the weight", ylabel="a, the architecture", title="contours: validation loss a w − 2 a + 1")
    axes.legend(loc="lower left", frameon=True, framealpha=1, edgecolor="none")
    return figure


@styled
def bars(values: Mapping[str, float], *, title: str, unit: str, start: float = 0.0) -> Figure:
    """Draw a horizontal bar per name, each with its number, from `start`; all numbers have as many decimals."""
    figure = Drawing(figsize=(6.6, 0.34 * len(values) + 0.7), layout="constrained")
    axes = figure.subplots()
    names = list(values)
    places = np.arange(len(names))[::-1]
    sizes = [values[name] for name in names]
    low, high = min(start, *sizes), max(start, *sizes)
    largest = max((abs(size) for size in sizes), default=0.0)
    whole = all(float(size).is_integer() for size in sizes)
    decimals = 0 if whole or not largest else max(0, 3 - int(np.floor(np.log10(largest))))
    axes.barh(places, [size - start for size in sizes], left=start, color=BLUE, height=0.6)
    if low < start:
        axes.axvline(start, color=BLACK, lw=0.6)
        low -= 0.15 * (high - low)
    for place, size in zip(places, sizes, strict=True):
        axes.annotate(
            f"{size:z,.{decimals}f}", (max(size, start), place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set(yticks=places, yticklabels=names, title=title, xlabel=unit, xlim=(low, high + 0.15 * (high - low or 1)))
    return figure


@styled
def scatter(
    points: Mapping[str, tuple[float, float]],
    *,
    x: str,
    y: str,
    title: str,
    among: tuple[Any, Any, Any] | None = None,
) -> Figure:
    """Draw named points (x, y), such as PSNR against parameters. Few names stand at the points, many in a legend.

    Args:
        points: each by its name. Where they lie on each other, the first is on top.
        x: the label of the horizontal axis.
        y: the label of the vertical axis.
        title: what stands above.
        among: xs, ys and shades of small points without names, behind the others; a larger shade is darker.
    """
    figure = Drawing(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    if among is not None:
        xs, ys, shades = (np.asarray(each, dtype=float) for each in among)
        axes.scatter(xs, ys, c=shades, cmap="Blues", s=8, zorder=1, vmin=shades.min() - 0.4 * (np.ptp(shades) or 1))
    crowded = len(points) > len(MARKS)
    for number, (name, point) in enumerate(points.items()):
        turn, place = divmod(number, len(MARKS))
        colour, mark = COLOURS[place], (MARKS, MARKS, "x+1234")[turn % 3][place]
        filled = colour if turn == 0 else "white"  # the second round of marks is hollow, the third has lines alone
        edge = BLACK if turn == 0 else colour
        look: dict[str, Any] = {"mfc": filled, "mec": edge, "mew": 0.4 if edge == BLACK else 1.2}
        axes.plot(*point, mark, color=colour, label=name, zorder=3 - number / len(points), **look)
    axes.margins(0.18)
    axes.set(xlabel=x, ylabel=y, title=title)
    if crowded:
        figure.legend(loc="outside right center")
    else:
        dots = [*points.values(), *(zip(xs, ys, strict=True) if among is not None else ())]
        figure.draw_without_rendering()  # the layout decides where points lie on the page
        name_points(axes, points, dots)
    return figure


def name_points(axes: Axes, points: Mapping[str, tuple[float, float]], dots: Sequence[tuple[float, float]]) -> None:
    """Write each name beside its point, where it covers the fewest dots and no other name."""
    seen, frame = axes.transData.transform(dots), axes.get_window_extent()
    taken: list[Bbox] = []
    for name, point in points.items():
        best: tuple[float, Annotation, Bbox] | None = None
        for right, up in BESIDE:
            place: dict[str, Any] = {
                "ha": ("right", "center", "left")[right + 1],
                "va": ("top", "center", "bottom")[up + 1],
            }
            text = axes.annotate(name, point, xytext=(7 * right, 7 * up), textcoords="offset points", **place)
            box = text.get_window_extent().padded(2)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            covers = sum(box.contains(*dot) for dot in seen) + 1000 * (outside + sum(map(box.overlaps, taken)))
            if best is None or covers < best[0]:
                if best is not None:
                    best[1].remove()
                best = covers, text, box
            else:
                text.remove()
        assert best is not None
        taken.append(best[2])


@styled
def profile(curves: Mapping[str, Any], *, x: str, y: str, title: str) -> Figure:
    """Draw lines over a common axis: name -> (xs, ys)."""
    figure = Drawing(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, (xs, ys)) in enumerate(curves.items()):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        axes.plot(xs, ys, color=colour, marker=mark, markersize=3, markevery=max(1, len(xs) // 12), label=name)
    if all(float(value).is_integer() for xs, _ in curves.values() for value in xs):
        axes.locator_params(axis="x", integer=True)
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend()
    return figure


@styled
def forest(rows: Sequence[Mapping[str, Any]], *, title: str, reference: str = "the full method") -> Figure:
    """Draw an ablation: each arm's difference in dB, its interval, what is mostly missed, and the verdict.

    Args:
        rows: mappings with arm, mean, low, high, detectable, verdict, parameters, as `differences.compare` makes them.
        title: what stands above.
        reference: what the arms differ from.
    """
    figure = Drawing(figsize=(7.0, 0.42 * len(rows) + 1.1), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    colours = {"better": GREEN, "worse": VERMILION, "equivalent": BLUE, "undecided": GREY}
    reach = 1.6 * max(
        1e-3, *(abs(row[key]) for row in rows for key in ("mean", "low", "high") if np.isfinite(row[key]))
    )
    for place, row in zip(places, rows, strict=True):
        band, colour = row["detectable"], colours[row["verdict"]]
        said = row["verdict"]
        if np.isfinite(band):  # a single search has neither band nor interval
            seen = min(band, 0.97 * reach)
            axes.fill_betweenx([place - 0.38, place + 0.38], -seen, seen, color="#EEEEEE", lw=0)
            axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
            if seen < band:  # the band goes on: an arrow at either side, and its size in words
                for mark, side in (("<", -1), (">", 1)):
                    axes.plot(side * seen, place, mark, color=GREY, markersize=4, clip_on=False)
                said += f" (band ±{band:.1f} dB)"
        axes.plot(row["mean"], place, "o", color=colour, mec=BLACK, mew=0.5)
        axes.text(1.02, place, said, transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(0, color=BLACK, lw=0.8)
    labels = [f"{row['arm']}  ({row['parameters']:,.0f} parameters)" for row in rows]
    axes.set(yticks=places, yticklabels=labels, xlim=(-reach, reach), title=title)
    axes.set_xlabel(f"difference to {reference}, dB\n(grey band: differences that so few searches mostly miss)")
    return figure
