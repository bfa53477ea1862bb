"""Checkers about searching a table of trained networks, and about rank agreement."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from scipy import stats

from manas_course.checks.base import Attempt, Wrong, checker, compare, expect, listed, number
from manas_course.micro_bench import agreement, expected_best
from manas_lite.data import LeakError

__all__ = ["best_of_n", "random_search", "rank_agreement"]


class _Ledger:
    """What a table holds and what was looked at, kept apart from the table that a student's function is given."""

    def __init__(self, rng: np.random.Generator) -> None:
        count = int(rng.integers(12, 20))
        self.architectures = tuple(f"net{k}" for k in rng.permutation(count))
        self.scores = dict(zip(self.architectures, rng.normal(24, 0.5, count).tolist(), strict=True))
        self.trained: dict[str, float] = {}
        self.peeked = False


_LEDGERS: "WeakKeyDictionary[Table, _Ledger]" = WeakKeyDictionary()


class Table:
    """A made-up table of trained architectures, which counts a training for each one that is looked up."""

    __slots__ = ("__weakref__",)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The names of the architectures."""
        return _LEDGERS[self].architectures

    def val_psnr(self, architecture: str) -> float:
        """Return the score of an architecture on validation, in dB; looking at it costs its training."""
        ledger = _LEDGERS[self]
        ledger.trained[str(architecture)] = score = ledger.scores[str(architecture)]
        return score

    def test_psnr(self, architecture: str) -> float:
        """Raise LeakError: the column is locked while anything is still chosen."""
        _LEDGERS[self].peeked = True
        raise LeakError("the test column is locked: choose on val_psnr")


@checker(rounds=1, fresh=False)  # the table is read through what is counted, so that no score can be learnt by heart
def random_search(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(table, n, rng) -> the best on validation of n different random architectures, n of them trained."""
    table, searches = Table(), 400
    ledger = _LEDGERS[table] = _Ledger(rng)
    names, scores = ledger.architectures, ledger.scores

    def searched(n: int, seed: int) -> tuple[float, dict[str, float]]:
        """Return the validation PSNR of what one search keeps, and what it trained."""
        ledger.trained = {}
        hint = "a number that was used to choose tells nothing new about the choice"
        try:
            found = attempt(table, n, np.random.default_rng(seed))
        finally:
            expect(not ledger.peeked, "the test column was read", hint)
        expect(
            isinstance(found, str) and found in names,
            f"{found!r} is none of table.architectures",
            "return the architecture",
        )
        trained, case = ledger.trained, f"n = {n}"
        hint = "draw first, then look"
        expect(trained, f"{case}: val_psnr was never called: what it keeps is drawn blindly", hint)
        expect(len(trained) <= n, f"{len(trained)} architectures were trained, {n} were paid for", hint)
        expect(
            found in trained, f"{case}: it keeps an architecture that was never trained", "which of the n do you keep?"
        )
        return scores[str(found)], trained

    outcomes = [searched(4, seed) for seed in range(searches)]
    kept, trained = [score for score, _ in outcomes], [seen for _, seen in outcomes]
    expect(
        np.ptp(kept) > 0, f"{searches} searches with different generators keep the same architecture", "draw with rng"
    )
    again = [searched(4, seed) for seed in range(20)]
    expect(again == outcomes[:20], "the same generator gives another search", "draw with rng alone")
    worst = all(score == min(seen.values()) for score, seen in outcomes)
    expect(not worst, "it keeps the worst of those it has trained", "higher PSNR is better")
    places = {list(seen).index(next(name for name in seen if scores[name] == score)) for score, seen in outcomes}
    lazy = (
        f"4 trainings, and the choice is as good as one drawn blindly: it keeps number {max(places) + 1} of each draw"
    )
    expect(len(places) > 1 or all(len(seen) == 1 for seen in trained), lazy, "which of the n do you keep?")
    hint = "architectures drawn twice are trained for nothing"
    for n in (4, 1, len(names)):
        for seed in range(50):
            count = len(searched(n, seed)[1])
            what = f"n = {n} pays for {n}, and trains {count} different ones"
            missing = (
                ", so it misses the best one" if n == len(names) else " (n = all of them misses the best one, too)"
            )
            expect(count == n, what + missing, hint)
    blindly = "which of the n do you keep?"
    best = all(score == max(seen.values()) for score, seen in outcomes)
    expect(best, "what it keeps is not the best of those it has trained: it is drawn blindly", blindly)
    # Both are means over 400 searches with the seeds 0 to 399: no luck, whoever runs it.
    counts = np.array([sum(name in seen for seen in trained) for name in names])
    likely = np.abs(counts / searches - 4 / len(names)).max() < 5 * np.sqrt(4 / len(names) / searches)
    expect(likely, "some architectures are drawn more often than others", "every set of n must be equally likely")
    error, expected = 5 * np.std(kept) / np.sqrt(searches), expected_best(np.array(list(scores.values())), 4)
    pairs = {frozenset((a, b)) for seen in trained for a in seen for b in seen if a != b}
    message = f"on average {np.mean(kept):.2f} dB with n = 4; the order statistic says {expected:.2f}"
    fair = abs(np.mean(kept) - expected) <= error and len(pairs) == len(names) * (len(names) - 1) // 2
    expect(fair, message, "every set of n architectures must be equally likely")


