"""The checker about tests: a test must fail on faulty fusion modules, and on no good one."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from manas_course.checks.base import Attempt, checker, expect
from manas_lite.networks.modules import Branches, FusionModule

__all__ = ["mutants"]

Forward = Callable[[FusionModule, Branches], Branches]


def _row(module: FusionModule, x: Branches, row: int, sees: Callable[[int], bool] = lambda branch: True) -> Tensor:
    """Return one row of a fusion module, in which only some branches are seen; the others are black to it."""
    return FusionModule.forward(module, [b if sees(j) else torch.zeros_like(b) for j, b in enumerate(x)])[row]


def _blind(sees: Callable[[int, int], bool]) -> Forward:
    return lambda module, x: [_row(module, x, row, lambda branch, row=row: sees(row, branch)) for row in range(len(x))]  # type: ignore[misc]


def _lacking(row: int, branch: int) -> Forward:
    return _blind(lambda r, b: (r, b) != (row, branch))


def _mutating(module: FusionModule, x: Branches) -> Branches:
    fused = FusionModule.forward(module, x)
    x[0] = fused[0]
    return fused


def _mutating_last(module: FusionModule, x: Branches) -> Branches:
    fused = FusionModule.forward(module, x)
    x[-1] = fused[-1]
    return fused


def _in_place(module: FusionModule, x: Branches) -> Branches:
    fused = FusionModule.forward(module, x)
    with torch.no_grad():
        x[1].copy_(fused[1])
    return fused


def _sequential(module: FusionModule, x: Branches) -> Branches:
    x = list(x)
    for i in range(len(x)):  # later rows read rows that are fused already
        x[i] = _row(module, x, i)
    return x


def _changed(row: int, change: Callable[[Tensor], Tensor]) -> Forward:
    def forward(module: FusionModule, x: Branches) -> Branches:
        fused = list(FusionModule.forward(module, x))
        fused[row] = change(fused[row])
        return fused

    return forward


def _unrectified(module: FusionModule, x: Branches) -> Branches:
    """Return the sums, below 0 as well: what relu takes away is what the negated branches leave."""
    size = [branch.shape[-2:] for branch in x]
    paths = [[x[i] if i == j else module.paths[f"{j}to{i}"](x[j]) for j in range(len(x))] for i in range(len(x))]
    up = nn.functional.interpolate
    return [sum(p if p.shape[-2:] == size[i] else up(p, size=size[i]) for p in row) for i, row in enumerate(paths)]  # type: ignore[misc]


def _rewritten(module: FusionModule, x: Branches) -> Branches:
    return [branch.relu() for branch in _unrectified(module, x)]


def _module(forward: Forward) -> type[FusionModule]:
    """Return a class with this forward. Its name says nothing: a test must look at what a module does."""
    return type("FusionModule", (FusionModule,), {"forward": forward, "__module__": FusionModule.__module__})


GOOD: dict[str, Forward] = {
    "as it is": lambda module, x: FusionModule.forward(module, x),
    "in another order of the sum": _rewritten,
}
FAULTY: dict[str, Forward] = {
    "one that writes into its caller's list": _mutating,
    "one that writes into the end of its caller's list": _mutating_last,
    "one that writes into its caller's tensors": _in_place,
    "one whose later rows read rows that are fused already": _sequential,
    "one without the paths from low to high resolution": _blind(lambda row, branch: branch <= row),
    "one without the paths from high to low resolution": _blind(lambda row, branch: branch >= row),
    "one that forgets the branch itself": _blind(lambda row, branch: branch != row),
    **{
        f"one whose row {row} forgets branch {branch}": _lacking(row, branch) for row in range(3) for branch in range(3)
    },
    **{f"one whose row {row} is 5 % too large": _changed(row, lambda y: 1.05 * y) for row in range(3)},
    "one whose values may lie below 0": _unrectified,
    "one whose outputs are all 0": lambda module, x: [torch.zeros_like(branch) for branch in x],
    "one that returns its branches as they are": lambda module, x: list(x),
    "one whose last row is mirrored": _changed(2, lambda y: y.flip(-1)),
}


@checker(rounds=2)
def mutants(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check that attempt(module class) raises AssertionError for a faulty fusion module, and nothing for a good one."""

    def fails(forward: Forward) -> str | None:
        """Return what the test says against a module, or None."""
        torch.default_generator.manual_seed(int(rng.integers(2**31)))
        try:
            attempt(_module(forward), lets=(AssertionError,))
        except AssertionError as error:
            return str(error) or "AssertionError"
        return None

    for name, forward in GOOD.items():
        said = fails(forward)
        hint = "compare values with a tolerance; how a class is called or written says nothing"
        expect(said is None, f"your test fails a correct module ({name}): {said}", hint)
    survivors = [name for name, forward in FAULTY.items() if fails(forward) is None]
    found = f"{len(FAULTY) - len(survivors)} of {len(FAULTY)} faulty modules found"
    hint = "what must the output equal, row by row, and what must be left as it was?"
    expect(not survivors, f"{found}; alive: {''.join(survivors[:1])}", hint)
