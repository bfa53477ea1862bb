"""Checkers about numbers of several runs: rounding, fronts, intervals and corrections."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from manas_course.checks.base import checker, expect, rule_out

__all__ = ["holm", "mean_and_deviation", "nested_bootstrap", "pareto_front"]

Points = Sequence[tuple[float, float]]
Interval = Callable[[np.ndarray, np.random.Generator], tuple[float, float]]


@checker
def pareto_front(attempt: Callable[[Points], Sequence[int]], rng: np.random.Generator) -> None:
    """Check attempt(points (cost, quality)) -> indices of the points that no other one beats, in any order."""
    for _ in range(20):
        points = [(float(c), float(q)) for c, q in rng.integers(0, 8, (12, 2))]
        found, true = set(attempt(list(points))), _front(points)
        turned = _front([(-cost, -quality) for cost, quality in points])
        expect(found != turned or turned == true, "the worst points, not the best: cost should be low, quality high")
        message = "a point is kept although another is cheaper, or as cheap, and better"
        expect(found <= true, message, "equal in one, worse in the other")
        hint = "two points that are quite equal do not beat each other"
        expect(found >= true, "a point is lost that no other one beats", hint)


def _front(points: Points) -> set[int]:
    def beaten(cost: float, quality: float) -> bool:
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)

    return {k for k, point in enumerate(points) if not beaten(*point)}


@checker
def mean_and_deviation(attempt: Callable[[Sequence[float]], str], rng: np.random.Generator) -> None:
    """Check attempt(values) -> "24.6 ± 0.5": the sample deviation to one significant digit, the mean to its place."""
    cases = [[23.913, 24.789, 23.565, 22.104, 23.537]]  # a deviation of 0.97
    for _ in range(20):
        scale = 10.0 ** int(rng.integers(-2, 1))
        cases.append([25 + scale * float(x) for x in rng.normal(0, 2, int(rng.integers(3, 8)))])
    for values in cases:
        deviation, case = float(np.std(values, ddof=1)), "of " + ", ".join(f"{value:.3f}" for value in values)
        found, true = str(attempt(list(values))).strip(), _rounded(values, deviation)
        rule_out(found, {"divided by n": _rounded(values, float(np.std(values)))}, true, "few values: n - 1")
        expect("±" in found, f"{case}: {found!r} has no ±")
        digits = found.rpartition("±")[2].strip().replace(".", "").lstrip("0")
        hint = f"a deviation of {deviation:.2g} to one digit is a 1, one place further left"
        expect(digits != "10" or found == true, f"{case}: {found!r} has two digits of the deviation", hint)
        expect(found == true, f"{case}: {found!r}", "0.5 dB of noise: what is a third decimal worth?")


def _rounded(values: Sequence[float], deviation: float) -> str:
    digits = -math.floor(math.log10(deviation))
    if round(deviation, digits) >= 10.0 ** (1 - digits):  # 0.96 to one digit is 1, one place further left
        digits -= 1
    places = max(digits, 0)
    return f"{round(float(np.mean(values)), digits):.{places}f} ± {round(deviation, digits):.{places}f}"


@checker
def nested_bootstrap(attempt: Interval, rng: np.random.Generator) -> None:
    """Check attempt(differences (searches, images), rng) -> (low, high), a 95 % interval of the mean."""
    covered, ratios, trials, searches, images = 0, [], 120, 12, 20
    for _ in range(trials):
        truth = rng.normal()
        differences = truth + rng.normal(0, 0.6, (searches, 1)) + rng.normal(0, 0.3, (searches, images))
        low, high = map(float, attempt(differences.copy(), rng))
        expect(low <= high, "low is above high")
        covered += low <= truth <= high
        ratios.append((high - low) / (2 * 1.96 * differences.mean(1).std() / np.sqrt(searches)))
    ratio, held = float(np.median(ratios)), f"only {covered / trials:.0%} of the intervals hold the truth"
    hint = "pictures of one network are no independent runs: what was repeated, and how often?"
    expect(ratio > 0.6, f"images are counted as runs: {held}", hint)
    expect(ratio < 1.6, f"intervals are {ratio:.1f} times too wide", "2.5 % and 97.5 % of the resampled means")
    expect(covered / trials > 0.8, held, "resample searches first")


@checker
def holm(attempt: Callable[[Sequence[float], float], Sequence[bool]], rng: np.random.Generator) -> None:
    """Check attempt(p values, level) -> which are significant after Holm's correction, in the given order."""
    for _ in range(40):
        p = [float(x) for x in np.concatenate([rng.uniform(0, 0.03, 5), rng.uniform(0, 1, 3)])]
        p = [p[k] for k in rng.permutation(len(p))]
        found, n, order = [bool(x) for x in attempt(list(p), 0.05)], len(p), np.argsort(p)
        alone, true = [False] * n, [False] * n
        for rank, k in enumerate(order):
            alone[k] = p[k] <= 0.05 / (n - rank)
            true[k] = all(alone[j] for j in order[: rank + 1])
        wrong = {
            "no correction at all": [x <= 0.05 for x in p],
            "that is Bonferroni: every p value at level / n": [x <= 0.05 / n for x in p],
            "it goes on after the first that fails": alone,
        }
        rule_out(found, wrong, true, "step down from the smallest, stop at the first failure")
        expect(found == true, "another set is significant", "is the answer in the order of the question?")