WORDS = ("agrees", "disagrees", "undecided")


class _Study(NamedTuple):
    """A proxy and scores whose interval clearly says the verdict, so that no honest bootstrap finds another."""

    proxy: np.ndarray
    scores: np.ndarray
    verdict: str


@cache
def _studies() -> tuple[_Study, ...]:
    """Return studies in which the size of tau says nothing: a small one may be decided, a large one not."""
    made = []
    for count, strength, verdict in (
        (250, 0.35, "agrees"),
        (250, -0.35, "disagrees"),
        (8, 0.5, "undecided"),
        (8, -0.5, "undecided"),
        (40, 2.0, "agrees"),
        (40, -2.0, "disagrees"),
    ):
        for seed in range(1000):
            rng = np.random.default_rng([count, seed])
            truth = rng.normal(size=count)
            scores = truth[:, None] + rng.normal(0, 0.7, (count, 3))
            proxy = strength * truth + rng.normal(size=count)
            found = agreement(proxy, scores, draws=200)
            small = abs(found.tau) < 0.22 and min(abs(found.low), abs(found.high)) > 0.04
            large = found.low < -0.15 and found.high > 0.15 and abs(found.tau) > 0.3 and found.tau * strength > 0
            if (small if count == 250 else large if count == 8 else True) and found.verdict == verdict:
                made.append(_Study(proxy, scores, verdict))
                break
    return tuple(made)


