"""Three searches replayed on the table, and whether one of them beats another that spends as much.

Every search is a pure function of (table, seed). It draws one training seed and trains with no other, as a real search
would. A seed shifts the scores of all architectures alike, so that scores from several seeds would be compared by their
shifts. Each training shows its validation PSNR and costs its CPU seconds. Test scores stay locked.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manas_course.micro_bench.architectures import GATES, LETTERS, Architecture
from manas_course.micro_bench.ranks import spread
from manas_course.micro_bench.table import GradientSearch, MicroBench


@dataclass(frozen=True)
class Trace:
    """A search over its cost: what it has chosen after each of its steps."""

    seconds: np.ndarray
    """CPU seconds spent in all, (steps,)."""
    chosen: tuple[int, ...]
    """The architecture in hand, as a row of the table."""
    trained: tuple[int | None, ...]
    """The training, as a column of the table, because of which it was chosen; None where no training decided."""


def random_search(bench: MicroBench, seed: int, trainings: int, *, within: np.ndarray | None = None) -> Trace:
    """Train this many architectures, drawn without repetition, and keep the best on validation.

    Args:
        bench: the table.
        seed: draws the architectures and the training seed.
        trainings: how many in all.
        within: which architectures may be drawn, (architectures,) of True and False: those that a budget allows. All by
            default.
    """
    _counted(trainings, 1, "trainings")
    rows = _allowed(bench, within)
    if trainings > len(rows):
        raise ValueError(f"trainings={trainings}: there are {len(rows)} architectures to draw from")
    rng = np.random.default_rng(seed)
    column = int(rng.integers(len(bench.seeds)))
    return _trace(bench, column, rng.permutation(rows)[:trainings])


def evolution(
    bench: MicroBench,
    seed: int,
    trainings: int,
    *,
    population: int = 10,
    sample: int = 3,
    within: np.ndarray | None = None,
) -> Trace:
    """Run regularised evolution and keep the best of all that were ever trained.

    The best of `sample` random members has a child with one choice changed, and the oldest member dies.

    Args:
        bench: the table.
        seed: draws the members, the mutations and the training seed.
        trainings: how many in all, the first population included. An architecture that comes up again is paid for
            again and scores the same: with the same seed it is the same training.
        population: how many members live at once.
        sample: how many of them compete to be the next parent, at most `population`.
        within: which architectures may live, (architectures,) of True and False: those that a budget allows. A child
            that may not is changed in one more choice, until it may. All may by default.

    Source: E. Real et al., AAAI 2019, arXiv 1802.01548.
    """
    for name, value, least in (("trainings", trainings, 1), ("population", population, 2), ("sample", sample, 1)):
        _counted(value, least, name)
    if sample > population:
        raise ValueError(f"sample={sample} members cannot be drawn from a population of {population}")
    rng = np.random.default_rng(seed)
    column = int(rng.integers(len(bench.seeds)))
    scores = bench.scores()[:, column]
    allowed = _allowed(bench, within)
    rows: list[int] = []
    members: deque[int] = deque(maxlen=population)  # the oldest falls out on the left
    for count in range(trainings):
        if count < population:
            row = int(allowed[rng.integers(len(allowed))])
        else:
            drawn = [members[k] for k in rng.choice(population, sample, replace=False)]
            parent = max(drawn, key=lambda member: (scores[member], member))
            row = bench.row(mutated(bench.architectures[parent], rng))
            while within is not None and not within[row]:  # ends: every architecture can be reached, one that may too
                row = bench.row(mutated(bench.architectures[row], rng))
        members.append(row)
        rows.append(row)
    return _trace(bench, column, np.array(rows))


def replay(bench: MicroBench, search: GradientSearch) -> Trace:
    """Return the trace of a recorded gradient search, stopped after each of its epochs.

    Stopped there, it hands over one architecture, which is then trained once. That training costs the mean of its
    seconds over the seeds. Nothing is chosen by the outcome of a training.
    """
    rows = tuple(bench.row(architecture) for architecture in search.derived)
    final = bench.scores("seconds").mean(1)[list(rows)]
    return Trace(np.array(search.seconds) + final, rows, (None,) * len(rows))


def gain(bench: MicroBench, trace: Trace, column: str = "val_psnr") -> np.ndarray:
    """Return how much better the choices of a trace are than an average architecture.

    They are measured on the trainings that the search has *not* chosen by: the one that it has seen was picked for its
    luck. Seeds shift all architectures alike, so that every score counts from the mean of its own seed.

    Returns:
        (steps,), in dB for PSNR.

    Raises:
        ValueError: the table has one seed only.
        LeakError: the column is locked.
    """
    if len(bench.seeds) < 2:
        raise ValueError("the table has one whole seed: a second training of the same architecture is needed")
    scores = bench.scores(column)
    scores -= scores.mean(0)
    pairs = zip(trace.chosen, trace.trained, strict=True)
    return np.array([np.delete(scores[row], [] if seen is None else seen).mean() for row, seen in pairs])


def at_cost(trace: Trace, values: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
    """Return the values of a trace's choices, (steps,), as a step function of total cost.

    The result has the shape of `seconds`: what one has in hand when stopping then; NaN before the first training is
    done.
    """
    order = np.argsort(trace.seconds, kind="stable")  # a replayed search's later choice may be cheaper to train
    place = np.searchsorted(trace.seconds[order], seconds, side="right") - 1
    return np.where(place >= 0, np.asarray(values)[order][np.maximum(place, 0)], np.nan)


@dataclass(frozen=True)
class Comparison:
    """The mean advantage of searches over a baseline, with its 95 % interval; dB for PSNR."""

    mean: float
    low: float
    high: float
    detectable: float
    """The smallest true advantage that this many searches find 4 times in 5."""
    searches: int
    """How many searches were compared."""
    ahead: tuple[float, ...]
    """The advantage of each search."""
    p_equivalent: float
    """The p of a true difference of at least the margin of `manas_course.chance`."""

    @property
    def verdict(self) -> Literal["better", "worse", "equivalent", "undecided"]:
        """`equivalent` within the margin, else `undecided` where the interval holds 0."""
        if self.p_equivalent <= 0.05:
            return "equivalent"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        return (
            f"{self.mean:+.2f}, 95 % interval [{self.low:+.2f}, {self.high:+.2f}]: {self.verdict} "
            f"(the least that {self.searches} searches would show: {self.detectable:.2f})"
        )


def against(
    bench: MicroBench, searches: Sequence[Trace], baseline: Sequence[Trace], column: str = "val_psnr"
) -> Comparison:
    """Compare each search's last choice with the mean of the baseline's choices after the *same total cost*.

    Two things vary: which of n supernets was searched, and how the choices happened to train with the table's m seeds.
    The squared errors of the two are joined as in `manas_course.chance`. Of the trainings it is that of searches which
    all chose one architecture, which is the worst case:

        s^2 / n and noise^2 / m

    Args:
        bench: the table.
        searches: n searches, at least two.
        baseline: many replays of one kind of search, such as random search. Until its first training is done, each
            holds an architecture drawn blindly, which gains nothing.
        column: the scores that decide.

    Raises:
        ValueError: there are fewer than two searches, or the baseline stops before the searches do.

    Source: this kit's choice.
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
    from manas_course.chance import Chance  # brings scipy.stats, which is slow to import and used here alone

    n, scores = len(ahead), bench.scores(column)
    rows, seeds = scores.shape
    chance = Chance(ahead.var(ddof=1) / n, spread(scores).noise ** 2 / seeds, 0.0, (n - 1, (rows - 1) * (seeds - 1), 1))
    mean, half = float(ahead.mean()), float(chance.half_width())
    p = float(chance.equivalence_p(mean))
    return Comparison(mean, mean - half, mean + half, chance.detectable(), n, tuple(map(float, ahead)), p)


