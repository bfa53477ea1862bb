"""The checker about tests: a test must fail on faulty fusion modules, and on no good one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from manas_course.checks.base import Misconception, checker, expect
from manas_lite.networks.modules import Branches, FusionModule

__all__ = ["mutants"]


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


def _blind(sees: Callable[[int, int], bool]) -> type[FusionModule]:
    """Return a module in which a row sees only some branches; the others are black to it."""

    class Blind(FusionModule):
        def forward(self, x: Branches) -> Branches:
            rows = range(len(x))
            seen = [[b if sees(row, j) else torch.zeros_like(b) for j, b in enumerate(x)] for row in rows]
            return [super(Blind, self).forward(seen[row])[row] for row in rows]

    return Blind


MUTANTS: dict[str, type[FusionModule]] = {
    "one that writes into its caller's list": _Mutating,
    "one whose later rows read rows that are fused already": _Sequential,
    "one without the paths from low to high resolution": _blind(lambda row, branch: branch <= row),
    "one that forgets the branch itself": _blind(lambda row, branch: branch != row),
}


@checker
def mutants(attempt: Callable[[Any], None], rng: np.random.Generator) -> None:
    """Check that attempt(module class) raises AssertionError for a faulty fusion module, and nothing for a good one."""
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
    found = f"{len(MUTANTS) - len(survivors)} of {len(MUTANTS)} faulty modules found"
    hint = "what must the output equal, row by row, and what must be left as it was?"
    expect(not survivors, f"{found}; alive: {''.join(survivors[:1])}", hint)
