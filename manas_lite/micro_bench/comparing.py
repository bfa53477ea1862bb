"""Whether searches beat another kind of search that spends as much, and how sure one can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from manas_lite.micro_bench.ranks import spread
from manas_lite.micro_bench.searches import Trace, at_cost, gain
from manas_lite.micro_bench.table import MicroBench

__all__ = ["Comparison", "against"]


@dataclass(frozen=True)
class Comparison:
    """Mean advantage with its 95 % interval, and the smallest one that so many searches find 4 times in 5; dB for PSNR.

    searches: how many were compared; ahead: the advantage of each.
    """

    mean: float
    low: float
    high: float
    detectable: float
    searches: int
    ahead: tuple[float, ...]

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        """`undecided` where the interval holds 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return (
            f"{self.mean:+.2f}, 95 % interval [{self.low:+.2f}, {self.high:+.2f}]: {self.verdict} "
            f"(the least that {self.searches} searches would show: {self.detectable:.2f})"
        )


def against(
    bench: MicroBench, searches: Sequence[Trace], baseline: Sequence[Trace], column: str = "val_psnr"
) -> Comparison:
    """Each search's last choice against the mean of the baseline's choices after the *same total cost*.

    baseline: many replays of one kind of search, such as random search. Until its first training is done it holds an
    architecture drawn blindly, which gains nothing.

    Two things vary: which supernet was searched (n of them), and how the choices happened to train in the table (m
    seeds). The standard error holds both, sqrt(s^2 / n + noise^2 / m), as if all searches chose one architecture, the
    worst case; t with n - 1 degrees (this kit's choice). ValueError for fewer than two searches, or a baseline that
    stopped before the searches did.
    """
    if len(searches) < 2:
        raise ValueError(f"{len(searches)} search to compare: at least two are needed to see how far they vary")
    spent = np.array([trace.seconds[-1] for trace in searches])
    shortest = min((trace.seconds for trace in baseline), key=lambda seconds: seconds[-1])
    if shortest[-1] < spent.max():
        raise ValueError(
            f"the baseline stops after {shortest[-1]:.0f} s ({len(shortest)} trainings), a search took "
            f"{spent.max():.0f} s: give the baseline more trainings, about "
            f"{np.ceil(1.2 * len(shortest) * spent.max() / shortest[-1]):.0f}"
        )
    held = np.array([at_cost(trace, gain(bench, trace, column), spent) for trace in baseline])
    ahead = np.array([gain(bench, trace, column)[-1] for trace in searches]) - np.nan_to_num(held).mean(0)
    n, scores = len(ahead), bench.scores(column)
    error = np.sqrt(ahead.var(ddof=1) / n + spread(scores).noise ** 2 / scores.shape[1])
    t, power = stats.t.ppf([0.975, 0.8], n - 1)
    mean = float(ahead.mean())
    low, high, least = (float(v) for v in (mean - t * error, mean + t * error, (t + power) * error))
    return Comparison(mean, low, high, least, n, tuple(map(float, ahead)))
