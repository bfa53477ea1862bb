"""Checkers about choosing within a budget: what fits, scores without training, a predictor, and packing."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from manas_course.checks.base import Attempt, Wrong, array, checker, compare, described, expect, listed, whole

__all__ = ["best_that_fits", "knapsack", "naswot", "ridge"]

Numbers = Sequence[float]
Rows = Sequence[Numbers]


@checker
def best_that_fits(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(psnr, cost, budget) -> the index of the best network that fits, or None where none does."""
    cases: dict[str, tuple[list[float], list[float], float]] = {
        "all fit": ([24.0, 26.0, 25.0], [3.0, 2.0, 1.0], 9.0),
        "the best costs too much": ([24.0, 26.0, 25.0], [1.0, 9.0, 2.0], 5.0),
        "the best costs exactly the budget": ([24.0, 26.0, 25.0], [1.0, 5.0, 2.0], 5.0),
        "the first costs too much": ([27.0, 22.0, 25.0, 24.0], [8.0, 1.0, 4.0, 5.0], 6.0),
        "two are equally good, the second is cheaper": ([25.0, 25.0, 22.0], [4.0, 3.0, 1.0], 6.0),
        "two are equally good, the first is cheaper": ([25.0, 25.0, 22.0], [3.0, 4.0, 1.0], 6.0),
        "the best, the cheapest and the most dB per cost differ": ([20.0, 28.0, 29.0], [10.0, 11.0, 14.0], 20.0),
        "nothing fits": ([25.0, 24.0, 26.0], [5.0, 3.0, 4.0], 2.0),
        "there are no networks": ([], [], 2.0),
        "the first alone fits": ([22.0, 26.0], [1.0, 4.0], 2.0),
    }
    for k in range(6):
        psnr, cost = rng.normal(24, 1, 9), rng.uniform(1, 9, 9)
        cases[f"nine networks {k + 1}"] = ([float(x) for x in psnr], [float(x) for x in cost], float(rng.uniform(3, 8)))

    def best(
        key: Callable[[float, float], Any],
        fits: Callable[[float, float], bool] = lambda cost, budget: cost <= budget,
        none: Any = None,
    ) -> Callable[..., Any]:
        """Return who chooses, among those that fit, the one of the largest key(psnr, cost)."""

        def answer(psnr: Numbers, cost: Numbers, budget: float) -> Any:
            inside = [k for k, c in enumerate(cost) if fits(c, budget)]
            return max(inside, key=lambda k: key(psnr[k], cost[k]), default=none)

        return answer

    def filtered(psnr: Numbers, cost: Numbers, budget: float, price: float = 1.0) -> int | None:
        inside = [(p, -price * c) for p, c in zip(psnr, cost, strict=True) if c <= budget]
        return inside.index(max(inside)) if inside else None

    def otherwise(instead: Callable[..., int]) -> Callable[..., Any]:
        def answer(psnr: Numbers, cost: Numbers, budget: float) -> Any:
            found = true(psnr, cost, budget)
            return instead(psnr, cost) if found is None and psnr else found

        return answer

    true = best(lambda p, c: (p, -c))
    limit, given = "cost <= budget", "an index into the given lists"
    impossible = "nothing fits: that answer is None, whatever network it would be"
    wrong = [
        Wrong("the best of all is chosen, whatever it costs", best(lambda p, c: (p, -c), lambda c, b: True), limit),
        Wrong("a network that costs exactly the budget fits", best(lambda p, c: (p, -c), lambda c, b: c < b), limit),
        Wrong("the cheapest is chosen, not the best that fits", best(lambda p, c: -c), "the budget may be used"),
        Wrong("the most expensive that fits is chosen, not the best", best(lambda p, c: c), "cost is only the limit"),
        Wrong("the worst that fits is chosen", best(lambda p, c: (-p, -c)), "higher PSNR is better"),
        Wrong("the most dB per cost is chosen, not the most dB", best(lambda p, c: p / c), "cost is only the limit"),
        Wrong("those are chosen that do not fit", best(lambda p, c: (p, -c), lambda c, b: c > b), limit),
        Wrong("of equally good networks the cheaper one is asked for", best(lambda p, c: p), "what decides a tie?"),
        Wrong(
            "of equally good networks the cheaper one is asked for", best(lambda p, c: (p, c)), "what decides a tie?"
        ),
        *(
            Wrong("the index counts only those that fit, not all networks", partial(filtered, price=price), given)
            for price in (1.0, 0.0)  # with and without the rule for ties
        ),
        Wrong("-1 is an index in Python: the last network", best(lambda p, c: (p, -c), none=-1), impossible),
        Wrong("where nothing fits, the first network is handed over", otherwise(lambda p, c: 0), impossible),
        Wrong(
            "where nothing fits, the cheapest network is handed over",
            otherwise(lambda p, c: int(np.argmin(c))),
            impossible,
        ),
        Wrong("where nothing fits, the best of all is handed over", otherwise(lambda p, c: int(np.argmax(p))), limit),
    ]

    def read(found: Any, like: int | None) -> int | None:
        if found is None:
            expect(like is None, "None is returned although a network fits", limit)
            return None
        return whole(found)

    compare(attempt, cases, true, wrong, read=read, hint=limit)


