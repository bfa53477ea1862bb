"""Checkers about numbers of several runs: rounding, fronts, intervals and corrections."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manas_course.checks.base import (
    Attempt,
    Misconception,
    Wrong,
    checker,
    compare,
    described,
    expect,
    listed,
    number,
    whole,
)

__all__ = ["holm", "lie_factor", "mean_and_deviation", "nested_bootstrap", "pareto_front", "searches_needed"]

Points = Sequence[tuple[float, float]]


@checker
def pareto_front(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(points (cost, quality)) -> indices of the points that no other one beats, in any order."""
    cases: dict[str, tuple[list[tuple[float, float]]]] = {
        "one point": ([(3.0, 4.0)],),
        "as cheap, and better": ([(1.0, 1.0), (1.0, 2.0)],),
        "as good, and cheaper": ([(1.0, 2.0), (2.0, 2.0)],),
        "two points that are quite equal": ([(1.0, 2.0), (5.0, 1.0), (1.0, 2.0)],),
        "dearer and better": ([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)],),
        "a hollow front": ([(1.0, 1.0), (2.0, 1.1), (3.0, 3.0)],),
        "neither cheapest nor best": ([(4.0, 9.0), (1.0, 2.0), (2.0, 5.0), (3.0, 4.0)],),
    }
    for k in range(8):
        cases[f"twelve points {k + 1}"] = ([(float(c), float(q)) for c, q in rng.integers(0, 8, (12, 2))],)

    def front(beats: Callable[[float, float, float, float], bool]) -> Callable[[Points], list[int]]:
        """Return the points that none beats: beats(cost, quality, cost and quality of the point)."""
        return lambda points: [k for k, p in enumerate(points) if not any(beats(*q, *p) for q in points)]

    def turned(cost: float, quality: float) -> Callable[[Points], list[int]]:
        return lambda points: true([(cost * c, quality * q) for c, q in points])

    def hull(points: Points) -> list[int]:
        def under(c: float, q: float) -> bool:
            sides = [(a, b) for a in points for b in points if a[0] < c < b[0]]
            return any(q < a[1] + (b[1] - a[1]) * (c - a[0]) / (b[0] - a[0]) for a, b in sides)

        return [k for k in true(points) if not under(*points[k])]

    def once(keep: int) -> Callable[[Points], list[int]]:
        """Return the front with one of each group of equal points, the first (1) or the last (-1)."""
        return lambda points: sorted({points[k]: k for k in true(points)[::-keep]}.values())

    true = front(lambda c, q, mc, mq: c <= mc and q >= mq and (c, q) != (mc, mq))
    ties, equal = "equal in one, worse in the other", "two points that are quite equal do not beat each other"
    axes = "cost should be low, quality high"
    wrong = [
        Wrong("the worst points, not the best", turned(-1, -1), axes),
        Wrong("dear points are kept, not cheap ones", turned(-1, 1), axes),
        Wrong("bad points are kept, not good ones", turned(1, -1), axes),
        Wrong(
            "a point is kept although another is cheaper, or as cheap, and better",
            front(lambda c, q, mc, mq: c < mc and q > mq),
            ties,
        ),
        Wrong(
            "a point is kept although another is as cheap, and better",
            front(lambda c, q, mc, mq: c < mc and q >= mq),
            ties,
        ),
        Wrong(
            "a point is kept although another is as good, and cheaper",
            front(lambda c, q, mc, mq: c <= mc and q > mq),
            ties,
        ),
        Wrong("of equal points one is lost that no other one beats", once(1), equal),
        Wrong("of equal points one is lost that no other one beats", once(-1), equal),
        Wrong(
            "equal points beat each other: each is lost that no other one beats",
            lambda points: [k for k in true(points) if list(points).count(points[k]) == 1],
            equal,
        ),
        Wrong("every point beats itself", lambda points: [], "a point does not beat itself"),
        Wrong(
            "only one point is kept, and each is lost that is dearer and better, though no other one beats it",
            lambda points: [max(true(points), key=lambda k: points[k][1])],
            axes,
        ),
        Wrong(
            "only the best and the cheapest are kept: one between is lost that no other one beats",
            lambda points: sorted(
                {max(true(points), key=lambda k: points[k][1]), min(true(points), key=lambda k: points[k][0])}
            ),
            axes,
        ),
        Wrong(
            "only the cheapest are kept: one is lost that is dearer and better, and no other one beats",
            lambda points: [k for k, p in enumerate(points) if p[0] == min(c for c, _ in points)],
            axes,
        ),
        Wrong(
            "only the best are kept: one is lost that is cheaper and worse, and no other one beats",
            lambda points: [k for k, p in enumerate(points) if p[1] == max(q for _, q in points)],
            axes,
        ),
        Wrong(
            "only corners of a convex front are kept: a point in its hollow is lost that no other one beats", hull, axes
        ),
        Wrong("every point is kept", lambda points: list(range(len(points))), ties),
        Wrong(
            "the beaten points are returned",
            lambda points: [k for k in range(len(points)) if k not in true(points)],
            "those that none beats",
        ),
    ]

    def read(found: Any, like: list[int]) -> list[int]:
        indices = sorted(found) if isinstance(found, set) else listed(found, [])
        expect(
            not any(isinstance(k, bool) for k in indices), "true or false per point: indices are asked for", "enumerate"
        )
        inside = all(isinstance(k, int | float) for k in indices)
        expect(inside, "indices are asked for, not the points themselves", "enumerate")
        return sorted({int(k) for k in indices})

    compare(
        attempt, cases, true, [each._replace(answer=_in_order(each.answer)) for each in wrong], read=read, hint=axes
    )


