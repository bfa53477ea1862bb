"""What differences between arms are worth: paired, hierarchical, corrected, and honest about what could be seen.

The unit of replication is the search seed. Retraining seeds are nested in it, pictures in those: a hundred pictures of
one network are one run. Every difference is to a reference arm on the same seeds and the same pictures.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["compare", "detectable", "hierarchical_bootstrap", "holm_adjusted", "latex", "paired", "paired_p"]

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


def hierarchical_bootstrap(differences: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean, (low, high), of differences (searches, retrainings, pictures).

    Searches are drawn with replacement, then retrainings within each, then pictures, the same ones for all: a picture
    that is hard is hard for every network. Over a handful of searches such an interval is too narrow, and over one it
    holds the noise of the pictures alone. Verdicts therefore also ask `paired_p`.
    """
    rng = np.random.default_rng(seed)
    searches, retrainings, pictures = differences.shape
    means = np.empty(draws)
    for draw in range(draws):
        s = rng.integers(searches, size=(searches, 1))
        r = rng.integers(retrainings, size=(searches, retrainings))
        m = rng.integers(pictures, size=pictures)
        means[draw] = differences[s, r][..., m].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_p(differences: np.ndarray) -> float:
    """Return the two-sided p of no difference, of differences (searches, retrainings, pictures).

    This is a paired t test over the means of the searches. The t distribution allows for how few they are, where a
    bootstrap of three values of one sign could only say "never below 0". p is 1 where no spread is seen: for a single
    search, and for searches that are copies of one run.
    """
    means = differences.mean((1, 2))
    if len(means) < 2 or np.ptp(means) == 0:
        return 1.0
    return float(stats.ttest_1samp(means, 0.0).pvalue)


def detectable(differences: np.ndarray, comparisons: int = 1, power: float = 0.8) -> float:
    """Return about the smallest difference in dB that this many searches find; infinite where they do not spread.

    A verdict needs two things, and this is the larger of what they ask for. The t test over n searches asks for

        (t_(1 - 0.025 / comparisons) + t_power) * standard error of their means

    with n - 1 degrees of freedom: 5 % are shared by all comparisons, as in Holm's first step. The interval asks for

        (z_0.975 + z_power) * error of searches and pictures together

    Args:
        differences: (searches, retrainings, pictures), in dB.
        comparisons: how many arms are compared at once.
        power: how often the difference is found.
    """
    searches, pictures = differences.mean((1, 2)), differences.mean((0, 1))
    n = len(searches)
    if n < 2 or np.ptp(searches) == 0:
        return math.inf
    between = searches.var(ddof=1) / n
    both = between + (pictures.var(ddof=1) / len(pictures) if len(pictures) > 1 else 0.0)
    t = stats.t.ppf(1 - 0.025 / comparisons, n - 1) + stats.t.ppf(power, n - 1)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(power)
    return float(max(t * math.sqrt(between), z * math.sqrt(both)))


def holm_adjusted(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the given order; those at or below a level are significant at it."""
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = worst
    return adjusted


def compare(results: Sequence[Result], reference: str = "full", *, seed: int = 0) -> list[dict[str, Any]]:
    """Compare every arm with the reference.

    Returns:
        A row per arm: arm, searches, mean, low, high (dB), p (after Holm), detectable (dB), parameters and verdict. The
        verdict is better or worse only where p, a paired t test over the searches corrected for the number of arms, is
        at most 0.05 *and* the interval, in which pictures vary too, leaves 0 out. `detectable` is for planning, and
        says what an undecided arm may still hide.
    """
    arms = [arm for arm in dict.fromkeys(r["arm"] for r in results) if arm != reference]
    if reference not in {r["arm"] for r in results}:
        raise ValueError(f"no run of the reference arm {reference!r}: run it on the same seeds first")
    rows, ps = [], []
    for arm in arms:
        differences = paired(results, arm, reference)
        ps.append(paired_p(differences))
        row = {"arm": arm, "searches": len(differences), "mean": float(differences.mean())}
        row["low"], row["high"] = hierarchical_bootstrap(differences, seed=seed)
        row["detectable"] = detectable(differences, comparisons=len(arms))
        row["parameters"] = float(np.mean([r["parameters"] for r in results if r["arm"] == arm]))
        rows.append(row)
    for row, p in zip(rows, holm_adjusted(ps), strict=True):
        row["p"] = p
        seen = p <= 0.05 and not row["low"] <= 0 <= row["high"]
        row["verdict"] = "undecided" if not seen else "better" if row["mean"] > 0 else "worse"
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
        band = f"{row['detectable']:.2f}" if math.isfinite(row["detectable"]) else "--"
        lines.append(
            f"{_escaped(row['arm'])} & {row['searches']} & {row['mean']:+.2f} & "
            f"[{row['low']:+.2f}, {row['high']:+.2f}] & {band} & {row['verdict']} \\\\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([&%_#$])", r"\\\1", text)
