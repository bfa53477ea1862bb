"""Checkers about searching, deriving and training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import checker, expect, rule_out, same
from manas_lite.networks.ops import OPERATIONS

__all__ = ["darts_step", "derive", "internal_loss"]

Derivative = Callable[[float, float], float]


class Derivatives(NamedTuple):
    """The first derivatives of the two losses, each a function of (w, a)."""

    train_w: Derivative
    train_a: Derivative
    val_w: Derivative
    val_a: Derivative


TOY = Derivatives(
    train_w=lambda w, a: 2 * w - 2 * a,
    train_a=lambda w, a: 2 * a - 2 * w,
    val_w=lambda w, a: a,
    val_a=lambda w, a: w - 2,
)


def _derivatives(c: np.ndarray) -> Derivatives:
    return Derivatives(
        train_w=lambda w, a: c[0] * w + c[1] * a + c[2] * a * a * w,
        train_a=lambda w, a: c[1] * w + c[2] * a * w * w,
        val_w=lambda w, a: c[3] * w + c[4] * a,
        val_a=lambda w, a: c[4] * w + c[5] * a,
    )


@checker
def darts_step(attempt: Callable[[float, float, float, Derivatives, float], float], rng: np.random.Generator) -> None:
    """Check attempt(w, a, xi, d, radius) -> dL_val/da through one step of size xi on L_train, by finite difference."""
    # L_train = c0 w^2/2 + c1 a w + c2 a^2 w^2/2,  L_val = c3 w^2/2 + c4 a w + c5 a^2/2
    w, a, xi, radius = 1.3, 0.7, 0.4, 0.3  # the difference is exact for these losses, however wide
    v = cross = 0.0
    while min(abs(v), abs(cross)) < 0.3:  # both terms must count
        c = rng.uniform(0.5, 2, size=6) * rng.choice([-1, 1], size=6)
        d = _derivatives(c)
        ahead = w - xi * d.train_w(w, a)
        v, cross = d.val_w(ahead, a), c[1] + 2 * c[2] * a * w  # cross: d^2 L_train / da dw
    direct = d.val_a(ahead, a)
    true, eps = direct - xi * cross * v, radius / abs(v)
    found = float(attempt(w, a, xi, d, radius))

    near = 1e-4 * max(1.0, abs(true))
    slip = {"the precedence bug: `(p - n) / 2 * eps` multiplies by epsilon": direct - xi * cross * v * eps * eps}
    rule_out(found, slip, true, "which part is divided by two, and what happens to epsilon then?", near)
    rule_out(found, {"the second-order term is missing": direct}, true, "how does w' depend on a?", near)
    wrong = {
        "the second-order term has the wrong sign": direct + xi * cross * v,
        "L_val is taken at w, not after the virtual step": d.val_a(w, a) - xi * cross * d.val_w(w, a),
        "the factor xi of the second-order term is missing": direct - cross * v,
    }
    rule_out(found, wrong, true, "w' = w - xi * ...", near)
    hint = "follow the formula at the top of the section"
    expect(same(found, true, near), f"{found:.5f}, expected another number", hint)
    for step, goal in ((0.0, 2.0), (0.5, 1.0)):
        w, a = -2.0, 2.0
        for _ in range(600):
            a -= 0.1 * float(attempt(w, a, step, TOY, radius))
            w -= 0.1 * TOY.train_w(w, a)
        message = f"with xi = {step:g} the toy ends at a = {a:.2f}, w = {w:.2f}"
        expect(abs(a - goal) < 0.02 and abs(w - goal) < 0.02, message, "with xi = 0 nothing of second order is left")


Derive = Callable[[Tensor, Tensor, Sequence[str], bool], tuple[Sequence[str], Sequence[str]]]


@checker
def derive(attempt: Derive, rng: np.random.Generator) -> None:
    """Check attempt(alpha (modules, 2), beta (edges, n), operations, allow_none) -> (module names, operation names)."""
    for trial in range(20):
        names = [str(name) for name in rng.permutation(list(OPERATIONS))]
        none = names.index("none")
        alpha = torch.from_numpy(rng.normal(size=(6, 2)))
        beta = torch.from_numpy(rng.normal(size=(15, len(names))))
        leading, other = rng.permutation(15)[:2].tolist()
        beta[leading, none] = beta[other, 0] = 9.0  # `none` leads somewhere, and so does the first column
        modules, edges = (list(part) for part in attempt(alpha, beta, list(names), False))
        kinds = [("parallel", "fusion")[k] for k in alpha.argmax(1).tolist()]
        expect(len(modules) == 6 and len(edges) == 15, "one name a row: 6 modules and 15 edges were asked for")
        expect(modules == kinds, "modules are not those of the largest alpha", "columns: parallel, fusion")

        def best(column: int, beta: Tensor = beta, names: list[str] = names) -> list[str]:
            masked = beta.clone()
            masked[:, column] = -torch.inf
            return [names[k] for k in masked.argmax(1).tolist()]

        true = best(none)
        hint = "`none` may stand in any column: look it up by name"
        expect(edges != best(0) or none == 0, "column 0 is masked, whatever operation stands there", hint)
        hint = "mask the column before you take the largest"
        expect("none" not in edges, f"`none` wins an edge in trial {trial + 1} of 20", hint)
        if edges != true:
            blocks = [true[3 * (k // 3)] for k in range(15)]
            expect(edges != blocks, "all edges of a block take its first row", "each edge has a row of its own")
            expect(edges != true[:3] * 5, "every block takes the rows of block one", "advance by block")
            expect(False, "an edge takes another operation than its own row's best one", "row k decides edge k")
        _, free = attempt(alpha, beta, list(names), True)
        free = list(free)
        expect(free == [names[k] for k in beta.argmax(1).tolist()], "with allow_none=True `none` cannot win")


@checker
def internal_loss(attempt: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    """Check attempt(outputs (B, R, 3, h, w)) -> 3/P * sum over the P pairs of MSE, averaged over scenes."""
    for rains in (2, 3, 5):
        outputs = torch.from_numpy(rng.uniform(size=(3, rains, 3, 4, 5)))
        pairs = [(k, j) for k in range(rains) for j in range(k)]
        total = sum(((outputs[:, k] - outputs[:, j]) ** 2).mean() for k, j in pairs)
        true = float(3 * total / len(pairs))
        found, case, near = float(attempt(outputs.clone())), f"R = {rains}", 1e-9 * max(1.0, true)
        rule_out(found, {f"{case}: twice too large": 2 * true}, true, "is each pair counted in both orders?", near)
        hint = "an average over the scenes, not their sum"
        rule_out(found, {f"{case}: three times too large": 3 * true}, true, hint, near)
        grows = {f"{case}: grows with the number of pairs": len(pairs) / 3 * true}
        rule_out(found, grows, true, "another R must not change the scale", near)
        expect(same(found, true, near), f"{case}: {found:.5f} is not the sum over pairs")
        shuffled = float(attempt(outputs[:, torch.from_numpy(rng.permutation(rains))]))
        expect(same(shuffled, true, near), f"{case}: it depends on the order of the rains")
    single = float(attempt(torch.rand(2, 1, 3, 4, 5)))
    expect(single == 0, f"R = 1 gives {single}: with no pair there is nothing to disagree", "0 / 0 is not 0")