def _in_order(answer: Callable[[Points], list[int]]) -> Callable[[Points], list[int]]:
    return lambda points: sorted(answer(points))


@checker
def mean_and_deviation(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(values) -> "24.6 ± 0.5": the sample deviation to one significant digit, the mean to its place."""
    shapes = [np.array([-1.0, 0.2, 0.8]), np.array([-1.0, 0.1, 1.3, -0.4])]
    cases: dict[str, tuple[list[float]]] = {
        "of 23.913, 24.789, 23.565, 22.104, 23.537": ([23.913, 24.789, 23.565, 22.104, 23.537],)
    }
    for mean, deviation in (
        (24.63, 0.52),
        (24.63, 3.3),
        (24.63, 0.031),
        (124.1, 23.0),
        (24.63, 0.097),
        (31.3, 9.7),
        (0.312, 0.0042),
        (24.03, 0.21),
        (8.27, 1.7),
    ):
        for shape in shapes:
            values = mean + deviation * (shape - shape.mean()) / shape.std(ddof=1)
            cases["of " + ", ".join(f"{value:.4f}" for value in values)] = ([float(value) for value in values],)
    for _ in range(8):
        scale = 10.0 ** int(rng.integers(-2, 1))
        values = 25 + scale * rng.normal(0, 2, int(rng.integers(3, 8)))
        if not _tied(values):
            cases["of " + ", ".join(f"{value:.3f}" for value in values)] = ([float(value) for value in values],)

    def text(
        deviation: Callable[[Sequence[float]], float] = lambda values: float(np.std(values, ddof=1)),
        more: int = 0,
        middle: Callable[[Any], Any] = np.mean,
    ) -> Callable[[Sequence[float]], str]:
        return lambda values: _rounded(float(middle(values)), deviation(values), more)

    def fixed(places: int, ddof: int = 1) -> Callable[[Sequence[float]], str]:
        return lambda values: f"{np.mean(values):.{places}f} ± {np.std(values, ddof=ddof):.{places}f}"

    def before_rounding(values: Sequence[float]) -> str:
        places = max(-math.floor(math.log10(np.std(values, ddof=1))), 0)
        return f"{np.mean(values):.{places}f} ± {np.std(values, ddof=1):.{places}f}"

    def mean_unrounded(values: Sequence[float]) -> str:
        return f"{float(np.mean(values))} ± {text()(values).partition(' ± ')[2]}"

    digit = "a deviation of 0.97 to one digit is a 1, one place further left"
    noise = "0.5 dB of noise: what is a third decimal worth?"
    wrong = [
        Wrong("divided by n", text(lambda values: float(np.std(values))), "few values: n - 1"),
        Wrong("divided by n, and with fixed decimals", fixed(2, 0), "few values: n - 1"),
        Wrong("divided by n, and with fixed decimals", fixed(1, 0), "few values: n - 1"),
        Wrong(
            "that is the standard error: the deviation of the values was asked for",
            text(lambda v: float(np.std(v, ddof=1) / math.sqrt(len(v)))),
            "no root of n",
        ),
        Wrong(
            "that is the variance: its root was asked for", text(lambda values: float(np.var(values, ddof=1))), "a root"
        ),
        Wrong("two digits of the deviation where its first one is rounded up to 10", before_rounding, digit),
        Wrong("two digits of the deviation", text(more=1), noise),
        Wrong("three digits of the deviation", text(more=2), noise),
        *(Wrong(f"always {places} decimals, whatever the deviation is", fixed(places), noise) for places in range(7)),
        Wrong("the mean has all its digits", mean_unrounded, noise),
        Wrong("the median, not the mean", text(middle=np.median), "the mean"),
        Wrong("half the range, not a standard deviation", text(lambda values: float(np.ptp(values) / 2)), "np.std"),
        Wrong(
            "the mean deviation, not the standard one",
            text(lambda v: float(np.mean(np.abs(np.array(v) - np.mean(v))))),
            "np.std",
        ),
        Wrong(
            "twice the deviation: an interval, not the deviation", text(lambda v: 2 * float(np.std(v, ddof=1))), "once"
        ),
        Wrong(
            "mean and deviation are swapped",
            lambda values: " ± ".join(text()(values).split(" ± ")[::-1]),
            "the mean first",
        ),
        Wrong(
            "the place before the point is never rounded: 23 to one digit is 20",
            lambda v: _rounded(float(np.mean(v)), float(np.std(v, ddof=1)), 0, whole=True),
            "a deviation of 23 to one digit is 20",
        ),
    ]

    def read(found: Any, like: str) -> str:
        expect(
            isinstance(found, str),
            f"your function returns {described(found)}, a text is asked for",
            "is the last line a `return` of a text?",
        )
        expect("±" in found, f"{found!r} has no ±", 'as in "24.6 ± 0.5"')
        return re.sub(r"\s*±\s*", " ± ", found.strip())

    compare(attempt, cases, text(), wrong, read=read, hint=noise)


def _rounded(mean: float, deviation: float, more: int = 0, whole: bool = False) -> str:
    """Return mean and deviation, the deviation to one digit and `more`; with `whole` never left of the point."""
    digits = -math.floor(math.log10(deviation)) + more
    if round(deviation, digits) >= 10.0 ** (1 + more - digits):  # 0.96 to one digit is 1, one place further left
        digits -= 1
    if whole:
        digits = max(digits, 0)
    places = max(digits, 0)
    return f"{round(mean, digits):.{places}f} ± {round(deviation, digits):.{places}f}"


def _tied(values: np.ndarray) -> bool:
    """Return whether mean or deviation lie so near to a half that two honest ways of rounding may differ."""
    nudged = {_rounded(float(values.mean()) * (1 + e), float(values.std(ddof=1)) * (1 + e)) for e in (-1e-9, 0, 1e-9)}
    return len(nudged) > 1


@checker(rounds=1, fresh=False)  # no number of these studies could be learnt by heart, and a fresh one brings luck
def nested_bootstrap(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(differences (searches, images), rng) -> (low, high), a 95 % interval of the mean."""
    trials = 40
    studies = {
        "searches that differ much": (12, 20, 0.6, 0.3),
        "searches that differ little": (30, 8, 0.05, 0.01),
        "searches that differ by 5 dB": (20, 10, 5.0, 0.5),
    }
    found: dict[str, tuple[float, float, float, float]] = {}
    every_shift = []
    for name, (searches, images, between, within) in studies.items():
        covered, widths, errors, shifts = 0, [], [], []
        for trial in range(trials):
            truth = rng.normal()
            differences = truth + rng.normal(0, between, (searches, 1)) + rng.normal(0, within, (searches, images))
            low, high = _two_numbers(attempt(differences, np.random.default_rng(trial)))
            expect(low <= high, "low is above high", "(low, high)")
            errors.append(differences.mean(1).std() / np.sqrt(searches))
            covered += low <= truth <= high
            widths.append(high - low)
            shifts.append(((low + high) / 2 - differences.mean()) / errors[-1])
        ratio = float(np.median(np.array(widths) / (2 * 1.96 * np.array(errors))))
        every_shift += shifts
        found[name] = ratio, float(np.median(np.abs(shifts))), covered / trials, float(np.median(widths))
    one = "2.5 % and 97.5 % of the resampled means"
    every = [width for *_, width in found.values()]
    expect(
        max(every) > 3 * min(every), "the intervals are as wide whatever the data are", "resample, and take quantiles"
    )
    for name, (ratio, shift, covered_share, _) in found.items():
        held = f"{name}: {covered_share:.0%} of the intervals hold the truth"
        runs = "pictures of one network are no independent runs: what was repeated, and how often?"
        expect(ratio > 0.45 or name != next(iter(found)), f"images are counted as runs: {held}", runs)
        wide = f"{name}: intervals are {ratio:.1f} times too wide"
        expect(ratio < 2.5, f"{wide}: that is the spread of searches, not of their mean", one)
        expect(shift < 0.6, f"{name}: the intervals do not lie around the mean", "quantiles of resampled *means*")
        expect(not 0.4 < ratio < 0.6, f"{name}: that is one standard error to each side, a 68 % interval", one)
        expect(not 0.75 < ratio < 0.9, f"{name}: that is a 90 % interval", one)
        expect(ratio > 0.9, f"{name}: intervals are {1 / max(ratio, 1e-9):.2f} times too narrow", one)
        expect(ratio < 1.18, wide, one)
        expect(covered_share > 0.8, f"only {held}", "resample searches first")

    skew = float(np.median(every_shift))
    expect(abs(skew) < 0.1, f"the intervals lie to one side of the mean, by {skew:+.2f} standard errors", one)


def _two_numbers(found: Any) -> tuple[float, float]:
    ends = listed(found, [])
    expect(len(ends) == 2, f"your function returns {len(ends)} numbers: (low, high) are asked for", "two quantiles")
    low, high = (number(end) for end in ends)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Misconception("an end of the interval is not finite", "which mean is taken over nothing?")
    return low, high


@checker
def holm(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(p values, level) -> which are significant after Holm's correction, in the given order."""
    cases: dict[str, tuple[list[float], float]] = {
        "two of 0.04": ([0.04, 0.04], 0.05),
        "0.04, 0.01": ([0.04, 0.01], 0.05),
        "0.04, 0.9": ([0.04, 0.9], 0.05),
        "0.03, 0.02, 0.9": ([0.03, 0.02, 0.9], 0.05),
        "the second fails, the third would not": ([0.001, 0.03, 0.04], 0.05),
        "the third fails, in another order": ([0.045, 0.012, 0.001, 0.03], 0.05),
        "all fail": ([0.2, 0.9, 0.4], 0.05),
        "all hold": ([0.001, 0.002, 0.003], 0.05),
        "one p value": ([0.04], 0.05),
        "p values that equal their limits": ([0.5, 0.25], 0.5),
        "one p value, level 0.01": ([0.04], 0.01),
        "a level of 0.2": ([0.09, 0.06, 0.15, 0.04], 0.2),
        "between Holm and Bonferroni": ([0.02, 0.011, 0.9, 0.0126, 0.5], 0.05),
    }
    for k in range(12):
        p = [float(x) for x in np.concatenate([rng.uniform(0, 0.03, 5), rng.uniform(0, 1, 3)])]
        cases[f"eight p values {k + 1}"] = [p[j] for j in rng.permutation(len(p))], 0.05

    def stepped(
        limit: Callable[[int, int], float], level_of: Callable[[float], float] = lambda level: level
    ) -> Callable[..., list[bool]]:
        """Return the step-down with the limit(rank, n) of each rank, counted from 0, as a share of the level."""

        def answer(p: Sequence[float], level: float) -> list[bool]:
            order = sorted(range(len(p)), key=lambda k: p[k])
            fails = next((r for r, k in enumerate(order) if p[k] > level_of(level) * limit(r, len(p))), len(p))
            return [k in order[:fails] for k in range(len(p))]

        return answer

    def alone(p: Sequence[float], level: float) -> list[bool]:
        rank = {k: r for r, k in enumerate(sorted(range(len(p)), key=lambda k: p[k]))}
        return [x <= level / (len(p) - rank[k]) for k, x in enumerate(p)]

    def up(limit: Callable[[int, int], float]) -> Callable[..., list[bool]]:
        """Return the step-up: all up to the largest that passes."""

        def answer(p: Sequence[float], level: float) -> list[bool]:
            order = sorted(range(len(p)), key=lambda k: p[k])
            last = max((r for r, k in enumerate(order) if p[k] <= level * limit(r, len(p))), default=-1)
            return [k in order[: last + 1] for k in range(len(p))]

        return answer

    def true_limit(rank: int, n: int) -> float:
        return 1 / (n - rank)

    def given_order(p: Sequence[float], level: float) -> list[bool]:
        held = [x <= level / (len(p) - k) for k, x in enumerate(p)]
        return [all(held[: k + 1]) for k in range(len(p))]

    def from_largest(p: Sequence[float], level: float) -> list[bool]:
        order = sorted(range(len(p)), key=lambda k: -p[k])
        fails = next((r for r, k in enumerate(order) if p[k] > level / (len(p) - r)), len(p))
        return [k in order[:fails] for k in range(len(p))]

    stop = "step down from the smallest, stop at the first failure"
    asked = "is the answer in the order of the question?"
    true = stepped(true_limit)
    wrong = [
        Wrong("no correction at all", lambda p, level: [x <= level for x in p], stop),
        Wrong(
            "that is Bonferroni: every p value at level / n", lambda p, level: [x <= level / len(p) for x in p], stop
        ),
        Wrong(
            "that is Šidák's correction of every p value",
            lambda p, level: [x <= 1 - (1 - level) ** (1 / len(p)) for x in p],
            stop,
        ),
        Wrong("it goes on after the first that fails", alone, stop),
        Wrong("that is Hochberg: it steps up from the largest", up(true_limit), stop),
        Wrong(
            "that is Benjamini and Hochberg: it controls the share of false ones among the significant",
            up(lambda r, n: (r + 1) / n),
            stop,
        ),
        Wrong("the p values are taken in the order given, not from the smallest", given_order, "sort first"),
        Wrong("it starts at the largest", from_largest, "sort first"),
        Wrong(
            "the answer is in the order of the sorted p values, not of the question",
            lambda p, level: sorted(true(p, level), reverse=True),
            asked,
        ),
        Wrong(
            "the ranks are one too low: the smallest is compared with level / (n - 1)",
            stepped(lambda r, n: 1 / max(n - r - 1, 1)),
            "n p values: the smallest at level / n",
        ),
        Wrong(
            "the ranks are one too high: the smallest is compared with level / (n + 1)",
            stepped(lambda r, n: 1 / (n - r + 1)),
            "n p values: the smallest at level / n",
        ),
        Wrong(
            "the limits fall instead of rising: level / 1, level / 2, ...",
            stepped(lambda r, n: 1 / (r + 1)),
            "the smallest at level / n",
        ),
        Wrong(
            "the limit rises by rank: that is Benjamini and Hochberg's, stepped down",
            stepped(lambda r, n: (r + 1) / n),
            "level / (n - rank)",
        ),
        Wrong("the first that fails is called significant, too", lambda p, level: _one_more(p, true(p, level)), stop),
        Wrong("the level is 0.05, whatever was asked for", lambda p, level: true(p, 0.05), "`level` is an argument"),
        Wrong(
            "the level is halved: these p values have two sides already",
            lambda p, level: true(p, level / 2),
            "level / n",
        ),
        Wrong("true and false are swapped", lambda p, level: [not x for x in true(p, level)], "True: significant"),
        Wrong("nothing is significant", lambda p, level: [False] * len(p), stop),
        Wrong("everything is significant", lambda p, level: [True] * len(p), stop),
    ]

    def read(found: Any, like: list[bool]) -> list[bool]:
        flags = listed(found, like)
        expect(
            len(flags) == len(like), f"{len(flags)} answers to {len(like)} p values", "one per p value: True or False"
        )
        plain = all(isinstance(flag, bool) or flag in (0, 1) for flag in flags)
        expect(plain, "p values or indices are returned: True or False per p value is asked for", asked)
        return [bool(flag) for flag in flags]

    compare(attempt, cases, true, wrong, read=read, hint=asked)


def _one_more(p: Sequence[float], significant: list[bool]) -> list[bool]:
    left = [k for k in range(len(p)) if not significant[k]]
    first = min(left, key=lambda k: p[k], default=None)
    return [flag or k == first for k, flag in enumerate(significant)]


@checker
def searches_needed(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(deviation, difference) -> searches an arm, so that 4 studies in 5 find the difference, in dB."""
    cases = {}
    pairs = [(0.55, 0.3), (0.55, 1.0), (0.1, 0.5), (0.55, 5.0), (2.0, 0.7), (0.3, 0.3)]
    pairs += [(float(rng.uniform(0.1, 1)), float(rng.uniform(0.1, 1.5))) for _ in range(5)]
    for deviation, difference in pairs:
        rough, exact = (2 * (factor * deviation / difference) ** 2 for factor in (2.8, 2.80159))
        if math.ceil(rough - 1e-6) == math.ceil(exact + 1e-6):  # both factors are right
            cases[f"runs {deviation:.3g} dB apart, difference {difference:.3g} dB"] = deviation, difference

    def of(count: Callable[[float], float], rounded: Callable[[float], int] = math.ceil) -> Callable[..., int]:
        """Return the whole number of count(deviation / difference)."""
        return lambda deviation, difference: rounded(count(deviation / difference))

    root = "a difference of two runs varies by sqrt(2) times what one run varies by"
    error = "the mean of n differences varies by 1/sqrt(n) of what one difference varies by: solve for n"
    square = 2 * 2.8**2
    wrong = [
        Wrong("the difference of two arms varies more than one arm", of(lambda r: (2.8 * r) ** 2), root),
        Wrong("the root of two is squared once too often", of(lambda r: 4 * (2.8 * r) ** 2), root),
        Wrong("n is not squared: half the difference needs four times as many", of(lambda r: 2**0.5 * 2.8 * r), error),
        Wrong("rounded down: a part of a search is a whole search", of(lambda r: square * r * r, math.floor), "ceil"),
        Wrong("rounded to the nearest: a part of a search is a whole one", of(lambda r: square * r * r, round), "ceil"),
        Wrong("1.96 alone: half of such studies would miss it", of(lambda r: 2 * (1.96 * r) ** 2), "2.8 = 1.96 + 0.84"),
        Wrong("0.84 alone: that is the power, without the level", of(lambda r: 2 * (0.84 * r) ** 2), "1.96 + 0.84"),
        Wrong("the two factors are multiplied, not added", of(lambda r: 2 * (1.96 * 0.84 * r) ** 2), "1.96 + 0.84"),
        Wrong("deviation and difference are swapped", of(lambda r: square / r**2), "a smaller difference needs more"),
        Wrong("both arms are counted together", of(lambda r: 2 * math.ceil(square * r * r)), "an arm"),
    ]
    compare(attempt, cases, of(lambda r: square * r * r), wrong, read=whole, hint=error)


@checker
def lie_factor(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(first, second, start) -> the change that bars from `start` show, over the change of the values."""
    cases = {"bars from 0": (20.0, 25.0, 0.0), "20 and 21 dB, bars from 19": (20.0, 21.0, 19.0)}
    for _ in range(5):
        first, second = (float(x) for x in rng.uniform(20, 30, 2))
        cases[f"{first:.2f} and {second:.2f}"] = first, second, float(rng.uniform(5, 19))

    def of(formula: Callable[[float, float, float, float], float]) -> Callable[..., float]:
        """Return a formula of the values and of the heights of the two bars."""
        return lambda a, b, start: formula(a, b, a - start, b - start)

    change = "a change is (second - first) / first: once with the heights of the bars, once with the values"
    wrong = [
        Wrong("that is its inverse: values over bars", of(lambda a, b, h, k: (b / a - 1) / (k / h - 1)), change),
        Wrong("heights are divided, not their changes", of(lambda a, b, h, k: (k / h) / (b / a)), change),
        Wrong("that is the change that the bars show, not compared with the values", of(lambda a, b, h, k: k / h - 1)),
        Wrong("that is the ratio of the bars", of(lambda a, b, h, k: k / h), change),
        Wrong("that is the change of the values", of(lambda a, b, h, k: b / a - 1), change),
        Wrong("the start plays no part", of(lambda a, b, h, k: 1.0), change),
        Wrong("changes are divided by the second value, not by the first", of(lambda a, b, h, k: b / k), change),
        Wrong("the start is added to the values, not taken away", of(lambda a, b, h, k: a / (2 * a - h)), change),
    ]
    compare(attempt, cases, of(lambda a, b, h, k: (k / h - 1) / (b / a - 1)), wrong, near=1e-5, hint=change)
