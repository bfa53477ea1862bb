"""Checkers about evidence: intervals, and tests that find faults."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from manas_lite.course.checks.base import Misconception, checker, expect
from manas_lite.networks.modules import Branches, FusionModule

Interval = Callable[[np.ndarray, np.random.Generator], tuple[float, float]]


@checker
def nested_bootstrap(attempt: Interval, rng: np.random.Generator) -> None:
    """attempt(differences (searches, images), rng) -> (low, high), a 95 % interval of the mean."""
    covered, ratios, trials = 0, [], 120
    for _ in range(trials):
        truth = rng.normal()
        searches, images = 12, 20
        differences = truth + rng.normal(0, 0.6, (searches, 1)) + rng.normal(0, 0.3, (searches, images))
        low, high = (float(value) for value in attempt(differences.copy(), rng))
        expect(low <= high, "low is above high")
        covered += low <= truth <= high
        means = differences.mean(1)
        ratios.append((high - low) / (2 * 1.96 * means.std() / np.sqrt(searches)))
    ratio = float(np.median(ratios))
    hint = "pictures of one network are no independent runs: what was repeated, and how often?"
    expect(
        ratio > 0.6, f"images are counted as runs: only {covered / trials:.0%} of the intervals hold the truth", hint
    )
    expect(ratio < 1.6, f"intervals are {ratio:.1f} times too wide", "2.5 % and 97.5 % of the resampled means")
    expect(
        covered / trials > 0.8,
        f"only {covered / trials:.0%} of 120 intervals hold the truth",
        "resample searches first",
    )


class _Mutating(FusionModule):
    def forward(self, x: Branches) -> Branches:
        fused = super().forward(x)
        x[0] = fused[0]
        return fused


class _Sequential(FusionModule):
    def forward(self, x: Branches) -> Branches:
        x = list(x)
        for i in range(len(x)):  # later rows read rows that are fused already
            x[i] = super().forward(x)[i]
        return x


class _NoUp(FusionModule):
    def forward(self, x: Branches) -> Branches:
        fused = []
        for i in range(len(x)):
            fused.append(super().forward([b if j <= i else torch.zeros_like(b) for j, b in enumerate(x)])[i])
        return fused


class _NoSkip(FusionModule):
    def forward(self, x: Branches) -> Branches:
        outputs = []
        for i in range(len(x)):
            without = [b if j != i else torch.zeros_like(b) for j, b in enumerate(x)]
            outputs.append(F.relu(super().forward(without)[i]))
        return outputs


MUTANTS: dict[str, type[FusionModule]] = {
    "one that writes into its caller's list": _Mutating,
    "one whose later rows read rows that are fused already": _Sequential,
    "one without the paths from low to high resolution": _NoUp,
    "one that forgets the branch itself": _NoSkip,
}


@checker
def mutants(attempt: Callable[[Any], None], rng: np.random.Generator) -> None:
    """attempt(module class) must raise AssertionError for a faulty fusion module, and nothing for a good one."""
    for _ in range(3):
        torch.manual_seed(int(rng.integers(2**31)))
        try:
            attempt(FusionModule)
        except AssertionError as error:
            raise Misconception(f"your test fails the correct module: {error}", "compare with a tolerance?") from None
    survivors = []
    for name, mutant in MUTANTS.items():
        try:
            attempt(mutant)
            survivors.append(name)
        except AssertionError:
            continue
    hint = "what must the output equal, row by row, and what must be left as it was?"
    expect(
        not survivors,
        f"{4 - len(survivors)} of 4 faulty modules found; alive: {survivors[0] if survivors else ''}",
        hint,
    )
