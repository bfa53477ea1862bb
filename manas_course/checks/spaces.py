"""Checkers about search spaces and their relaxation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import Attempt, Wrong, checker, compare, expect, listed, number, same, tensor, whole
from manas_lite.losses import binary_entropy as stable_entropy
from manas_lite.networks.ops import OPERATIONS

__all__ = ["binary_entropy", "block_rows", "count_space", "expected_cost", "gated_edge", "margins", "skip_share"]


@checker
def count_space(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(modules, edges, operations, allow_none) -> number of architectures; a module is one of two."""
    sizes = [
        (1, 2, 3),
        (3, 2, 4),
        (5, 6, 7),
        (12, 60, 8),
        *(map(int, rng.integers((3, 6, 4), (13, 30, 9))) for _ in range(3)),
    ]
    cases = {}
    for modules, edges, count in (tuple(size) for size in sizes):
        names = [str(name) for name in rng.permutation(list(OPERATIONS)[1:])[: count - 1]]
        names.insert(int(rng.integers(count)), "none")
        for allow_none in (True, False):
            case = f"{modules} modules, {edges} edges, {count} operations, allow_none={allow_none}"
            cases[case] = modules, edges, names, allow_none

    def of(formula: Callable[[int, int, int], Any]) -> Callable[..., Any]:
        return lambda modules, edges, names, allow_none: formula(modules, edges, len(names) - (not allow_none))

    def wrapped(value: int) -> int:
        return (value + 2**63) % 2**64 - 2**63

    every = "every choice goes with every other one"
    true = of(lambda m, e, n: 2**m * n**e)
    more = "one more edge: how many times as many?"
    overflow = "NumPy's whole numbers have 64 bits, and overflow: Python's have no largest one"
    wrong = [
        Wrong(
            "`none` is counted although it may not win",
            lambda m, e, ops, allow: 2**m * len(ops) ** e,
            "how many can win?",
        ),
        Wrong(
            "`none` is never counted, also where it may win",
            lambda m, e, ops, allow: 2**m * (len(ops) - 1) ** e,
            "allow_none",
        ),
        Wrong(
            "`none` is counted where it may not win, and left out where it may",
            lambda m, e, ops, allow: 2**m * (len(ops) - allow) ** e,
            "allow_none",
        ),
    ]
    formulas: list[tuple[str, Callable[[int, int, int], int], str]] = [
        ("choices are added", lambda m, e, n: 2 * m + n * e, every),
        ("choices are added", lambda m, e, n: 2**m + n**e, every),
        ("choices are multiplied, each slot once", lambda m, e, n: 2 * m * n * e, more),
        ("base and exponent are swapped", lambda m, e, n: m**2 * e**n, more),
        ("base and exponent are swapped", lambda m, e, n: 2**m * e**n, more),
        ("the modules' choices are left out", lambda m, e, n: n**e, "each module is one of two"),
        ("the edges' choices are left out", lambda m, e, n: 2**m, "each edge holds an operation"),
        ("modules choose among the operations, too", lambda m, e, n: n ** (m + e), "a module is one of two"),
        ("edges are told apart by number alone, not by place", lambda m, e, n: 2**m * math.comb(n + e - 1, e), every),
        (overflow, lambda m, e, n: wrapped(2**m * wrapped(n**e)), "int(...) before the power"),
    ]
    for told, formula, hint in formulas:  # each with `none` counted as it should be, and always
        wrong.append(Wrong(told, of(formula), hint))
        wrong.append(Wrong(told, lambda m, e, ops, allow, formula=formula: formula(m, e, len(ops)), hint))
    for label, args in cases.items():
        found = attempt(*args)
        rounded = isinstance(found, float | np.floating) and math.isclose(found, true(*args), rel_tol=1e-3)
        expect(not rounded, f"{label}: a float, rounded", "Python's whole numbers have no largest one")
    # As texts: `near` is for floats, and numbers of sixty digits are equal or not.
    compare(
        attempt,
        cases,
        lambda *args: str(true(*args)),
        [each._replace(answer=_as_text(each.answer)) for each in wrong],
        read=lambda found, like: str(whole(found)),
        hint="try one module, no edge",
    )


def _as_text(answer: Callable[..., Any]) -> Callable[..., str]:
    return lambda *args: str(answer(*args))


