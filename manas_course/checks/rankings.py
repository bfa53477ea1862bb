"""Checkers about searching a table of trained networks, and about rank agreement."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from manas_course.checks.base import checker, expect, rule_out, same
from manas_course.micro_bench import Agreement, agreement, expected_best, noise_ceiling
from manas_lite.data import LeakError

__all__ = ["random_search", "rank_agreement"]


class Table:
    """A made-up table of trained architectures, which counts a training for each one that is looked up."""

    def __init__(self, rng: np.random.Generator) -> None:
        count = int(rng.integers(12, 20))
        self.architectures = tuple(f"net{k}" for k in rng.permutation(count))
        self._val, self._test = rng.normal(24, 0.5, (2, count))
        self.trained: set[int] = set()
        self.peeked = False

    def val_psnr(self, architecture: str) -> float:
        """Return the score of an architecture on validation, in dB; looking at it costs its training."""
        self.trained.add(place := self.architectures.index(architecture))
        return float(self._val[place])

    def test_psnr(self, architecture: str) -> float:
        """Raise LeakError: the column is locked while anything is still chosen."""
        self.peeked = True
        raise LeakError("the test column is locked: choose on val_psnr")


@checker
def random_search(attempt: Callable[[Table, int, np.random.Generator], str], rng: np.random.Generator) -> None:
    """Check attempt(table, n, rng) -> the best on validation of n different random architectures, n of them trained."""
    table = Table(rng)
    count, values = len(table.architectures), table._val

    def searched(n: int, seed: int) -> float:
        """Return the validation PSNR of what one search keeps; what it looked at is checked."""
        table.trained.clear()
        hint = "a number that was used to choose tells nothing new about the choice"
        try:
            found = attempt(table, n, np.random.default_rng(seed))
        finally:
            expect(not table.peeked, "the test column was read", hint)
        expect(found in table.architectures, f"{found!r} is none of table.architectures", "return the architecture")
        looked = len(table.trained)
        expect(looked <= n, f"{looked} architectures were trained, {n} were paid for", "draw first, then look")
        return float(values[table.architectures.index(found)])

    seeds = [int(seed) for seed in rng.integers(2**31, size=400)]
    n = 4
    scores = np.array([searched(n, seed) for seed in seeds])
    expect(np.ptp(scores) > 0, "400 searches with different generators keep the same architecture", "draw with rng")
    again = [searched(n, seed) for seed in seeds[:20]]
    expect(again == scores[:20].tolist(), "the same generator gives another search", "draw with rng alone")
    error = 5 * scores.std() / np.sqrt(len(scores))
    expected, worst, any_ = expected_best(values, n), -expected_best(-values, n), values.mean()
    expect(abs(scores.mean() - worst) > error, "it keeps the worst of those it has trained", "higher PSNR is better")
    lazy = abs(scores.mean() - any_) <= error
    expect(not lazy, f"{n} trainings, and the choice is as good as one drawn blindly", "which of the n do you keep?")
    whole = [searched(count, seed) for seed in seeds[:20]]
    hint = "architectures drawn twice are trained for nothing"
    expect(min(whole) == values.max(), f"n = {count} pays for all {count}, and still misses the best one", hint)
    message = f"on average {scores.mean():.2f} dB with n = {n}; the order statistic says {expected:.2f}"
    expect(abs(scores.mean() - expected) <= error, message, "every set of n architectures must be equally likely")


Ranking = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[float, float, str]]


@checker
def rank_agreement(attempt: Ranking, rng: np.random.Generator) -> None:
    """Check attempt(proxy (n,), scores (n, trainings), rng) -> (tau, ceiling, verdict).

    They are the mean tau with each training, the mean tau between two trainings, and what the bootstrap interval of the
    first says: "agrees", "disagrees" or "undecided".
    """
    for count, strength, verdict in ((60, 1.5, "agrees"), (60, -1.5, "disagrees"), (12, 0.4, "undecided")):
        proxy, scores, true = _ranking(count, strength, verdict, rng)
        ceiling = noise_ceiling(scores, draws=1).tau
        tau, top, said = attempt(proxy.copy(), scores.copy(), rng)
        known = {"tau": (tau, true.tau, _other_taus(proxy, scores)), "the ceiling": (top, ceiling, _pairs(scores))}
        for what, (value, right, others) in known.items():
            rule_out(value, {f"{what}: {message}": other for message, other in others.items()}, right)
            expect(same(value, right), f"{what}: {value:.3f}, expected another number", "scipy.stats.kendalltau")
        expect(said in ("agrees", "disagrees", "undecided"), f"verdict {said!r}: one of three words was asked for")
        holds = f"tau = {true.tau:+.2f} with {count} architectures"
        hint = "redraw the architectures: what does the interval hold?"
        expect(verdict != "undecided" or said == verdict, f"{holds} is called {said!r}: nothing is decided there", hint)
        expect(said != "undecided" or said == verdict, f"{holds} is called undecided: the interval says more", hint)
        expect(said == verdict, f"{holds} is called {said!r}", "which sign does the whole interval have?")


def _ranking(count: int, strength: float, verdict: str, rng: Any) -> tuple[np.ndarray, np.ndarray, Agreement]:
    """Return proxy and scores whose interval clearly says `verdict`, so that no honest bootstrap finds another."""
    while True:
        truth = rng.normal(size=count)
        scores = truth[:, None] + rng.normal(0, 0.7, (count, 3))
        proxy = strength * truth + rng.normal(size=count)
        found = agreement(proxy, scores)
        margin = 0.08 if verdict != "undecided" else -0.08
        clear = {
            "agrees": found.low > margin,
            "disagrees": found.high < -margin,
            "undecided": found.low < margin and found.high > -margin and found.tau > 0.12,
        }
        if clear[verdict]:
            return proxy, scores, found


def _other_taus(proxy: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    return {
        "trainings are averaged first: that hides the noise of one training": _tau(proxy, scores.mean(1)),
        "only the first training is used": _tau(proxy, scores[:, 0]),
        "that is Spearman's rho": np.mean([stats.spearmanr(proxy, s).statistic for s in scores.T]),
        "that is Pearson's r, which is no rank correlation": np.mean([np.corrcoef(proxy, s)[0, 1] for s in scores.T]),
        "proxy and scores are negated against each other": -np.mean([_tau(proxy, s) for s in scores.T]),
    }


def _pairs(scores: np.ndarray) -> dict[str, Any]:
    """Return what wrong pairs of trainings would agree by."""
    each, mean = scores.T, scores.mean(1)
    return {
        "each training is also compared with itself": np.mean([_tau(a, b) for a in each for b in each]),
        "trainings are compared with their own mean, which holds them": np.mean([_tau(a, mean) for a in each]),
        "only one pair of trainings is used": _tau(each[0], each[1]),
    }


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    return float(stats.kendalltau(x, y).statistic)