@checker
def naswot(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(codes (pictures, ReLUs) of 0 and 1) -> log |det K|, K_ij = ReLUs - Hamming distance."""

    def drawn(pictures: int, relus: int, share: float = 0.5) -> np.ndarray:
        while True:
            codes = (rng.random((pictures, relus)) < share).astype(float)
            if np.linalg.slogdet(kernel(codes))[1] > -20:  # equal codes have no determinant
                return codes

    def kernel(codes: np.ndarray) -> np.ndarray:
        return codes @ codes.T + (1 - codes) @ (1 - codes).T

    def score(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
        return lambda codes: float(np.linalg.slogdet(make(codes))[1])

    cases: dict[str, tuple[np.ndarray]] = {
        "two pictures, opposite codes": (np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),),
        "two pictures, one place apart": (np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]),),
        "three pictures": (np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]),),
        "one picture, five ReLUs": (np.array([[1.0, 0.0, 0.0, 1.0, 0.0]]),),
        "few ReLUs are on": (drawn(4, 60, 0.15),),
        "many pictures": (drawn(7, 40),),
        "a determinant beyond any float": (drawn(150, 1200),),
    }
    on, log = "two codes agree where both are 1, and where both are 0", "np.linalg.slogdet"
    wrong = [
        Wrong("only ReLUs that are on in both count, not those that are off in both", score(lambda c: c @ c.T), on),
        Wrong("only ReLUs that are off in both count", score(lambda c: (1 - c) @ (1 - c).T), on),
        Wrong("the distances themselves, not N minus them", score(lambda c: c.shape[1] - kernel(c)), "equal codes: N"),
        Wrong("K is divided by N", score(lambda c: kernel(c) / c.shape[1]), "K holds whole numbers"),
        Wrong(
            "the kernel of the ReLUs, not of the pictures", score(lambda c: kernel(c.T)), "K is (pictures, pictures)"
        ),
        Wrong(
            "the determinant overflows, and its logarithm with it: inf",
            lambda c: float(np.log(np.abs(np.linalg.det(kernel(c))))),
            log,
        ),
        Wrong("the determinant, without its logarithm", lambda c: float(np.linalg.det(kernel(c))), log),
        Wrong("the sign of the determinant, not its logarithm", lambda c: float(np.linalg.slogdet(kernel(c))[0]), log),
        Wrong("the logarithm to base 10", lambda c: score(kernel)(c) / np.log(10), "the natural one"),
        Wrong("the logarithm to base 2", lambda c: score(kernel)(c) / np.log(2), "the natural one"),
        Wrong("that is minus the score", lambda c: -score(kernel)(c), "more different codes: larger"),
    ]
    with np.errstate(over="ignore"):
        compare(attempt, cases, score(kernel), wrong, near=1e-3, hint=on)


@checker
def ridge(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(x (n, columns), y (n,), new (m, columns), strength) -> predictions (m,), intercept unpenalised."""

    def hot(rows: int, kinds: int) -> np.ndarray:
        return np.hstack([rng.integers(0, 2, (rows, 3)), np.eye(kinds)[rng.integers(0, kinds, rows)]]).astype(float)

    cases: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, float]] = {}
    for name, (rows, kinds, strength) in {
        "twenty networks": (20, 4, 1.0),
        "fewer networks than columns": (5, 6, 2.0),
        "a small strength": (30, 4, 0.01),
        "a large strength": (15, 3, 50.0),
        "one new network": (12, 3, 0.5),
    }.items():
        x = hot(rows, kinds)
        y = 24 + x @ rng.normal(0, 0.5, x.shape[1]) + rng.normal(0, 0.2, rows)
        cases[name] = (x, y, hot(1 if name.startswith("one") else 6, kinds), strength)
    x, y, new, strength = cases["twenty networks"]
    cases["the same, all scores 100 higher"] = (x, y + 100, new, strength)

    def fit(
        penalty: Callable[[float, int], float] = lambda strength, n: strength,
        shift: Callable[[np.ndarray], Any] = lambda x: x.mean(0),
        level: float = 1.0,
    ) -> Callable[..., np.ndarray]:
        def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
            inner = (x - shift(x)).T @ (x - shift(x)) + penalty(strength, len(x)) * np.eye(x.shape[1])
            weights = np.linalg.lstsq(inner, (x - shift(x)).T @ (y - level * y.mean()), rcond=None)[0]
            return level * y.mean() + (new - shift(x)) @ weights

        return answer

    def column_of_ones(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
        x, new = (np.hstack([each, np.ones((len(each), 1))]) for each in (x, new))
        return new @ np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)

    def own_middle(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
        return fit()(x, y, new + x.mean(0) - new.mean(0), strength)

    def seen(x: np.ndarray, y: np.ndarray, new: np.ndarray, strength: float) -> np.ndarray:
        return fit()(x, y, x, strength)[: len(new)] if len(x) >= len(new) else fit()(x, y, new, strength)

    true, middle = fit(), "take the mean off x and y, and give it back at the end"
    wrong = [
        Wrong("no intercept: the predictions are pulled towards 0", fit(shift=lambda x: 0.0, level=0.0), middle),
        Wrong("the intercept is made small, too", column_of_ones, middle),
        Wrong("the mean of y is not given back", fit(level=0.0), middle),
        Wrong("x is not centred, only y", fit(shift=lambda x: 0.0), middle),
        Wrong("the new rows are centred by their own mean, not by that of x", own_middle, "`x.mean(0)` for both"),
        Wrong("without the strength: that is least squares", fit(lambda s, n: 0.0), "strength times the identity"),
        Wrong("the strength is multiplied by n", fit(lambda s, n: s * n), "strength times the identity"),
        Wrong("the strength is divided by n", fit(lambda s, n: s / n), "strength times the identity"),
        Wrong("the strength is squared", fit(lambda s, n: s**2), "strength times the identity"),
        Wrong("the strength is subtracted", fit(lambda s, n: -s), "strength times the identity"),
        Wrong("the strength is 1, whatever was asked for", fit(lambda s, n: 1.0), "`strength` is an argument"),
        Wrong("the mean of y, for every network", lambda x, y, new, s: np.full(len(new), y.mean()), "choices count"),
        Wrong("predictions of the rows that it was fitted to", seen, "of `new`"),
    ]
    compare(attempt, cases, true, wrong, read=array, near=1e-3, hint=middle)


@checker
def knapsack(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(scores, costs, limit) -> the candidate of each place, of the best total within the limit, or None.

    Scores are drawn from a continuous distribution, so that only one answer is the best.
    """
    cases: dict[str, tuple[list[list[float]], list[list[float]], float]] = {
        "the best of each place fit": ([[1.0, 2.0], [5.0, 3.0]], [[1.0, 2.0], [2.0, 1.0]], 9.0),
        "the best of each place cost exactly the limit": ([[1.0, 2.0], [5.0, 3.0]], [[1.0, 2.0], [2.0, 1.0]], 4.0),
        "one must give way": ([[1.0, 2.0], [5.0, 3.0]], [[1.0, 3.0], [3.0, 1.0]], 5.0),
        "a cheap and good ratio is not the best": ([[0.0, 3.0, 8.0], [0.0, 2.5]], [[0.0, 1.0, 5.0], [0.0, 4.0]], 5.0),
        "the best of the first place leaves too little": ([[1.0, 2.0], [0.0, 9.0]], [[0.0, 4.0], [1.0, 5.0]], 6.0),
        "nothing fits": ([[1.0, 2.0], [5.0, 3.0]], [[3.0, 4.0], [4.0, 3.0]], 5.0),
        "one place": ([[1.0, 4.0, 3.0]], [[1.0, 9.0, 4.0]], 5.0),
    }  # fmt: skip
    for k in range(8):
        sizes = rng.integers(2, 4, int(rng.integers(3, 6)))
        scores = [[float(s) for s in rng.normal(0, 1, n)] for n in sizes]
        costs = [[float(c) for c in rng.integers(1, 9, n)] for n in sizes]
        low, high = sum(map(min, costs)), sum(map(max, costs))
        cases[f"{len(sizes)} places {k + 1}"] = (scores, costs, float(rng.integers(int(low), int(high))))

    def packed(fits: Callable[[float, float], bool], sign: int = 1) -> Callable[..., list[int] | None]:
        def answer(scores: Rows, costs: Rows, limit: float) -> list[int] | None:
            every = itertools.product(*(range(len(row)) for row in costs))
            inside = [picks for picks in every if fits(_total(costs, picks), limit)]
            return list(max(inside, key=lambda picks: sign * _total(scores, picks))) if inside else None

        return answer

    def each(key: Callable[[float, float], float]) -> Callable[..., list[int] | None]:
        """Return who decides place by place; None where even that does not fit."""

        def answer(scores: Rows, costs: Rows, limit: float) -> list[int] | None:
            chosen = [
                max(range(len(s)), key=lambda k, s=s, c=c: key(s[k], c[k]))  # type: ignore[misc]
                for s, c in zip(scores, costs, strict=True)
            ]
            return chosen if _total(costs, chosen) <= limit else None

        return answer

    def in_order(scores: Rows, costs: Rows, limit: float) -> list[int] | None:
        """Spend from left to right, leaving at least the cheapest for the places that follow."""
        chosen: list[int] = []
        for place, (s, c) in enumerate(zip(scores, costs, strict=True)):
            left = limit - _total(costs[:place], chosen) - sum(map(min, costs[place + 1 :]))
            inside = [k for k in range(len(c)) if c[k] <= left]
            if not inside:
                return None
            chosen.append(max(inside, key=lambda k, s=s: s[k]))  # type: ignore[misc]
        return chosen

    def shared(scores: Rows, costs: Rows, limit: float) -> list[int] | None:
        chosen = []
        for s, c in zip(scores, costs, strict=True):
            inside = [k for k in range(len(c)) if c[k] <= limit / len(costs)]
            if not inside:
                return None
            chosen.append(max(inside, key=lambda k, s=s: s[k]))  # type: ignore[misc]
        return chosen

    def greedy(scores: Rows, costs: Rows, limit: float) -> list[int] | None:
        """Begin with the cheapest, and take the step of the most score per cost as long as one fits."""
        chosen = [int(np.argmin(c)) for c in costs]
        while _total(costs, chosen) <= limit:
            steps = [
                ((s[k] - s[now]) / max(c[k] - c[now], 1e-9), place, k)
                for place, (s, c, now) in enumerate(zip(scores, costs, chosen, strict=True))
                for k in range(len(c))
                if s[k] > s[now] and _total(costs, chosen) + c[k] - c[now] <= limit
            ]
            if not steps:
                return chosen
            _, place, k = max(steps)
            chosen[place] = k
        return None

    true = packed(lambda cost, limit: cost <= limit)
    joint = "the choices share one limit: what does one place leave for the others?"
    wrong = [
        Wrong("the limit is not kept", packed(lambda cost, limit: True), "the total cost, at most `limit`"),
        Wrong("a network that costs exactly the limit fits", packed(lambda cost, limit: cost < limit), "<="),
        Wrong("the worst that fits", packed(lambda cost, limit: cost <= limit, -1), "the largest score"),
        Wrong("the cheapest of each place: the limit may be used", each(lambda s, c: -c), "the largest score"),
        Wrong("the most score per cost at each place alone", each(lambda s, c: s / max(c, 1e-9)), joint),
        Wrong("the limit is spent from left to right: the first places take too much", in_order, joint),
        Wrong("each place gets the same share of the limit", shared, joint),
        Wrong("step by step, the best ratio first: a greedy way, which may end below the best", greedy, joint),
    ]

    def read(found: Any, like: list[int] | None) -> list[int] | None:
        if found is None:
            expect(like is None, "None is returned although a choice fits", "is everything tried?")
            return None
        if like is None:
            expect(False, "nothing fits, and a choice is returned all the same", "None, where nothing fits")
            return None
        picks = listed(found, like)
        fine = len(picks) == len(like) and all(isinstance(k, int) and not isinstance(k, bool) for k in picks)
        expect(fine, f"your function returns {described(found)}: one index per place is asked for", "[1, 0, 2]")
        return picks

    compare(attempt, cases, true, wrong, read=read, hint=joint)


def _total(rows: Rows, picks: Iterable[int]) -> float:
    return sum(row[k] for row, k in zip(rows, picks, strict=True))