@checker(rounds=0)  # tau, its interval and the verdict are the same in each round
def rank_agreement(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(proxy (n,), scores (n, trainings), rng) -> (tau, ceiling, verdict).

    They are the mean tau with each training, the mean tau between two trainings, and what the bootstrap interval of the
    first says: "agrees", "disagrees" or "undecided".
    """
    cases: dict[str, tuple[Any, ...]] = {}
    verdicts = {}
    for proxy, scores, verdict in _studies():
        drawn = rng.permutation(len(proxy))  # of another order, size and level: tau and its interval stay what they are
        size, level = rng.uniform(0.5, 2), rng.uniform(20, 30)
        case = f"{len(proxy)} architectures, tau = {_mean_tau(proxy, scores):+.2f}"
        cases[case] = size * proxy[drawn], level + size * scores[drawn], np.random.default_rng(1)
        verdicts[case] = verdict
    said: dict[str, str] = {}
    waiting = iter(cases)

    def read(found: Any, like: tuple[float, float]) -> np.ndarray:
        parts = listed(found, [])
        expect(
            len(parts) == 3,
            f"your function returns {len(parts)} things: (tau, ceiling, verdict) are asked for",
            "three",
        )
        word = parts[2]
        expect(word in WORDS, f"verdict {word!r}: one of three words was asked for", ", ".join(WORDS))
        said[next(waiting)] = word
        return np.array([number(parts[0]), number(parts[1])])

    def both(
        tau: Callable[..., Any] | None = None, ceiling: Callable[[np.ndarray], Any] | None = None
    ) -> Callable[..., np.ndarray]:
        return lambda proxy, scores, _rng: np.array(
            [(tau or _mean_tau)(proxy, scores), (ceiling or _mean_pair)(scores)]
        )

    taus, tops = _wrong_taus(), _wrong_ceilings()
    kendall = "scipy.stats.kendalltau"
    wrong = [Wrong(f"tau: {name}", both(tau=tau), kendall) for name, tau in taus.items()]
    wrong += [Wrong(f"the ceiling: {name}", both(ceiling=top), "pairs of trainings") for name, top in tops.items()]
    wrong += [
        Wrong(f"tau: {name}; the ceiling: {other}", both(tau, top), kendall)
        for name, tau in taus.items()
        for other, top in tops.items()
    ]
    wrong.append(
        Wrong("tau and ceiling are swapped", lambda p, s, _rng: both()(p, s, _rng)[::-1], "(tau, ceiling, verdict)")
    )
    compare(attempt, cases, both(), wrong, read=read, near=1e-6, hint=kendall)
    for case, verdict in verdicts.items():
        word = said[case]
        hint = "redraw the architectures: what does the interval hold?"
        expect(verdict != "undecided" or word == verdict, f"{case} is called {word!r}: nothing is decided there", hint)
        expect(word != "undecided" or word == verdict, f"{case} is called undecided: the interval says more", hint)
        expect(word == verdict, f"{case} is called {word!r}", "which sign does the whole interval have?")


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    return float(stats.kendalltau(x, y).statistic)


def _mean_tau(proxy: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean([_tau(proxy, column) for column in scores.T]))


def _mean_pair(scores: np.ndarray) -> float:
    count = scores.shape[1]
    return float(np.mean([_tau(scores[:, k], scores[:, j]) for k in range(count) for j in range(k)]))


def _wrong_taus() -> dict[str, Callable[[np.ndarray, np.ndarray], Any]]:
    return {
        "trainings are averaged first: that hides the noise of one training": lambda p, s: _tau(p, s.mean(1)),
        "only the first training is used": lambda p, s: _tau(p, s[:, 0]),
        "only the last training is used": lambda p, s: _tau(p, s[:, -1]),
        "that is Spearman's rho": lambda p, s: np.mean([stats.spearmanr(p, c).statistic for c in s.T]),
        "that is Spearman's rho, of the first training": lambda p, s: stats.spearmanr(p, s[:, 0]).statistic,
        "that is Pearson's r, which is no rank correlation": lambda p, s: np.mean(
            [np.corrcoef(p, c)[0, 1] for c in s.T]
        ),
        "proxy and scores are negated against each other": lambda p, s: -_mean_tau(p, s),
        "its size is returned, without its sign": lambda p, s: abs(_mean_tau(p, s)),
        "summed over the trainings, not averaged": lambda p, s: _mean_tau(p, s) * s.shape[1],
        "that is its p value": lambda p, s: np.mean([stats.kendalltau(p, c).pvalue for c in s.T]),
    }


def _wrong_ceilings() -> dict[str, Callable[[np.ndarray], Any]]:
    """Return what wrong pairs of trainings would agree by."""
    return {
        "each training is also compared with itself": lambda s: np.mean([_tau(a, b) for a in s.T for b in s.T]),
        "trainings are compared with their own mean, which holds them": lambda s: np.mean(
            [_tau(a, s.mean(1)) for a in s.T]
        ),
        "only one pair of trainings is used": lambda s: _tau(s[:, 0], s[:, 1]),
        "only pairs of neighbours are used": lambda s: np.mean(
            [_tau(a, b) for a, b in zip(s.T, s.T[1:], strict=False)]
        ),
        "that is Spearman's rho": lambda s: np.mean(
            [stats.spearmanr(s[:, k], s[:, j]).statistic for k in range(s.shape[1]) for j in range(k)]
        ),
        "that is Pearson's r, which is no rank correlation": lambda s: np.mean(
            [np.corrcoef(s[:, k], s[:, j])[0, 1] for k in range(s.shape[1]) for j in range(k)]
        ),
        "summed over the pairs, not averaged": lambda s: _mean_pair(s) * s.shape[1] * (s.shape[1] - 1) / 2,
        "a ceiling of 1: two trainings do not agree so well": lambda s: 1.0,
    }


@checker
def best_of_n(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(values, n) -> the expected best of n of the values, drawn without repetition."""
    cases = {}
    made_up = [24.0, 25.0, 27.0, 30.0]
    for values in (made_up, made_up[::-1], [3.0, 1.0, 1.0, 2.0], [float(x) for x in rng.normal(24, 1, 9)]):
        for n in (1, 2, 3, len(values)):
            cases[f"{len(values)} values from {values[0]:.2f}, n = {n}"] = values, n

    def weighted(weight: Callable[[int, int, int], float]) -> Callable[..., float]:
        """Return the sum of the values, sorted upwards, each times weight(i, n, N), i from 1."""
        return lambda values, n: sum(x * weight(i, n, len(values)) for i, x in enumerate(sorted(values), start=1))

    repeated = "an architecture is trained once: draw without repetition"
    sort = "sort upwards: the i-th is the best if the n - 1 others come from the i - 1 below it"
    true = weighted(lambda i, n, N: math.comb(i - 1, n - 1) / math.comb(N, n))
    wrong = [
        Wrong("values may be drawn twice", weighted(lambda i, n, N: (i / N) ** n - ((i - 1) / N) ** n), repeated),
        Wrong("that is the best of all", lambda values, n: max(values), sort),
        Wrong("that is the mean: the best of one", lambda values, n: float(np.mean(values)), sort),
        Wrong("that is the best of the first n: nothing is expected", lambda values, n: max(values[:n]), sort),
        Wrong("the expected *worst* of n", lambda values, n: -true([-x for x in values], n), "which order is upwards?"),
        Wrong("one too few is drawn", lambda values, n: true(values, max(n - 1, 1)), sort),
        Wrong("one too many is drawn", lambda values, n: true(values, min(n + 1, len(values))), sort),
        Wrong(
            "the values are not sorted first",
            lambda values, n: sum(x * math.comb(i, n - 1) / math.comb(len(values), n) for i, x in enumerate(values)),
            sort,
        ),
        Wrong("the mean of the n best", lambda values, n: float(np.mean(sorted(values)[-n:])), sort),
        Wrong("the shares are not divided by their sum", weighted(lambda i, n, N: math.comb(i - 1, n - 1)), sort),
        Wrong("the median, not the expected best", lambda values, n: float(np.median(values)), sort),
    ]
    compare(attempt, cases, true, wrong, near=1e-4, hint=sort)
