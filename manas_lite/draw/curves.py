"""Runs over time: what a search decided and when, and how a network trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manas_lite.draw.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, Drawing, looks_of, styled
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import SearchSpace

Log = Sequence[Mapping[str, Any]]

CELL_LOOKS = ((BLUE, "-"), (ORANGE, "-"), (GREEN, "--"), (PURPLE, "--"))
PANEL, TITLE, LINE = 1.55, 0.45, 0.16  # inches: height of a panel, of its title and gap, of a line of its legend
SHARES = {
    "alpha_entropy": (BLUE, "-"),
    "beta_entropy": (ORANGE, "-"),
    "skip_share": (BLACK, "-"),
    "expected_cost": (PURPLE, "--"),
}


@styled
def search_curves(log: Log, space: SearchSpace | None = None) -> Figure:
    """Draw a search over its steps, on one time axis: losses, alpha, beta, how decided it is, and what it costs.

    alpha has one panel, as the weights of two modules sum to 1, and one panel per module where there are more. beta is
    drawn as the mean weight of each operation over all edges. The upright dotted line ends the warm-up, in which only
    the weights move.

    Args:
        log: the records of a search's log.jsonl (`SearchResult.log`): of kind `step` (train, arch) and `epoch` (alpha,
            beta, alpha_entropy, beta_entropy, skip_share, expected_cost, eigenvalue).
        space: names the modules and operations, and groups the modules' places into cells. Without it the published
            ones are assumed, and all places have one colour.

    Raises:
        ValueError: the log has no epochs, or is of another space.
    """
    steps, epochs = _kinds(log)
    time = [record["step"] + 1 for record in epochs]
    measured = [(t, r["eigenvalue"]) for t, r in zip(time, epochs, strict=True) if r.get("eigenvalue") is not None]
    alpha, beta = (np.array([record[name] for record in epochs]) for name in ("alpha", "beta"))
    attention = beta.size > 0
    modules = space.modules if space else PUBLISHED_MODULES
    operations = space.operations if space else PUBLISHED_OPERATIONS
    for name, weights, names in (("alpha", alpha, modules), ("beta", beta, operations)):
        if weights.size and weights.shape[2] != len(names):
            kind = "modules" if name == "alpha" else "operations"
            raise ValueError(f"{name} has {weights.shape[2]} {kind}, {len(names)} are named: pass the search's space")
    shown = modules[:1] if len(modules) <= 2 else modules
    heights = [PANEL] * (1 + len(shown)) + [max(PANEL, TITLE + LINE * len(operations))] * attention
    figure, panels = _panels([*heights, PANEL] + [PANEL] * bool(measured))

    axes = next(panels)
    _losses(axes, steps, {"train": ("weight step", BLUE), "arch": ("architecture step", ORANGE)})

    cells = [branches - 2 for branches in space.module_branches] if space else [0] * alpha.shape[1]
    for column, module in enumerate(shown):
        axes = next(panels)
        axes.set(title=f"alpha: weight of the {module} module, one line per place", ylim=(0, 1))
        axes.axhline(1 / len(modules), color=GREY, lw=0.6)
        for row, cell in enumerate(cells):
            colour, dash = CELL_LOOKS[cell % len(CELL_LOOKS)]
            line = axes.plot(time, alpha[:, row, column], dash, color=colour, marker="o", markersize=2)[0]
            line.set_gid(f"alpha:{row}" if len(shown) == 1 else f"alpha:{row}:{module}")
            if space and cells.index(cell) == row:
                line.set_label(f"cell {cell + 1} ({cell + 2} branches)")
        _legend(axes)

    if attention:
        axes = next(panels)
        axes.set(title="beta: mean weight of each operation over all edges")
        looks = looks_of((*modules, *operations))
        for column, name in enumerate(operations):
            colour, dash = looks[name]
            values = beta[:, :, column].mean(1)
            line = axes.plot(time, values, ls=dash, color=colour, label=name, marker="o", markersize=2)[0]
            line.set_gid(f"beta:{name}")
        axes.set_ylim(bottom=0)
        _legend(axes)

    axes = next(panels)
    axes.set(title="shares: entropy 1 is undecided, 0 decided", ylim=(0, 1.03))
    for name, (colour, dash) in SHARES.items():
        if attention or name in ("alpha_entropy", "expected_cost"):
            values = [record[name] for record in epochs]
            axes.plot(time, values, dash, color=colour, label=name.replace("_", " "), marker="o", markersize=2)
    _legend(axes)

    if measured:
        axes = next(panels)
        axes.set(title="dominant eigenvalue of the architecture Hessian")
        axes.plot(*zip(*measured, strict=True), color=VERMILION, marker="o", markersize=3)

    axes.set_xlabel("step")
    warm = [record["step"] for record in steps if "arch" in record]
    if warm and warm[0] > 0:
        for axes in figure.axes:
            axes.axvline(warm[0], color=BLACK, lw=0.8, ls=":")
    return figure


@styled
def training_curves(log: Log) -> Figure:
    """Draw a retraining over its steps: the loss, and PSNR (RGB) on the validation photographs.

    Args:
        log: the records of a retraining's log.jsonl: of kind `step` (train) and `epoch` (val_psnr_rgb, best_psnr).

    Raises:
        ValueError: the log has no epochs.
    """
    steps, epochs = _kinds(log)
    figure, panels = _panels([PANEL, PANEL])
    _losses(next(panels), steps, {"train": ("training loss", BLUE)})
    axes = next(panels)
    axes.set(title="validation, whole images: PSNR (RGB), dB", xlabel="step")
    time = [record["step"] + 1 for record in epochs]
    axes.plot(time, [r["val_psnr_rgb"] for r in epochs], color=ORANGE, marker="o", markersize=2, label="this epoch")
    axes.plot(time, [r["best_psnr"] for r in epochs], color=BLACK, lw=0.8, ls="--", label="best so far")
    _legend(axes)
    return figure


def _kinds(log: Log) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    steps = [record for record in log if record.get("kind") == "step"]
    epochs = [record for record in log if record.get("kind") == "epoch"]
    if not epochs or not steps:
        raise ValueError(f"the log has {len(steps)} steps and {len(epochs)} epochs: is it a finished run's log.jsonl?")
    return steps, epochs


def _panels(heights: Sequence[float]) -> tuple[Figure, Any]:
    figure = Drawing(figsize=(7.2, sum(heights) + 0.3), layout="constrained")
    return figure, iter(figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}))


def _losses(axes: Axes, steps: Log, names: Mapping[str, tuple[str, str]]) -> None:
    """Draw each loss as it was, faint, and its running mean over a twentieth of the run."""
    axes.set(title="loss (faint: each step; line: running mean)", yscale="log")
    for name, (label, colour) in names.items():
        time = np.array([record["step"] + 1 for record in steps if name in record])
        values = np.array([record[name] for record in steps if name in record])
        if not len(values):
            continue
        reach = len(steps) // 40
        sums = np.cumsum(np.insert(values, 0, 0.0))
        places = np.arange(len(values))
        starts, ends = np.maximum(0, places - reach), np.minimum(len(values), places + reach + 1)
        axes.plot(time, values, color=colour, lw=0.6, alpha=0.35).pop().set_gid(f"raw:{name}")
        axes.plot(time, (sums[ends] - sums[starts]) / (ends - starts), color=colour, label=label)
    _legend(axes)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
