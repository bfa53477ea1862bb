"""Checkers about searching, deriving and training."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import Attempt, Wrong, checker, compare, expect, listed, number, tensor
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
    """Return the derivatives of L_train = c0 w²/2 + c1 a w + c2 a² w²/2 + a w³ and L_val = c3 w²/2 + c4 a w + c5 a²/2.

    The term a w³ makes the difference depend on how wide it is, so that another epsilon gives another number.
    """
    return Derivatives(
        train_w=lambda w, a: c[0] * w + c[1] * a + c[2] * a * a * w + 3 * a * w * w,
        train_a=lambda w, a: c[1] * w + c[2] * a * w * w + w**3,
        val_w=lambda w, a: c[3] * w + c[4] * a,
        val_a=lambda w, a: c[4] * w + c[5] * a,
    )


def _darts(
    difference: Callable[..., float] | None = None,
    *,
    step: Callable[[float, float, float, Derivatives], float] = lambda w, a, xi, d: w - xi * d.train_w(w, a),
    width: Callable[[float, float], float] = lambda radius, v: radius / abs(v),
    factor: Callable[[float], float] = lambda xi: -xi,
    direct_at: Callable[[float, float], float] = lambda w, ahead: ahead,
) -> Callable[..., float]:
    """Return the DARTS step with one part replaced."""

    def answer(w: float, a: float, xi: float, d: Derivatives, radius: float) -> float:
        ahead = step(w, a, xi, d)
        v = d.val_w(ahead, a)
        eps = width(radius, v)

        def at(steps: float) -> float:
            return d.train_a(w + steps * eps * v, a)

        second = difference(at, eps) if difference else (at(1) - at(-1)) / (2 * eps)
        return d.val_a(direct_at(w, ahead), a) + factor(xi) * second

    return answer


@checker
def darts_step(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(w, a, xi, d, radius) -> dL_val/da through one step of size xi on L_train, by finite difference."""
    cases: dict[str, tuple[float, float, float, Derivatives, float]] = {}
    for xi, radius in ((0.4, 0.3), (0.1, 0.05), (0.25, 1.0)):
        v = cross = 0.0
        while min(abs(v), abs(cross)) < 0.3 or 0.7 < abs(v) < 1.5:  # both terms, and the length of v, must count
            c = rng.uniform(0.5, 2, size=6) * rng.choice([-1, 1], size=6)
            w, a = (float(x) for x in rng.uniform(0.5, 1.5, 2))
            d = _derivatives(c)
            v, cross = d.val_w(w - xi * d.train_w(w, a), a), c[1] + 2 * c[2] * a * w + 3 * w * w
        cases[f"xi = {xi:g}, radius = {radius:g}"] = w, a, xi, d, radius
    cases["xi = 0"] = w, a, 0.0, d, radius
    formula = "follow the formula at the top of the section"
    ahead, wide = "w' = w - xi * ...", "epsilon is the radius, divided by the length of v"
    wrong = [
        Wrong(
            "the precedence bug: `(p - n) / 2 * eps` multiplies by epsilon",
            _darts(lambda at, eps: (at(1) - at(-1)) / 2 * eps),
            "which part is divided by two, and what happens to epsilon then?",
        ),
        Wrong("the second-order term is missing", _darts(lambda at, eps: 0.0), "how does w' depend on a?"),
        Wrong(
            "that is the plain derivative at w: no virtual step, and no second-order term",
            lambda w, a, xi, d, radius: d.val_a(w, a),
            formula,
        ),
        Wrong("the second-order term has the wrong sign", _darts(factor=lambda xi: xi), "p - n, and a minus before it"),
        Wrong("L_val is taken at w, not after the virtual step", _darts(step=lambda w, a, xi, d: w), ahead),
        Wrong("the direct term is taken at w, not after the virtual step", _darts(direct_at=lambda w, ahead: w), ahead),
        Wrong("the virtual step goes uphill", _darts(step=lambda w, a, xi, d: w + xi * d.train_w(w, a)), ahead),
        Wrong(
            "the virtual step is taken on L_val, not on L_train",
            _darts(step=lambda w, a, xi, d: w - xi * d.val_w(w, a)),
            ahead,
        ),
        Wrong("the virtual step has the size 1, not xi", _darts(step=lambda w, a, xi, d: w - d.train_w(w, a)), ahead),
        Wrong("the factor xi of the second-order term is missing", _darts(factor=lambda xi: -1.0), formula),
        Wrong(
            "the difference is divided by epsilon, not by 2 epsilon",
            _darts(lambda at, eps: (at(1) - at(-1)) / eps),
            "from -epsilon to +epsilon it is how far?",
        ),
        Wrong(
            "the difference is not divided by its width",
            _darts(lambda at, eps: at(1) - at(-1)),
            "p - n, over how far apart they are",
        ),
        Wrong(
            "the difference looks ahead only: it errs by more than the one on both sides",
            _darts(lambda at, eps: (at(1) - at(0)) / eps),
            "w + eps v and w - eps v",
        ),
        Wrong(
            "the difference looks back only: it errs by more than the one on both sides",
            _darts(lambda at, eps: (at(0) - at(-1)) / eps),
            "w + eps v and w - eps v",
        ),
        Wrong("epsilon is the radius itself: v is left out", _darts(width=lambda radius, v: radius), wide),
        Wrong("epsilon is the radius times the length of v", _darts(width=lambda radius, v: radius * abs(v)), wide),
        Wrong("epsilon is the radius over v squared", _darts(width=lambda radius, v: radius / v**2), wide),
        Wrong("epsilon is a constant, 0.01: the radius is an argument", _darts(width=lambda radius, v: 0.01), wide),
        Wrong(
            "epsilon is a constant, or very small: the radius is an argument",
            _darts(width=lambda radius, v: 1e-4),
            wide,
        ),
        Wrong(
            "the direct term is missing",
            lambda w, a, xi, d, radius: _darts()(w, a, xi, d, radius) - d.val_a(w - xi * d.train_w(w, a), a),
            formula,
        ),
        Wrong(
            "the derivative of L_train for w is compared, not the one for a",
            lambda w, a, xi, d, radius: _darts()(w, a, xi, d._replace(train_a=d.train_w), radius),
            "p and n are derivatives for a",
        ),
        Wrong(
            "L_val is compared, but L_train's change is wanted",
            lambda w, a, xi, d, radius: _of_val(w, a, xi, d, radius),
            "p and n are of L_train",
        ),
    ]
    compare(attempt, cases, _darts(), wrong, near=1e-3, hint=formula)
    for step, goal in ((0.0, 2.0), (0.5, 1.0)):
        w, a = -2.0, 2.0
        for _ in range(300):
            a -= 0.1 * number(attempt(w, a, step, TOY, 0.3))
            w -= 0.1 * TOY.train_w(w, a)
        message = f"with xi = {step:g} the toy ends at a = {a:.2f}, w = {w:.2f}"
        expect(abs(a - goal) < 0.02 and abs(w - goal) < 0.02, message, "with xi = 0 nothing of second order is left")