def mutated(parent: Architecture, rng: np.random.Generator) -> Architecture:
    """Return the parent with one of its choices changed, never into itself: a module, or the gate of all edges."""
    places = len(parent.modules) + 1
    place = int(rng.integers(places))
    if place == places - 1:
        others = [gate for gate in GATES if gate != parent.gate]
        return parent._replace(gate=others[int(rng.integers(len(others)))])
    letters = list(parent.modules)
    (letters[place],) = set(LETTERS) - {letters[place]}
    return parent._replace(modules="".join(letters))


def _trace(bench: MicroBench, column: int, rows: np.ndarray) -> Trace:
    """Return the trace of a search that trains these rows in turn, with one seed, and keeps the best on validation."""
    scores, seconds = (bench.scores(name)[rows, column] for name in ("val_psnr", "seconds"))
    better = scores > np.maximum.accumulate(np.concatenate([[-np.inf], scores[:-1]]))
    best = np.maximum.accumulate(np.where(better, np.arange(len(rows)), 0))  # the step that trained what is in hand
    return Trace(seconds.cumsum(), tuple(rows[best].tolist()), (column,) * len(rows))


def _allowed(bench: MicroBench, within: np.ndarray | None) -> np.ndarray:
    """Return the rows of the architectures that may be chosen; raise ValueError where there are none."""
    count = len(bench.architectures)
    rows = np.flatnonzero(np.ones(count, bool) if within is None else within)
    if within is not None and np.shape(within) != (count,):
        raise ValueError(f"within has the shape {np.shape(within)}: expected ({count},), one per architecture")
    if not len(rows):
        raise ValueError("no architecture of the table is within the budget")
    return rows


def _counted(value: int, least: int, name: str) -> None:
    if value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")