@checker
def gated_edge(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(x (B, c, H, W), gates, logits (n,)) -> x times the weighted sum of the gates of x."""
    cases = {}
    for count in (5, 2, 1):
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        x = torch.randn(2, 3, 5, 4, generator=generator).requires_grad_()
        weights = [torch.randn(1, 3, 1, 1, generator=generator) for _ in range(count - 1)]
        gates: list[Callable[[Tensor], Tensor]] = [lambda x, w=w: (w * x.mean((2, 3), True)).sigmoid() for w in weights]  # type: ignore[misc]
        gates.append(lambda x: torch.ones(()))
        cases[f"{count} gates"] = x, gates, (2 * torch.randn(count, generator=generator)).requires_grad_()

    def mixture(x: Tensor, gates: Sequence[Callable], w: Tensor) -> Tensor:
        return torch.stack([wk * (x * gate(x)) for wk, gate in zip(w, gates, strict=True)]).sum(0)

    one = "weights of a mixture are positive and sum to 1"
    compete = "the candidates should compete with each other"
    wrong = [
        Wrong("the logits themselves are the weights", mixture, one),
        Wrong("each weight is a sigmoid of its logit alone", lambda x, g, a: mixture(x, g, a.sigmoid()), compete),
        Wrong(
            "the gates are mixed, but never applied to x",
            lambda x, g, a: sum(w * f(x) for w, f in zip(a.softmax(0), g, strict=True)) + 0 * x,
            "x times",
        ),
        Wrong(
            "all gates weigh the same: the logits play no part",
            lambda x, g, a: mixture(x, g, 0 * a + 1 / len(a)),
            compete,
        ),
        Wrong("all gates are added, without weights", lambda x, g, a: mixture(x, g, 0 * a + 1), one),
        Wrong("the best gate alone is used", lambda x, g, a: x * g[int(a.argmax())](x), "every candidate takes part"),
        Wrong("the weights are logarithms: log_softmax", lambda x, g, a: mixture(x, g, a.log_softmax(0)), one),
        Wrong("the weights are not divided by their sum", lambda x, g, a: mixture(x, g, a.exp()), one),
        Wrong("the logits are divided by their sum, not by softmax", lambda x, g, a: mixture(x, g, a / a.sum()), one),
        Wrong(
            "the weights are in the wrong order", lambda x, g, a: mixture(x, g, a.softmax(0).flip(0)), "gate k, logit k"
        ),
        Wrong(
            "the softmax prefers the *smallest* logit", lambda x, g, a: mixture(x, g, (-a).softmax(0)), "which sign?"
        ),
        Wrong(
            "x is added to the mixture, not multiplied by it",
            lambda x, g, a: x + mixture(torch.ones_like(x), [lambda y, f=f: f(x) for f in g], a.softmax(0)),
            "x times",
        ),
        Wrong(
            "the mixture is averaged once more: softmax has done that",
            lambda x, g, a: mixture(x, g, a.softmax(0)) / len(a),
            one,
        ),
    ]
    compare(
        attempt,
        cases,
        lambda x, g, a: mixture(x, g, a.softmax(0)),
        wrong,
        read=tensor,
        near=1e-5,
        hint="softmax over the gates",
    )


@checker
def expected_cost(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(logits float32 (edges, n), operations, cost by name) -> expected cost, summed over the edges."""
    names = list(OPERATIONS)
    order = [str(name) for name in rng.permutation(names)]
    cost = {
        str(name): float(price)
        for name, price in zip(rng.permutation(names), rng.integers(1, 1000, len(names)), strict=True)
    }
    logits = torch.from_numpy(rng.normal(size=(4, len(names)))).float()
    square = logits.repeat(3, 1)[: len(names)]
    decided = torch.full((4, len(names)), -30.0)
    decided[torch.arange(4), torch.from_numpy(rng.integers(len(names), size=4))] = 30.0
    cases = {
        name: (values.clone().requires_grad_(), order, cost)
        for name, values in {
            "four edges": logits,
            "one edge": logits[:1],
            "as many edges as operations": square,
            "decided edges": decided,
        }.items()
    }

    def prices(operations: Sequence[str], cost: Mapping[str, float]) -> Tensor:
        return torch.tensor([cost[name] for name in operations], dtype=torch.float64)

    def of(weights: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda a, ops, cost: (weights(a.double()) @ prices(ops, cost)).sum() / 1000

    by_name = "the table's order is not that of the columns: look costs up by name"
    edge = "each edge draws one operation: a row's weights sum to 1"
    true = of(lambda a: a.softmax(1))
    wrong = [
        Wrong(
            "operations are permuted: each pays the price of another one",
            lambda a, ops, cost: (
                (a.double().softmax(1) @ torch.tensor(list(cost.values()), dtype=torch.float64)).sum() / 1000
            ),
            by_name,
        ),
        Wrong("the logits are taken for weights: that is no expectation", of(lambda a: a), edge),
        Wrong("each weight is a sigmoid of its own: that is no expectation", of(lambda a: a.sigmoid()), edge),
        Wrong("the softmax runs over the edges, not over the operations of an edge", of(lambda a: a.softmax(0)), edge),
        Wrong("the softmax runs over all edges at once", of(lambda a: a.flatten().softmax(0).reshape(a.shape)), edge),
        Wrong("logarithms of the weights are taken: that is no expectation", of(lambda a: a.log_softmax(1)), edge),
        Wrong("the weights are not divided by their sum", of(lambda a: a.exp()), edge),
        Wrong(
            "the mean over the edges, not their sum",
            lambda a, ops, cost: true(a, ops, cost) / len(a),
            "all edges together",
        ),
        Wrong(
            "the mean over all entries, not a sum",
            lambda a, ops, cost: true(a, ops, cost) / a.numel(),
            "all edges together",
        ),
        Wrong(
            "all operations count alike: the logits play no part", of(lambda a: torch.ones_like(a) / a.shape[1]), edge
        ),
        Wrong("every edge pays for all its operations", of(torch.ones_like), edge),
        Wrong(
            "only the likeliest operation of an edge is paid for",
            of(lambda a: torch.nn.functional.one_hot(a.argmax(1), a.shape[1]).double()),
            "no argmax: each with its weight",
        ),
        Wrong(
            "`none` is free here, whatever the table says",
            lambda a, ops, cost: true(a, ops, {**cost, "none": 0.0}),
            "the table has its price",
        ),
        Wrong("the likeliest are cheap: the softmax has the wrong sign", of(lambda a: (-a).softmax(1)), "which sign?"),
    ]

    def read(found: Any, like: Tensor) -> Tensor:  # costs are in thousands, so that `near` is relative
        return tensor(found, like) / 1000

    compare(attempt, cases, true, wrong, read=read, near=2e-4, hint="not the expectation under the softmax weights")


@checker
def binary_entropy(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(logits (n, k)) -> H(softmax) elementwise in decimal digits, (n, k); finite everywhere."""
    logits = torch.from_numpy(rng.normal(size=(4, 5)))
    cases = {
        "random logits": (logits.clone().requires_grad_(),),
        "a square of logits": (logits[:, :4].clone().requires_grad_(),),
        "equal logits": (torch.zeros(2, 2, dtype=torch.float64, requires_grad=True),),
    }

    def entropy(p: Tensor) -> Tensor:
        return -(torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)) / math.log(10)

    half = "a weight of 0.9 is also a weight of 0.1 for the rest"
    last = "p is a softmax along the last axis"
    wrong = [
        Wrong(
            "natural logarithms: 2.3 times too large", lambda a: entropy(a.softmax(-1)) * math.log(10), "decimal digits"
        ),
        Wrong(
            "logarithms to the base 2: 3.3 times too large",
            lambda a: entropy(a.softmax(-1)) * math.log2(10),
            "decimal digits",
        ),
        Wrong("only -p log p: half of the formula", lambda a: -a.softmax(-1) * a.log_softmax(-1) / math.log(10), half),
        Wrong(
            "only -p log p: half of the formula, in natural logarithms",
            lambda a: -a.softmax(-1) * a.log_softmax(-1),
            half,
        ),
        Wrong(
            "only -(1 - p) log(1 - p): half of the formula",
            lambda a: -(1 - a.softmax(-1)) * (1 - a.softmax(-1)).log10(),
            half,
        ),
        Wrong("the sign is turned round", lambda a: -entropy(a.softmax(-1)), "an entropy is never negative"),
        Wrong("the softmax runs along the first axis", lambda a: entropy(a.softmax(0)), last),
        Wrong("each logit has a sigmoid of its own, no softmax", lambda a: entropy(a.sigmoid()), last),
        Wrong(
            "the mixed terms: p goes with log p, not with log(1 - p)",
            lambda a: -(a.softmax(-1) * (1 - a.softmax(-1)).log10() + (1 - a.softmax(-1)) * a.softmax(-1).log10()),
            "p log p",
        ),
    ]

    def read(found: Any, like: Tensor) -> Tensor:
        if torch.is_tensor(found) and like.ndim == 2 and found.shape != like.shape:
            message = f"the result has shape {tuple(found.shape)}: one entropy per logit is asked for, no sum"
            expect(False, message, "elementwise")
        return tensor(found, like)

    compare(
        attempt,
        cases,
        lambda a: entropy(a.softmax(-1)),
        wrong,
        read=read,
        near=1e-5,
        hint="two equal logits give 0.301",
    )
    for gap in (3.0, 8.0, 20.0, 80.0, 200.0):
        for kind in (torch.float32, torch.float64):
            extreme = torch.tensor([[gap, -gap, 0.0], [-gap, -gap, gap]], dtype=kind, requires_grad=True)
            value, true = attempt(extreme), stable_entropy(extreme)
            expect(value.isfinite().all(), f"not finite at logits of +-{gap:g}", "0 times minus infinity is NaN")
            (gradient,) = torch.autograd.grad(value.sum(), extreme)
            hint = "a value can be right and its gradient NaN: work with log p and log(1 - p), never with 1 - p"
            expect(gradient.isfinite().all(), f"its gradient is not finite at logits of +-{gap:g}", hint)
            expect(same(value, true, 1e-5), f"wrong at logits of +-{gap:g}", "is a clamp hiding something?")
            if kind == torch.float64:
                _not_clamped(value, true, gap)


def _not_clamped(value: Tensor, true: Tensor, gap: float) -> None:
    """Raise a Misconception where an entropy is another one by far, though both are nearly 0."""
    ratio = (value / true).detach()
    message = f"a clamp hides something at logits of +-{gap:g}: H is {{}} times too {{}}"
    hint = "log p and log(1 - p) have no need of a clamp: torch.log_softmax, and logsumexp of the other logits"
    for worst, way in ((ratio.max(), "large"), (1 / ratio.min(), "small")):
        expect(0 < number(worst) < 1.1, message.format(f"{number(worst):.2g}", way), hint)


@checker
def skip_share(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(beta (edges, n), operations) -> the mean weight of `skip_connect` over the edges, in [0, 1]."""
    cases = {}
    for edges, count in ((1, 3), (4, 5), (6, 9), (9, 4)):
        names = [str(name) for name in rng.permutation([n for n in OPERATIONS if n != "skip_connect"])[: count - 1]]
        names.insert(int(rng.integers(count)), "skip_connect")
        cases[f"{edges} edges, {count} operations"] = torch.from_numpy(2 * rng.normal(size=(edges, count))), names
    skip = "skip_connect"

    def of(weights: Callable[[Tensor], Tensor]) -> Callable[..., float]:
        return lambda beta, names: float(weights(beta)[:, names.index(skip)].mean())

    row = "each edge has a row, whose weights sum to 1"
    wrong = [
        Wrong("the logits themselves are averaged: they are no weights", of(lambda b: b), row),
        Wrong("the softmax runs over the edges, not over the operations of an edge", of(lambda b: b.softmax(0)), row),
        Wrong("each weight is a sigmoid of its own", of(lambda b: b.sigmoid()), row),
        Wrong(
            "edges are counted on which it leads: its *weight* was asked for",
            of(lambda b: torch.nn.functional.one_hot(b.argmax(1), b.shape[1]).double()),
            "before an operation leads, its weight grows",
        ),
        Wrong("summed over the edges, not averaged", lambda b, n: float(b.softmax(1)[:, n.index(skip)].sum()), "mean"),
        Wrong(
            "the column of `skip_connect` in the kit's own list is read, not in the one that was given",
            lambda b, n: float(b.softmax(1)[:, min(list(OPERATIONS).index(skip), b.shape[1] - 1)].mean()),
            "operations.index(...)",
        ),
        Wrong("the mean of all weights is always 1/n", lambda b, n: 1 / b.shape[1], "one column"),
        Wrong(
            "the weight of `none` is taken away first",
            lambda b, n: float(b[:, [k for k, m in enumerate(n) if m != "none"]].softmax(1)[:, _without(n)].mean()),
            "`none` takes part in the softmax",
        ),
    ]
    compare(attempt, cases, of(lambda b: b.softmax(1)), wrong, near=1e-5, hint=row)


def _without(names: Sequence[str]) -> int:
    return [name for name in names if name != "none"].index("skip_connect")


@checker
def margins(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(logits (rows, n)) -> per row, the largest weight minus the second largest, (rows,)."""
    cases = {
        "random logits": (torch.from_numpy(rng.normal(size=(6, 5))),),
        "two candidates": (torch.from_numpy(rng.normal(size=(4, 2))),),
        "a row that is decided": (torch.tensor([[30.0, 0.0, 0.0], [0.0, 0.0, 30.0]], dtype=torch.float64),),
        "a tie": (torch.tensor([[2.0, 2.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64),),
        "all logits below 0": (torch.from_numpy(rng.normal(size=(5, 4))) - 9,),
    }

    def gap(values: Tensor) -> Tensor:
        first, second = values.topk(2, dim=1).values.unbind(1)
        return first - second

    weights = "softmax along each row first: a weight is what the mixture uses"
    two = "the two largest of each row"
    wrong = [
        Wrong("a difference of logits, not of weights", gap, weights),
        Wrong("the softmax runs over the rows", lambda a: gap(a.softmax(0)), weights),
        Wrong("a sigmoid of each logit, no softmax", lambda a: gap(a.sigmoid()), weights),
        Wrong("logarithms of the weights are subtracted", lambda a: gap(a.log_softmax(1)), weights),
        Wrong("the largest minus the *smallest*", lambda a: a.softmax(1).amax(1) - a.softmax(1).amin(1), two),
        Wrong("the largest weight alone", lambda a: a.softmax(1).amax(1), two),
        Wrong("the second minus the largest: a margin is never negative", lambda a: -gap(a.softmax(1)), two),
        Wrong("the largest minus the mean of the row", lambda a: a.softmax(1).amax(1) - a.softmax(1).mean(1), two),
        Wrong(
            "the first column minus the second, whichever lead",
            lambda a: a.softmax(1)[:, 0] - a.softmax(1)[:, 1],
            "sort, or topk",
        ),
        Wrong(
            "the first column minus the second, without its sign",
            lambda a: (a.softmax(1)[:, 0] - a.softmax(1)[:, 1]).abs(),
            "sort, or topk",
        ),
    ]

    def read(found: Any, like: Tensor) -> Tensor:
        if torch.is_tensor(found) and found.ndim == 0:
            expect(False, "one number for all rows: a margin per row is asked for", "dim=1")
        return tensor(found, like)

    compare(attempt, cases, lambda a: gap(a.softmax(1)), wrong, read=read, near=1e-5, hint=two)


@checker
def block_rows(attempt: Attempt, rng: np.random.Generator) -> None:
    """Check attempt(cells, edges) -> the rows of beta that belong to each block, a list per block."""
    cases = {}
    for cells in ([1], [1, 2], [2, 3, 4], [1, 1, 3], [int(n) for n in rng.integers(1, 5, 3)]):
        for edges in (1, 3, 6):
            cases[f"cells with {cells} branches, {edges} edges a block"] = cells, edges

    def of(start: Callable[[int, int, int], int]) -> Callable[..., list[list[int]]]:
        """Return the rows from start(block, cell, branch) on, counted in blocks."""

        def answer(cells: Sequence[int], edges: int) -> list[list[int]]:
            places = [(cell, branch) for cell, branches in enumerate(cells) for branch in range(branches)]
            starts = [start(block, cell, branch) for block, (cell, branch) in enumerate(places)]
            return [list(range(edges * first, edges * (first + 1))) for first in starts]

        return answer

    true = of(lambda block, cell, branch: block)
    own = "a block stands on every branch of every cell, and each has rows of its own"
    wrong = [
        Wrong("rows move on by cell: all blocks of a cell read the same ones", of(lambda b, cell, branch: cell), own),
        Wrong("every cell begins again at row 0", of(lambda b, cell, branch: branch), own),
        Wrong("every block reads the first rows", of(lambda b, cell, branch: 0), own),
        Wrong("one block a cell, not one a branch", lambda cells, edges: true([1] * len(cells), edges), own),
        Wrong("rows are counted from 1", lambda c, e: [[k + 1 for k in rows] for rows in true(c, e)], "row 0 is first"),
        Wrong("each block starts one row after the one before", lambda c, e: _sliding(sum(c), e), "by `edges` rows"),
        Wrong("a row is missing at the end of each block", lambda c, e: [rows[:-1] for rows in true(c, e)], own),
        Wrong("a row too many in each block", lambda c, e: [[*rows, rows[-1] + 1] for rows in true(c, e)], own),
        Wrong("one list of all rows: a list per block is asked for", lambda c, e: list(range(sum(c) * e)), own),
        Wrong("the number of rows, not the rows", lambda c, e: [e] * sum(c), own),
    ]

    def read(found: Any, like: Any) -> list[Any]:
        return [listed(rows, []) if hasattr(rows, "__iter__") else rows for rows in listed(found, [])]

    compare(attempt, cases, true, wrong, read=read, hint=own)


def _sliding(blocks: int, edges: int) -> list[list[int]]:
    return [list(range(block, block + edges)) for block in range(blocks)]
