"""What a ranking of architectures is worth: rank agreement, the noise ceiling, spread, the expected best of n."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Pairs = list[tuple[np.ndarray, np.ndarray]]  # pairs of rankings of the same architectures


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau between two rankings with its 95 % interval: 1 is the same order, 0 none, -1 the reverse."""

    tau: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["agrees", "undecided", "disagrees"]:
        """`undecided` where the interval holds 0."""
        return "agrees" if self.low > 0 else "disagrees" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return f"tau = {self.tau:+.2f} [{self.low:+.2f}, {self.high:+.2f}]: {self.verdict}"


def agreement(proxy: np.ndarray, scores: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Agreement:
    """Return the mean Kendall's tau (b: ties are allowed for) between a proxy and each training's scores.

    Each training counts by itself, and not their mean, so that the number compares with `noise_ceiling`. The interval
    comes from a bootstrap over architectures and repetitions of the proxy: supernets that disagree say little of the
    next one. With a handful of repetitions it is too narrow.

    Args:
        proxy: (architectures,), or (n, architectures) for n repetitions of it, such as supernets.
        scores: (architectures, seeds).
        draws, seed: number and seed of the bootstrap's resamples.

    Raises:
        ValueError: the numbers of architectures differ, or a ranking is constant and so ranks nothing.
    """
    proxies = np.atleast_2d(np.asarray(proxy, dtype=float))
    return _bootstrapped([[(each, column) for column in scores.T] for each in proxies], draws, seed)


def noise_ceiling(scores: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Agreement:
    """Return how far two trainings of the same architectures agree: the mean tau over the pairs of seeds.

    A proxy that does as well is as good as a training. Only one without any noise of its own could pass it. The scores
    are (architectures, seeds), with at least two seeds; `draws` and `seed` are those of `agreement`.
    """
    count = scores.shape[1]
    if count < 2:
        raise ValueError("the noise ceiling needs trainings with two seeds at least")
    return _bootstrapped([[(scores[:, k], scores[:, j]) for k in range(count) for j in range(k)]], draws, seed)


@dataclass(frozen=True)
class Spread:
    """Standard deviations of scores, in the scores' unit."""

    architectures: float
    """Between architectures, with the noise taken off."""
    noise: float
    """Between trainings of one architecture, with the common shift of each seed taken off."""

    @property
    def reliability(self) -> float:
        """Share of the variance of single trainings that is the architectures': 1 without noise, 0 all noise."""
        total = self.architectures**2 + self.noise**2
        return self.architectures**2 / total if total else 0.0


def spread(scores: np.ndarray) -> Spread:
    """Split the variance of scores, (architectures, seeds), into architecture + seed + noise.

    Source: two-way analysis of variance without repetition.
    """
    count, seeds = scores.shape
    if count < 2 or seeds < 2:
        raise ValueError(f"{count} architectures and {seeds} seeds: at least two of each are needed")
    rows = scores.mean(1, keepdims=True)
    noise = ((scores - rows - scores.mean(0) + scores.mean()) ** 2).sum() / ((count - 1) * (seeds - 1))
    between = max(0.0, float(rows.var(ddof=1)) - noise / seeds)
    return Spread(float(np.sqrt(between)), float(np.sqrt(noise)))


def expected_best(values: np.ndarray, n: int, *, replacement: bool = False) -> float:
    """Return the expected maximum of n draws from N values, exactly: the mean of an order statistic.

    The i-th smallest value is the best of n draws with probability

        C(i-1, n-1) / C(N, n)            without replacement
        (i / N)^n - ((i-1) / N)^n        with replacement

    Source: J. Dodge et al., *Show Your Work*, EMNLP 2019, arXiv 1909.03004.
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


def _bootstrapped(groups: list[Pairs], draws: int, seed: int) -> Agreement:
    """Return the mean over groups of the mean tau over their pairs; the interval redraws architectures and groups.

    A resample is a row of counts: how often each architecture was drawn. All pairs share it, and the first row draws
    each architecture once, which gives tau itself.
    """
    count = len(groups[0][0][0])
    for x, y in (pair for pairs in groups for pair in pairs):
        if len(x) != count or len(y) != count:
            raise ValueError(f"rankings of {len(x)} and {len(y)} architectures")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            raise ValueError("a constant ranks nothing: tau is not defined")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    counts = np.concatenate([np.ones((1, count)), drawn])
    taus = np.array([np.mean([_taus(x, y, counts) for x, y in pairs], axis=0) for pairs in groups])
    shares = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws) / len(groups)
    low, high = np.nanquantile((shares.T * taus[:, 1:]).sum(0), [0.025, 0.975])
    return Agreement(float(taus[:, 0].mean()), float(low), float(high))


def _taus(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of resamples of (x, y), (draws,), from how often each entry is drawn, (draws, entries).

    The sign of every pair is computed once and weighed by the counts, which a thousand resamples share. That is why
    `scipy.stats.kendalltau`, called for each resample, is not used. A draw whose pairs are all tied gives NaN.

        (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)
    """
    sx, sy = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    agree, in_x, in_y = (((counts @ signs) * counts).sum(1) for signs in (sx * sy, sx**2, sy**2))
    with np.errstate(invalid="ignore"):
        return agree / np.sqrt(in_x * in_y)
