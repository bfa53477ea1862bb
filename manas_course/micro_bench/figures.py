"""Pictures of a table of trained architectures: what it holds, how far rankings agree, what searches cost in all.

They are drawn from numbers that the caller hands over, in the style of `manas_lite.draw`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from manas_lite.draw.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Drawing, styled

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE)
DASHES = ("-", "--", "-.", ":")
MARKS = "osD^v"
FEW_RUNS = 10  # that are drawn one by one; more become a band

Runs = Sequence[tuple[Any, Any]]  # (seconds, values) of each run


@styled
def best_so_far(runs: Mapping[str, Runs], *, best: float | None = None, unit: str = "dB") -> Figure:
    """Draw what searches have in hand against what they have spent, with a mean line for each kind of search.

    The mean stands where every run of a kind holds something, up to the end of its longest run. Around it stand the
    runs themselves, thin, where they are few, else the band that holds eight runs of ten.

    Args:
        runs: by the name of the search, its runs, each (seconds, values): a run that stops between `seconds[t]` and the
            next holds a choice worth `values[t]`. Values count from the average architecture, which is the line at 0.
        best: the worth of the best choice there is, for a dotted line.
        unit: of the values.

    Raises:
        ValueError: there are no runs.
    """
    if not runs or not all(len(each) for each in runs.values()):
        raise ValueError("no runs to draw: every name needs at least one (seconds, values)")
    figure = Drawing(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=BLACK, lw=0.6)
    at_edge: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "size": 7}
    axes.annotate("an average architecture", (1, 0), (-2, -9), ha="right", **at_edge)
    if best is not None:
        axes.axhline(best, color=BLACK, lw=0.8, ls=":")
        axes.annotate("the best of the table", (0, best), (2, 3), **at_edge)
    for number, (name, each) in enumerate(runs.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        steps = [(np.asarray(seconds, dtype=float), np.asarray(values, dtype=float)) for seconds, values in each]
        begin, end = max(s[0] for s, _ in steps), max(s[-1] for s, _ in steps)
        time = np.unique(np.concatenate([s for s, _ in steps]))
        time = time[(time >= begin) & (time <= end)]
        time = time[np.unique(np.linspace(0, len(time) - 1, 800).astype(int))]
        held = np.array([v[np.searchsorted(s, time, side="right") - 1] for s, v in steps])
        if len(steps) <= FEW_RUNS:
            for s, v in steps:
                axes.step(s / 60, v, where="post", color=colour, lw=0.7, alpha=0.5).pop().set_gid(f"run:{name}")
        else:
            low, high = np.quantile(held, [0.1, 0.9], axis=0)
            axes.fill_between(time / 60, low, high, step="post", color=colour, alpha=0.15, lw=0)
        label = f"{name} (mean of {len(steps)})"
        line = axes.step(time / 60, held.mean(0), dash, where="post", color=colour, lw=1.8, label=label).pop()
        line.set(gid=f"mean:{name}", marker=MARKS[number % len(MARKS)], markersize=5, markevery=[len(time) - 1])
    axes.set(xscale="log", xlabel="CPU minutes spent in all: searching and every training")
    axes.set(ylabel=f"gain over an average architecture, {unit}", title="best so far against total cost")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=min(3, len(runs)))
    return figure


@styled
def table_map(values: Any, rows: Sequence[str], columns: Sequence[str], *, title: str) -> Figure:
    """Draw a number for every combination of two choices, (rows, columns), as a field of shades with the numbers in it.

    Raises:
        ValueError: the names do not fit the numbers.
        ModuleNotFoundError: the extra `course` is not installed.
    """
    try:
        import seaborn  # of the course's extra, and slow to import: only where it is used
    except ModuleNotFoundError:
        raise ModuleNotFoundError("this map needs an extra: pip install 'manas_lite[course]'") from None
    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"values of shape {values.shape} for {len(rows)} rows and {len(columns)} columns")
    figure = Drawing(figsize=(0.95 * len(columns) + 1.0, 0.3 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    numbers = np.array([[f"{value:+z.2f}" for value in row] for row in values])  # z: never "-0.00"
    look = {"cmap": "cividis", "cbar": False, "annot": numbers, "fmt": "", "annot_kws": {"size": 10}}
    seaborn.heatmap(values, ax=axes, xticklabels=list(columns), yticklabels=list(rows), **look)
    middle = (values.min() + values.max()) / 2
    for text, value in zip(axes.texts, values.flat, strict=True):  # seaborn's own white is hard to read on khaki
        text.set_color("white" if value < middle else BLACK)
    axes.set_title(title)
    axes.set_xticklabels(columns, rotation=30, ha="right")
    axes.set_yticklabels(rows, rotation=0)
    axes.tick_params(length=0, labelsize=9)
    return figure


@styled
def clouds(panels: Mapping[str, tuple[Any, Any]], *, shade: Any, shade_label: str, x: Sequence[str], y: str) -> Figure:
    """Draw clouds of points side by side on one vertical axis, one point per architecture.

    The horizontal axis is each panel's own. A line below says so where two of them have one label.

    Args:
        panels: (xs, ys) by the title of the panel.
        shade: one number per point, from dark to light.
        shade_label: what the shade says.
        x: the label of each panel's horizontal axis.
        y: the label of the vertical axis.
    """
    figure = Drawing(figsize=(min(2.4 * len(panels), 10) + 0.6, 3.3), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, (xs, ys)), label in zip(grid, panels.items(), x, strict=True):
        points = axes.scatter(xs, ys, c=shade, cmap="cividis", s=16, edgecolors=BLACK, linewidths=0.3)
        axes.set(title=title, xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    if len(set(x)) < len(x):
        figure.supxlabel("each panel has its own horizontal scale", size=8, color=VERMILION)
    grid[0].set_ylabel(y)
    steps = np.unique(np.asarray(shade))
    ticks = steps if len(steps) <= FEW_RUNS else None
    figure.colorbar(points, ax=grid, label=shade_label, fraction=0.04, pad=0.01, ticks=ticks)
    return figure


@styled
def front(cost: Any, quality: Any, *, x: str, y: str, title: str) -> Figure:
    """Draw quality against cost, one point per architecture, and the Pareto front.

    The front steps up along the architectures that no other one beats. One beats another if it costs no more and is no
    worse, and is not equal in both.
    """
    cost, quality = np.asarray(cost, dtype=float), np.asarray(quality, dtype=float)
    order = np.lexsort((-quality, cost))  # of equal cost the best first
    reached = np.maximum.accumulate(quality[order])
    new = np.diff(reached, prepend=-np.inf) > 0
    figure = Drawing(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(cost, quality, "o", color=GREY, markersize=4)
    steps = np.append(cost[order][new], cost.max()), np.append(reached[new], reached[-1])
    line = axes.step(*steps, where="post", color=BLUE, label="the Pareto front").pop()
    line.set_gid("front")
    axes.plot(cost[order][new], reached[new], "o", color=BLUE, mec=BLACK, mew=0.5, gid="front:members")
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend(loc="lower right")
    return figure


@styled
def agreements(taus: Mapping[str, tuple[float, float, float]], ceiling: tuple[float, float, float]) -> Figure:
    """Draw rank agreements with their intervals beside the noise ceiling, each of them (tau, low, high).

    The dot is filled where the interval leaves 0 out, and hollow where it is undecided.
    """
    figure = Drawing(figsize=(6.8, 0.4 * len(taus) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(taus))[::-1]
    axes.axvspan(ceiling[1], ceiling[2], color="#EEEEEE", lw=0)
    axes.axvline(ceiling[0], color=BLACK, lw=0.8, ls="--", label="noise ceiling: one training against another")
    axes.axvline(0, color=BLACK, lw=0.6)
    for place, (tau, low, high) in zip(places, taus.values(), strict=True):
        decided = low > 0 or high < 0
        colour = BLUE if decided else GREY
        axes.plot([low, high], [place, place], color=colour, lw=2)
        axes.plot(tau, place, "o", color=colour if decided else "white", mec=colour, mew=1.2)
        text = f"{tau:+.2f}" + ("" if decided else "  undecided")
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center")
    low = min(-0.1, *(each[1] for each in (*taus.values(), ceiling)))
    axes.set(yticks=places, yticklabels=list(taus), xlim=(low - 0.05, 1.0), ylim=(-0.6, len(taus) - 0.1))
    axes.set(xlabel="Kendall's tau with single trainings, 95 % interval", title="who ranks architectures how well")
    figure.legend(loc="outside lower center")
    return figure
