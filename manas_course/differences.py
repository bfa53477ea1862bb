"""What differences between arms are worth: paired, corrected, and honest about what could be seen.

The unit of replication is the search seed. Retraining seeds are nested in it. Every difference is to a reference arm on
the same seeds and the same pictures. `manas_course.chance` says how far chance moves it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manas_course.chance import LEVEL, MARGIN, Chance

__all__ = ["compare", "detectable", "equivalence_p", "holm_adjusted", "interval", "latex", "paired", "paired_p"]

Result = Mapping[str, Any]  # arm, search_seed, retrain_seed, parameters, images: {name: dB}


def paired(results: Sequence[Result], arm: str, reference: str) -> np.ndarray:
    """Return the differences arm - reference in dB, (searches, retrainings, pictures), on the seeds that both have.

    Raises:
        ValueError: where they share no seed or were scored on other pictures, and where one arm has two results with
            the same seeds and other settings, of which neither is the arm's more than the other.
    """
    kept: dict[str, dict[tuple[int, int], Result]] = {arm: {}, reference: {}}
    for result in results:
        if result["arm"] in kept:
            seeds = result["search_seed"], result["retrain_seed"]
            first = kept[result["arm"]].setdefault(seeds, result)
            if changed := _changed(first.get("settings", {}), result.get("settings", {})):
                raise ValueError(
                    f"arm {result['arm']!r} has two results of search seed {seeds[0]}, retrain seed {seeds[1]} with "
                    f"other settings ({changed}): remove one, and run it again as an arm of another name"
                )
    shared = sorted(kept[arm].keys() & kept[reference].keys())
    if not shared:
        found = " and ".join(str(sorted(runs)) for runs in kept.values())
        raise ValueError(f"arms {arm!r} and {reference!r} share no (search seed, retrain seed): {found}")
    names = list(kept[arm][shared[0]]["images"])
    searches: dict[int, list[list[float]]] = {}
    for seeds in shared:
        mine, theirs = (kept[name][seeds]["images"] for name in (arm, reference))
        if list(mine) != names or set(theirs) != set(names):
            raise ValueError(f"arms {arm!r} and {reference!r} were scored on different pictures")
        searches.setdefault(seeds[0], []).append([mine[name] - theirs[name] for name in names])
    fewest = min(map(len, searches.values()))
    return np.array([runs[:fewest] for runs in searches.values()])


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return what differs between the settings of two results: fields, or texts of the list `settings`."""
    texts = {*first.get("settings", ())} ^ {*second.get("settings", ())}
    fields = {*first, *second} - {"settings"}
    return ", ".join(sorted(texts | {name for name in fields if first.get(name) != second.get(name)}))


def interval(differences: np.ndarray, level: float = 1 - LEVEL) -> tuple[Any, Any]:
    """Return the interval (low, high) of the mean, in dB, of differences (..., searches, retrainings, pictures).

    It holds the true difference at least as often as `level` says, over other searches and other pictures. It is
    infinite where there is a single search or picture, and where searches are copies of one run.
    """
    mean, half = differences.mean((-1, -2, -3)), Chance.of(differences).half_width(level)
    return mean - half, mean + half


def paired_p(differences: np.ndarray) -> Any:
    """Return the two-sided p of no difference, of differences (..., searches, retrainings, pictures).

    It is below 0.05 exactly where the 95 % interval leaves 0 out, and 1 where the interval is infinite.
    """
    return Chance.of(differences).p(differences.mean((-1, -2, -3)))


def equivalence_p(differences: np.ndarray, margin: float = MARGIN) -> Any:
    """Return the p of a true difference of at least `margin`, in dB either way: see `Chance.equivalence_p`."""
    return Chance.of(differences).equivalence_p(differences.mean((-1, -2, -3)), margin)


def detectable(differences: np.ndarray, comparisons: int = 1, power: float = 0.8) -> float:
    """Return the smallest difference in dB that searches and pictures like these, and as many, find this often.

    Args:
        differences: (searches, retrainings, pictures), in dB.
        comparisons: how many arms are compared at once.
        power: how often the difference is found, 0 to 1.
    """
    return Chance.of(differences).detectable(comparisons, power)


def holm_adjusted(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the given order; those at or below a level are significant at it."""
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = worst
    return adjusted


def compare(results: Sequence[Result], reference: str = "full", *, margin: float = MARGIN) -> list[dict[str, Any]]:
    """Compare every arm with the reference.

    Args:
        results: of arms, as `paired` takes them.
        reference: the arm that all others are compared with.
        margin: the difference in dB that would matter.

    Returns:
        A row per arm: arm, searches, pictures, mean, low, high (dB, its own 95 % interval), p and p_equivalent (both
        after Holm), detectable (dB), parameters and verdict. The verdict is

        * `equivalent` where p_equivalent is at most 0.05: the difference is smaller than the margin,
        * else `better` or `worse` where p is at most 0.05: the interval then leaves 0 out,
        * else `undecided`. `detectable` says what such an arm may still hide.

        Holm keeps each kind of wrong verdict in a table, a difference where there is none and an equivalence where
        there is a difference of the margin, at 5 %.
    """
    arms = [arm for arm in dict.fromkeys(r["arm"] for r in results) if arm != reference]
    if reference not in {r["arm"] for r in results}:
        raise ValueError(f"no run of the reference arm {reference!r}: run it on the same seeds first")
    rows: list[dict[str, Any]] = []
    for arm in arms:
        differences = paired(results, arm, reference)
        row = {"arm": arm, "searches": len(differences), "pictures": differences.shape[-1]}
        row["mean"] = float(differences.mean())
        row["low"], row["high"] = map(float, interval(differences))
        row["p"], row["p_equivalent"] = float(paired_p(differences)), float(equivalence_p(differences, margin))
        row["detectable"] = detectable(differences, comparisons=len(arms))
        row["parameters"] = float(np.mean([r["parameters"] for r in results if r["arm"] == arm]))
        rows.append(row)
    for key in ("p", "p_equivalent"):
        for row, p in zip(rows, holm_adjusted([row[key] for row in rows]), strict=True):
            row[key] = p
    for row in rows:
        seen = "better" if row["mean"] > 0 else "worse"
        row["verdict"] = "equivalent" if row["p_equivalent"] <= LEVEL else seen if row["p"] <= LEVEL else "undecided"
    return rows


def latex(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Return the rows of `compare` as a LaTeX table (booktabs); the caption should name set, n and budget."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(caption)}}}",
        r"\begin{tabular}{lrrrrl}",
        r"\toprule",
        r"arm & searches & difference (dB) & 95\,\% interval & detectable & verdict \\",
        r"\midrule",
    ]
    for row in rows:
        band, seen = f"{row['detectable']:.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        cells = [_escaped(row["arm"]), str(row["searches"]), f"{row['mean']:+.2f}"]
        cells += [seen, band] if math.isfinite(row["detectable"]) else ["--", "--"]
        lines.append(" & ".join([*cells, row["verdict"]]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([&%_#$])", r"\\\1", text)
