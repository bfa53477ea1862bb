"""Three searches replayed on the table: what each would have chosen, after how many CPU seconds.

Every search is a pure function of (table, seed). It draws one training seed and trains with no other, as a search would
be run: each architecture that it trains shows the validation PSNR of that training and costs its seconds. A seed shifts
all architectures alike, so that scores from several seeds would be compared by shift, not by architecture. Test scores
stay locked.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from manas_lite.micro_bench.architectures import GATES, LETTERS, Architecture
from manas_lite.micro_bench.table import GradientSearch, MicroBench

__all__ = ["Trace", "at_cost", "evolution", "gain", "random_search", "replay"]


@dataclass(frozen=True)
class Trace:
    """A search over its cost. Entry t: after `seconds[t]` CPU seconds in all, the choice is architecture (row of the
    table) `chosen[t]`, because of its training (column) `trained[t]`; None where no training decided."""

    seconds: np.ndarray
    chosen: tuple[int, ...]
    trained: tuple[int | None, ...]


def random_search(bench: MicroBench, seed: int, trainings: int) -> Trace:
    """Train architectures drawn without repetition, keep the best on validation.

    trainings: how many, at most as many as the table has architectures.
    """
    _counted(trainings, 1, "trainings")
    if trainings > len(bench.architectures):
        raise ValueError(f"trainings={trainings}: the table has {len(bench.architectures)} architectures")
    lab = _Lab(bench, seed)
    for row in lab.rng.permutation(len(bench.architectures))[:trainings]:
        lab.train(int(row))
    return lab.trace()


def evolution(bench: MicroBench, seed: int, trainings: int, *, population: int = 10, sample: int = 3) -> Trace:
    """Regularised evolution (E. Real et al., AAAI 2019, arXiv 1802.01548): the best of `sample` random members has a
    child with one choice changed, and the oldest member dies. The choice is the best of all that were ever trained.

    trainings: how many in all, the first population included; an architecture that comes up again is paid for again,
    and scores the same: with the same seed it is the same training.
    """
    for name, value, least in (("trainings", trainings, 1), ("population", population, 2), ("sample", sample, 1)):
        _counted(value, least, name)
    if sample > population:
        raise ValueError(f"sample={sample} members cannot be drawn from a population of {population}")
    lab = _Lab(bench, seed)
    members: deque[tuple[float, int]] = deque(maxlen=population)  # the oldest falls out on the left
    for count in range(trainings):
        if count < population:
            row = int(lab.rng.integers(len(bench.architectures)))
        else:
            drawn = [members[k] for k in lab.rng.choice(population, sample, replace=False)]
            row = bench.row(mutated(bench.architectures[max(drawn)[1]], lab.rng))
        members.append((lab.train(row), row))
    return lab.trace()


def replay(bench: MicroBench, search: GradientSearch) -> Trace:
    """A gradient search on one supernet, as it was recorded: stopped after any of its epochs, it would hand over one
    architecture, which is then trained once (mean of that training's seconds over the seeds). Nothing is chosen by
    the outcome of a training."""
    rows = tuple(bench.row(architecture) for architecture in search.derived)
    final = bench.scores("seconds").mean(1)[list(rows)]
    return Trace(np.array(search.seconds) + final, rows, (None,) * len(rows))


def gain(bench: MicroBench, trace: Trace, column: str = "val_psnr") -> np.ndarray:
    """How much better the choices are than an average architecture, over the trace: dB for PSNR, (entries,).

    Measured on the trainings that the search has *not* chosen by: the one it has seen was picked for its luck. Seeds
    shift all architectures alike, so that every score counts from its own seed's mean. ValueError for a table with
    one seed, LeakError for a locked column.
    """
    if len(bench.seeds) < 2:
        raise ValueError("the table has one whole seed: a second training of the same architecture is needed")
    scores = bench.scores(column)
    scores -= scores.mean(0)
    return np.array(
        [
            np.delete(scores[row], [] if seen is None else seen).mean()
            for row, seen in zip(trace.chosen, trace.trained, strict=True)
        ]
    )


def at_cost(trace: Trace, values: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
    """Values of a trace's choices as a step function of total cost: what one has when stopping after `seconds`; NaN
    before the first training is done. Same shape as `seconds`."""
    order = np.argsort(trace.seconds, kind="stable")  # a replayed search's later choice may be cheaper to train
    place = np.searchsorted(trace.seconds[order], seconds, side="right") - 1
    return np.where(place >= 0, np.asarray(values)[order][np.maximum(place, 0)], np.nan)


def mutated(parent: Architecture, rng: np.random.Generator) -> Architecture:
    """The parent with one of its choices changed, never into itself: a module, or the gate of all edges."""
    places = len(parent.modules) + 1
    place = int(rng.integers(places))
    if place == places - 1:
        others = [gate for gate in GATES if gate != parent.gate]
        return parent._replace(gate=others[int(rng.integers(len(others)))])
    letters = list(parent.modules)
    (letters[place],) = set(LETTERS) - {letters[place]}
    return parent._replace(modules="".join(letters))


class _Lab:
    """Trains by looking up, with one training seed, keeps the best on validation and counts the seconds."""

    def __init__(self, bench: MicroBench, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._column = int(self.rng.integers(len(bench.seeds)))
        self._scores, self._seconds = (bench.scores(name)[:, self._column] for name in ("val_psnr", "seconds"))
        self._best = -np.inf
        self._steps: list[tuple[float, int]] = []

    def train(self, row: int) -> float:
        """Validation PSNR of an architecture, trained with the search's training seed."""
        score = float(self._scores[row])
        spent, choice = self._steps[-1] if self._steps else (0.0, row)
        if score > self._best:
            self._best, choice = score, row
        self._steps.append((spent + float(self._seconds[row]), choice))
        return score

    def trace(self) -> Trace:
        seconds, chosen = zip(*self._steps, strict=True)
        return Trace(np.array(seconds), chosen, (self._column,) * len(chosen))


def _counted(value: int, least: int, name: str) -> None:
    if value < least:
        raise ValueError(f"{name}={value}: expected at least {least}")
