"""What a ranking of architectures is worth: rank agreement, the noise ceiling, spread, the expected best of n."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Agreement", "Spread", "agreement", "expected_best", "noise_ceiling", "spread"]

Verdict = Literal["agrees", "undecided", "disagrees"]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau between two rankings with its 95 % interval: 1 the same order, 0 none, -1 reversed."""

    tau: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """`undecided` where the interval holds 0."""
        return "agrees" if self.low > 0 else "disagrees" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"tau = {self.tau:+.2f} [{self.low:+.2f}, {self.high:+.2f}]: {self.verdict}"


def agreement(proxy: np.ndarray, scores: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Agreement:
    """Mean Kendall's tau (b: ties are allowed for) between a proxy and each training's scores.

    proxy: (architectures,), or (n, architectures) for n repetitions of it, such as supernets. scores: (architectures,
    seeds). Each seed by itself, and not their mean, so that the number compares with `noise_ceiling`. The interval is
    that of a bootstrap over architectures and repetitions: supernets that disagree say little of the next one. Over a
    handful of repetitions it is too narrow. ValueError for a constant proxy, which ranks nothing.
    """
    proxies = np.atleast_2d(np.asarray(proxy, dtype=float))
    return _bootstrapped([[(each, column) for column in scores.T] for each in proxies], draws, seed)


def noise_ceiling(scores: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Agreement:
    """How far two trainings of the same architectures agree: mean tau over the pairs of seeds, (architectures, seeds).

    A proxy that does as well is as good as a training; one without any noise of its own could pass it. ValueError for
    a single seed.
    """
    count = scores.shape[1]
    if count < 2:
        raise ValueError("the noise ceiling needs trainings with two seeds at least")
    pairs = [(scores[:, k], scores[:, j]) for k in range(count) for j in range(k)]
    return _bootstrapped([pairs], draws, seed)


@dataclass(frozen=True)
class Spread:
    """Standard deviations in the scores' unit: between architectures (the noise taken off), and of the noise between
    trainings of one architecture (the seeds' common shift taken off)."""

    architectures: float
    noise: float

    @property
    def reliability(self) -> float:
        """Share of the variance of single trainings that is the architectures': 1 without noise, 0 all noise."""
        total = self.architectures**2 + self.noise**2
        return self.architectures**2 / total if total else 0.0


def spread(scores: np.ndarray) -> Spread:
    """Two-way analysis of variance without repetition, (architectures, seeds): architecture + seed + noise."""
    count, seeds = scores.shape
    if count < 2 or seeds < 2:
        raise ValueError(f"{count} architectures and {seeds} seeds: at least two of each are needed")
    rows = scores.mean(1, keepdims=True)
    noise = ((scores - rows - scores.mean(0) + scores.mean()) ** 2).sum() / ((count - 1) * (seeds - 1))
    between = max(0.0, float(rows.var(ddof=1)) - noise / seeds)
    return Spread(float(np.sqrt(between)), float(np.sqrt(noise)))


def expected_best(values: np.ndarray, n: int, *, replacement: bool = False) -> float:
    """Expected maximum of n draws from `values`, exactly: the mean of an order statistic.

    Without replacement the i-th smallest of N is the best with probability C(i-1, n-1) / C(N, n); with replacement with
    (i/N)^n - ((i-1)/N)^n (J. Dodge et al., *Show Your Work*, EMNLP 2019, arXiv 1909.03004).
    """
    ordered = np.sort(np.ravel(values))
    count = len(ordered)
    if n < 1 or (n > count and not replacement):
        raise ValueError(f"n={n}: expected 1 to {count} draws")
    ranks = np.arange(count + 1)
    if replacement:
        below = (ranks / count) ** n
    else:  # P(all n draws among the i smallest) = i (i-1) .. (i-n+1) / N (N-1) .. (N-n+1)
        below = np.prod([np.clip(ranks - k, 0, None) / (count - k) for k in range(n)], axis=0)
    return float(np.diff(below) @ ordered)


def _bootstrapped(groups: list[list[tuple[np.ndarray, np.ndarray]]], draws: int, seed: int) -> Agreement:
    """Mean over groups of the mean tau over their pairs of rankings of the same architectures; the interval redraws
    architectures, for all alike, and groups."""
    count = len(groups[0][0][0])
    for x, y in itertools.chain(*groups):
        if len(x) != count or len(y) != count:
            raise ValueError(f"rankings of {len(x)} and {len(y)} architectures")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            raise ValueError("a constant ranks nothing: tau is not defined")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    counts = np.concatenate([np.ones((1, count)), drawn])  # how often each architecture is in; first: each once
    taus = np.array([np.mean([_taus(x, y, counts) for x, y in pairs], axis=0) for pairs in groups])
    shares = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws) / len(groups)
    low, high = np.nanquantile((shares.T * taus[:, 1:]).sum(0), [0.025, 0.975])
    return Agreement(float(taus[:, 0].mean()), float(low), float(high))


def _taus(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of resamples of (x, y), (draws,), from how often each entry is drawn, (draws, entries).

    (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y). Every pair's sign is computed once and
    weighed by the counts, which a thousand resamples share; a draw whose pairs are all tied gives NaN.
    """
    sx, sy = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    agree, in_x, in_y = (((counts @ signs) * counts).sum(1) for signs in (sx * sy, sx**2, sy**2))
    with np.errstate(invalid="ignore"):
        return agree / np.sqrt(in_x * in_y)