def _of_val(w: float, a: float, xi: float, d: Derivatives, radius: float) -> float:
    ahead = w - xi * d.train_w(w, a)
    v = d.val_w(ahead, a)
    eps = radius / abs(v)
    return d.val_a(ahead, a) - xi * (d.val_a(w + eps * v, a) - d.val_a(w - eps * v, a)) / (2 * eps)


Rows = Callable[[Tensor, list[str]], Tensor]


@checker
def derive(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(alpha (modules, 2), beta (edges, n), operations, allow_none) -> (module names, operation names)."""
    cases: dict[str, tuple[Any, ...]] = {}
    for trial in range(4):
        names = [str(name) for name in rng.permutation(list(OPERATIONS))]
        none = [0, len(names) - 1, 1, int(rng.integers(len(names)))][trial]
        names.remove("none")
        names.insert(none, "none")
        alpha, beta = (torch.from_numpy(rng.normal(size=shape)) for shape in ((6, 2), (15, len(names))))
        beta[2::3] -= 60.0  # in some rows every logit is far below 0, and `none` leads
        beta[::2, none] = beta[::2].amax(1) + 3.0
        beta[1, 0 if none else -1] = 9.0  # the first column leads in one row, or the last where `none` is the first
        for allow_none in (False, True):
            cases[f"case {trial + 1}, allow_none={allow_none}"] = alpha, beta, names, allow_none

    def with_(rows: Rows, kinds: Sequence[str] = ("parallel", "fusion"), ever: bool = False) -> Callable[..., Any]:
        """Return the derivation from changed rows: only where `none` may not win, or always."""

        def answer(alpha: Tensor, beta: Tensor, names: list[str], allow_none: bool) -> list[list[str]]:
            changed = beta if allow_none and not ever else rows(beta.clone(), names)
            return [[kinds[k] for k in alpha.argmax(1).tolist()], [names[k] for k in changed.argmax(1).tolist()]]

        return answer

    def mask(value: float, column: int | None = None) -> Rows:
        def masked(beta: Tensor, names: list[str]) -> Tensor:
            beta[:, names.index("none") if column is None else column] = value
            return beta

        return masked

    def masked_rows(order: Callable[[int], Tensor]) -> Rows:
        return lambda beta, names: mask(-torch.inf)(beta, names)[order(len(beta))]

    right = mask(-torch.inf)
    low = "logits may all lie below 0: what is lower than every number?"
    own = "row k decides edge k"
    first, cycle = masked_rows(lambda n: torch.arange(n) // 3 * 3), masked_rows(lambda n: torch.arange(n) % 3)
    wrong = [
        Wrong(
            "`none` wins an edge, though it may not",
            with_(lambda beta, names: beta),
            "mask the column before you take the largest",
        ),
        Wrong(
            "column 0 is masked, whatever operation stands there",
            with_(mask(-torch.inf, 0)),
            "`none` may stand in any column: look it up by name",
        ),
        Wrong(
            "the last column is masked, whatever operation stands there",
            with_(mask(-torch.inf, -1)),
            "`none` may stand in any column: look it up by name",
        ),
        *(
            Wrong(f"`none` is masked by {value:g}, which may still be the largest", with_(mask(value)), low)
            for value in (0.0, -1.0, -10.0)
        ),
        Wrong(
            "`none` can never win, also with allow_none=True",
            with_(right, ever=True),
            "what is the fourth argument for?",
        ),
        Wrong(
            "`none` is taken out, and the names of later columns are shifted by one",
            with_(
                lambda beta, names: torch.cat(
                    [
                        beta[:, [k for k, name in enumerate(names) if name != "none"]],
                        torch.full((len(beta), 1), -torch.inf, dtype=beta.dtype),
                    ],
                    1,
                )
            ),
            "which name belongs to which column now?",
        ),
        Wrong(
            "modules are swapped: the columns are parallel, fusion",
            with_(right, ("fusion", "parallel")),
            "columns: parallel, fusion",
        ),
        Wrong("the smallest logit wins an edge", with_(lambda beta, names: -beta, ever=True), "argmax"),
        Wrong("the smallest logit wins an edge", with_(lambda beta, names: mask(-torch.inf)(-beta, names)), "argmax"),
        Wrong("all edges of a block take its first row", with_(first), "each edge has a row of its own"),
        Wrong("every block takes the rows of block one", with_(cycle), "advance by block"),
        Wrong(
            "all edges of a block take its first row",
            lambda *args: _rows_of(args, lambda n: torch.arange(n) // 3 * 3),
            own,
        ),
        Wrong(
            "every block takes the rows of block one", lambda *args: _rows_of(args, lambda n: torch.arange(n) % 3), own
        ),
        Wrong("the edges come in reverse", lambda *args: _rows_of(args, lambda n: torch.arange(n - 1, -1, -1)), own),
        Wrong(
            "operations stand at the columns' places in the kit, not in the list that was given",
            lambda a, b, names, allow: [
                with_(right)(a, b, names, allow)[0],
                [list(OPERATIONS)[k] for k in (b if allow else right(b.clone(), names)).argmax(1).tolist()],
            ],
            "operations[k]",
        ),
        Wrong(
            "modules and edges are swapped: module names come first",
            lambda *args: with_(right)(*args)[::-1],
            "two lists",
        ),
        Wrong(
            "all modules are of one kind",
            lambda *args: [["parallel"] * len(args[0]), with_(right)(*args)[1]],
            "the largest of each row of alpha",
        ),
        Wrong(
            "all modules are of one kind",
            lambda *args: [["fusion"] * len(args[0]), with_(right)(*args)[1]],
            "the largest of each row of alpha",
        ),
    ]

    def read(found: Any, like: list[list[str]]) -> list[list[str]]:
        parts = listed(found, like)
        expect(
            len(parts) == 2,
            f"your function returns {len(parts)} things: two lists are asked for",
            "module names, operation names",
        )
        modules, edges = (listed(part, []) for part in parts)
        lengths = f"{len(modules)} modules and {len(edges)} edges: 6 and 15 were asked for"
        expect({len(modules), len(edges)} == {6, 15}, lengths, "one name per row")
        indices = any(not isinstance(name, str) for name in [*modules, *edges])
        expect(not indices, "the lists hold numbers: names are asked for", "operations[k]")
        return [modules, edges]

    compare(attempt, cases, with_(right), wrong, read=read, hint=own)


def _rows_of(args: tuple[Any, ...], order: Callable[[int], Tensor]) -> list[list[str]]:
    """Return what rows taken from wrong places give, whether `none` may win or not."""
    alpha, beta, names, allow_none = args
    beta = beta[order(len(beta))].clone()
    if not allow_none:
        beta[:, names.index("none")] = -torch.inf
    kinds = [("parallel", "fusion")[k] for k in alpha.argmax(1).tolist()]
    return [kinds, [names[k] for k in beta.argmax(1).tolist()]]


@checker
def internal_loss(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(outputs (B, R, 3, h, w)) -> 3/P * sum over the P pairs of MSE, averaged over scenes."""
    cases = {}
    for scenes, rains in ((2, 2), (2, 3), (4, 5), (1, 4), (2, 1)):
        outputs = torch.from_numpy(rng.uniform(size=(scenes, rains, 3, 4, 5)))
        outputs[0] *= 3  # scenes differ: an average over them is no largest one
        cases[f"R = {rains}, {scenes} scenes"] = (outputs.requires_grad_(),)

    def pairs_of(rains: int) -> list[tuple[int, int]]:
        return [(k, j) for k in range(rains) for j in range(k)]

    def over(
        scale: Callable[[int, int], float],
        pairs: Callable[[int], list[tuple[int, int]]] = pairs_of,
        distance: Callable[[Tensor], Tensor] = torch.square,
    ) -> Callable[[Tensor], Tensor]:
        """Return the loss as scale(R, B) times the sum over pairs of mean distances."""

        def answer(outputs: Tensor) -> Tensor:
            scenes, rains = outputs.shape[:2]
            each = [distance(outputs[:, k] - outputs[:, j]).mean() for k, j in pairs(rains)]
            return scale(rains, scenes) * torch.stack(each).sum() if each else torch.zeros((), dtype=outputs.dtype)

        return answer

    def count(rains: int) -> int:
        return max(1, len(pairs_of(rains)))

    twice = "is each pair counted in both orders?"
    scale, order = "another R must not change the scale", "all pairs: every rain with every other one"
    wrong = [
        Wrong("twice too large", over(lambda r, b: 6 / count(r)), twice),
        Wrong(
            "half of it", over(lambda r, b: 1.5 / count(r)), "each pair is counted once, and P is the number of pairs"
        ),
        Wrong("the factor 3 is missing", over(lambda r, b: 1 / count(r)), "3/P"),
        Wrong("three times too large", over(lambda r, b: 9 / count(r)), "3/P, once"),
        Wrong(
            "summed over the scenes", over(lambda r, b: 3 * b / count(r)), "an average over the scenes, not their sum"
        ),
        Wrong("grows with the number of pairs", over(lambda r, b: 1.0), scale),
        Wrong("grows with the number of pairs", over(lambda r, b: 3.0), scale),
        Wrong("grows with the number of pairs", over(lambda r, b: 2.0), scale),
        Wrong("it is divided by R, and not by the number of pairs", over(lambda r, b: 3 / r), scale),
        Wrong("it is divided by R squared, and not by the number of pairs", over(lambda r, b: 3 / r**2), scale),
        Wrong("it is divided by R squared, and not by the number of pairs", over(lambda r, b: 6 / r**2), scale),
        Wrong(
            "the pixels are summed, not averaged", lambda x: over(lambda r, b: 3 / count(r))(x) * x[0, 0].numel(), "MSE"
        ),
        Wrong(
            "the pixels and scenes are summed, not averaged",
            lambda x: over(lambda r, b: 3 / count(r))(x) * x[:, 0].numel(),
            "MSE",
        ),
        Wrong("the absolute difference, not its square", over(lambda r, b: 3 / count(r), distance=torch.abs), "MSE"),
        Wrong(
            "the difference is not squared: it cancels", over(lambda r, b: 3 / count(r), distance=lambda d: d), "MSE"
        ),
        Wrong(
            "a root is taken: it is the mean square itself", lambda x: over(lambda r, b: 3 / count(r))(x).sqrt(), "MSE"
        ),
        Wrong(
            "only the first rain is compared with the others",
            over(lambda r, b: 3 / count(r), lambda r: [(0, k) for k in range(1, r)]),
            order,
        ),
        Wrong(
            "only the first rain is compared with the others",
            over(lambda r, b: 3 / max(1, r - 1), lambda r: [(0, k) for k in range(1, r)]),
            order,
        ),
        Wrong(
            "only neighbours are compared",
            over(lambda r, b: 3 / count(r), lambda r: [(k, k + 1) for k in range(r - 1)]),
            order,
        ),
        Wrong(
            "only neighbours are compared",
            over(lambda r, b: 3 / max(1, r - 1), lambda r: [(k, k + 1) for k in range(r - 1)]),
            order,
        ),
        Wrong(
            "R = 1 is NaN: with no pair there is nothing to disagree",
            lambda x: over(lambda r, b: 3 / count(r))(x) if x.shape[1] > 1 else torch.tensor(torch.nan),
            "0 / 0 is not 0",
        ),
        Wrong(
            "the spread over scenes, not over rains",
            lambda x: 6 * x.var(0, correction=int(len(x) > 1)).mean(),
            "dimension 1 holds the rains",
        ),
        Wrong("the factor 3/P is that of R = 3", over(lambda r, b: 3 / 3), scale),
    ]
    compare(
        attempt,
        cases,
        over(lambda r, b: 3 / count(r)),
        wrong,
        read=tensor,
        near=1e-4,
        hint="the sum over pairs, times 3/P",
    )
