"""How far chance moves a mean difference: one model for intervals, p, equivalence and the planning of a study.

A mean difference between two arms depends on two things that were drawn by chance: a handful of searches, and a handful
of pictures. Another search finds another network, and another picture is harder or easier for one of the two arms. A
hundred pictures of one network say nothing about the next network, and ten networks say nothing about the next picture.
So each source gets a t test of its own, and a verdict has to hold against both.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

__all__ = ["LEVEL", "MARGIN", "SEARCH_DEVIATION", "Chance"]

MARGIN = 0.15
"""Arms whose difference is shown to be smaller than this, in dB, are called equivalent."""
SEARCH_DEVIATION = 0.55
"""The deviation between runs of one arm, in dB, to plan with. A probe with small networks found 0.5 to 0.65."""
LEVEL = 0.05
"""The share of wrong verdicts of a kind that a table of comparisons may have."""
COPIES = 1e-9
"""Searches whose means differ by less than this, in dB, are copies of one run."""


@dataclass(frozen=True)
class Chance:
    """How far chance moves a mean difference: its squared standard errors by source, with their degrees of freedom.

    Each source alone gives Student's interval, mean +- t * error. The half-widths of the two are joined like the sides
    of a right angle. What is left when searches and pictures are taken out, the rest, is in both errors, and is taken
    off once:

        a, b, r = (t * error)^2 of searches, pictures and rest
        half-width^2 = max(a, b) + max(0, min(a, b) - r)

    Where one source is all there is, this is exactly Student's interval. Where both count, it is wider than needed and
    never narrower. Without r that is a theorem: the probability that a squared normal number is below h is concave in
    h, and half-width^2 is a weighted mean of t^2 * chi^2 / freedom, for each of which the probability is right. With r
    it was seen by simulation over 3 to 10 searches and 8 to 30 pictures (tests/course/test_verdicts.py). The interval
    that is called 95 % covers 95 to 97 % in two settings of three. It covers 97 to 98 % where three searches and the
    pictures vary alike, and up to 99 % where there is nothing but the rest, which no handful of searches can tell from
    their own spread.

    Source: S. Banerjee 1960 (the joined interval); A. Owen, *The pigeonhole bootstrap*, 2007, and D. Barr et al.,
    *Random effects structure*, 2013 (both sources count); the rest, taken off once: this kit's choice.
    """

    searches: Any
    """The squared error from searches, in dB^2, a number or an array; infinite where it cannot be seen."""
    pictures: Any = 0.0
    """The squared error from pictures."""
    rest: Any = 0.0
    """What both errors hold of the rest."""
    freedom: tuple[float, float, float] = (1, 1, 1)
    """Degrees of freedom of the three."""

    @classmethod
    def of(cls, differences: np.ndarray) -> "Chance":
        """Return the chance in differences (..., searches, retrainings, pictures), in dB.

        Retrainings are averaged: they are nested in their search, and no network more. A single search or picture, and
        searches that are copies of one run, cannot show how far others would lie: their error is infinite.
        """
        cells = differences.mean(-2)
        n, m = cells.shape[-2:]
        rows, columns, mean = cells.mean(-1), cells.mean(-2), cells.mean((-1, -2))
        unseen = np.full(mean.shape, np.inf)
        searches = rows.var(-1, ddof=1) / n if n > 1 else unseen
        searches = np.where(np.sqrt(n * searches) < COPIES, np.inf, searches)
        pictures = columns.var(-1, ddof=1) / m if m > 1 else unseen
        left = cells - rows[..., None] - columns[..., None, :] + mean[..., None, None]
        freedom = ((n - 1) or 1, (m - 1) or 1, (n - 1) * (m - 1) or 1)
        return cls(searches, pictures, (left**2).sum((-1, -2)) / freedom[2] / (n * m), freedom)

    @classmethod
    def planned(cls, searches: int, deviation: float = SEARCH_DEVIATION) -> "Chance":
        """Return the chance in a study that is not run yet. Its pictures are taken to be many.

        A few pictures that differ among themselves hide more than this.

        Args:
            searches: searches of each arm.
            deviation: of the runs of one arm, in dB. A difference holds two runs, which a shared seed makes no more
                alike, and so varies by the square root of 2 times as much.

        Example:
            >>> f"{Chance.planned(3).detectable():.1f} dB, of twelve arms {Chance.planned(3).detectable(12):.1f} dB"
            '2.5 dB, of twelve arms 8.8 dB'
        """
        if searches < 2:
            return cls(math.inf)
        return cls(2 * deviation**2 / searches, freedom=(searches - 1, 1, 1))

    def half_width(self, level: float = 1 - LEVEL) -> Any:
        """Return half the width of the interval that holds the true difference this often (`level`, 0 to 1)."""
        return self._reach(1 - level)

    def _reach(self, wrong: Any) -> Any:
        """Return half the width of the interval that misses the true difference at most this often."""
        a, b, r = (
            special.stdtrit(freedom, wrong / 2) ** 2 * square
            for freedom, square in zip(self.freedom, (self.searches, self.pictures, self.rest), strict=True)
        )
        return np.sqrt(np.maximum(a, b) + np.maximum(0, np.minimum(a, b) - r))

    def p(self, distance: Any) -> Any:
        """Return the two-sided p of a distance in dB: the interval of level 1 - p just reaches it.

        The half-width falls as p grows, so that halving finds it, on a logarithmic scale from 1e-15 to 1.
        """
        low, high = np.full(np.shape(distance), math.log(1e-15)), np.zeros(np.shape(distance))
        for _ in range(30):
            middle = (low + high) / 2
            reached = self._reach(np.exp(middle)) > np.abs(distance)
            low, high = np.where(reached, middle, low), np.where(reached, high, middle)
        return np.exp(high)

    def equivalence_p(self, distance: Any, margin: float = MARGIN) -> Any:
        """Return the p of a true difference of at least `margin`, in dB either way, where `distance` was seen.

        These are two one-sided tests, of which the larger p counts. It is at most 0.05 exactly where the interval of
        level 0.9 lies within the margin. A large `p` is no such evidence: it may only say that little was measured.
        """
        room = margin - np.abs(distance)
        tail = self.p(room) / 2
        return np.where(room > 0, tail, 1 - tail)

    def power(self, difference: float, comparisons: int = 1) -> float:
        """Return how often a true difference of this many dB is found, 0 to 1, with its right sign.

        It is the share of the noncentral t distribution, shifted by the difference, that lies beyond the interval's
        half-width of level 1 - 0.05 / comparisons, both in standard errors. Its degrees of freedom are those that
        Satterthwaite gives to both errors together. With one source of chance this is exact.

        Args:
            difference: the true one, in dB.
            comparisons: how many arms are compared at once: this is Holm's strictest step.
        """
        error = self._error()
        if not 0 < error < math.inf:
            return float(error == 0 and difference > 0)
        n, m, _ = self.freedom
        freedom = (self.searches + self.pictures) ** 2 / (self.searches**2 / n + self.pictures**2 / m)
        return float(stats.nct.sf(self._reach(LEVEL / comparisons) / error, freedom, difference / error))

    def detectable(self, comparisons: int = 1, power: float = 0.8) -> float:
        """Return the smallest true difference in dB that is found this often; infinite where chance is unknown.

        Args:
            comparisons: how many arms are compared at once: this is Holm's strictest step.
            power: how often the difference is found, 0 to 1.
        """
        error = self._error()
        if not 0 < error < math.inf:
            return error
        most = float(4 * self._reach(LEVEL / comparisons) + 10 * error)
        return float(optimize.brentq(lambda difference: self.power(difference, comparisons) - power, 0, most))

    def _error(self) -> float:
        large, small = max(self.searches, self.pictures), min(self.searches, self.pictures)
        return math.sqrt(large + max(0.0, small - self.rest))
