"""Checkers about search spaces and their relaxation."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from manas_course.checks.base import checker, expect, rule_out, same
from manas_lite.losses import binary_entropy as stable_entropy
from manas_lite.networks.ops import OPERATIONS

__all__ = ["binary_entropy", "count_space", "expected_cost", "gated_edge"]


@checker
def count_space(attempt: Callable[[int, int, Sequence[str], bool], int], rng: np.random.Generator) -> None:
    """Check attempt(modules, edges, operations, allow_none) -> number of architectures; a module is one of two."""
    for _ in range(3):
        modules, edges = int(rng.integers(3, 13)), int(rng.integers(6, 30))
        names = ["none", *rng.choice(list(OPERATIONS)[1:], int(rng.integers(3, 8)), replace=False)]
        for allow_none in (True, False):
            found, choices = attempt(modules, edges, list(names), allow_none), len(names) - (not allow_none)
            true = 2**modules * choices**edges
            case = f"{modules} modules, {edges} edges, {len(names)} operations, allow_none={allow_none}"
            if not allow_none:
                counted = found == 2**modules * len(names) ** edges
                expect(not counted, f"{case}: `none` is counted although it may not win", "how many can win an edge?")
            summed = found in (2 * modules + choices * edges, 2**modules + choices**edges)
            expect(not summed, f"{case}: choices are added", "every choice goes with every other one")
            swapped = found == modules**2 * edges**choices
            expect(not swapped, f"{case}: base and exponent are swapped", "one more edge: how many times as many?")
            rounded = isinstance(found, float) and math.isclose(found, true)
            expect(not rounded, f"{case}: a float, rounded", "Python's whole numbers have no largest one")
            expect(found == true, f"{case}: {found} is another number", "try one module, no edge")


@checker
def gated_edge(attempt: Callable[[Tensor, Sequence[Callable], Tensor], Tensor], rng: np.random.Generator) -> None:
    """Check attempt(x (B, c, H, W), gates, logits (n,)) -> x times the weighted sum of the gates of x."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    x = torch.randn(2, 3, 5, 4, generator=generator)
    weights = [torch.randn(1, 3, 1, 1, generator=generator) for _ in range(4)]
    gates: list[Callable[[Tensor], Tensor]] = [lambda x, w=w: (w * x.mean((2, 3), True)).sigmoid() for w in weights]  # type: ignore[misc]
    gates.append(lambda x: torch.ones(()))
    logits = (2 * torch.randn(5, generator=generator)).requires_grad_()

    def mixture(w: Tensor) -> Tensor:
        return torch.stack([wk * (x * gate(x)) for wk, gate in zip(w, gates, strict=True)]).sum(0)

    found, true = attempt(x.clone(), gates, logits), mixture(logits.softmax(0))
    expect(found.shape == x.shape, f"the result has shape {tuple(found.shape)}, x has {tuple(x.shape)}")
    hint = "weights of a mixture are positive and sum to 1"
    rule_out(found, {"the logits themselves are the weights": mixture(logits)}, true, hint, 1e-5)
    wrong = {"each weight is a sigmoid of its logit alone": mixture(torch.sigmoid(logits))}
    rule_out(found, wrong, true, "the candidates should compete with each other", 1e-5)
    expect(not same(found * x, true, 1e-5), "the gates are mixed, but never applied to x")
    expect(same(found, true, 1e-5), "the value is not that of the mixture")
    expect(found.requires_grad, "no gradient reaches the logits", "no detach, no item(), no argmax")
    (gradient,) = torch.autograd.grad(found.square().sum(), logits)
    expect((gradient != 0).all(), "some logits get no gradient", "every candidate must take part, not the best alone")


Cost = Callable[[Tensor, Sequence[str], Mapping[str, float]], Tensor]


@checker
def expected_cost(attempt: Cost, rng: np.random.Generator) -> None:
    """Check attempt(logits float32 (edges, n), operations, cost by name) -> expected cost, summed over the edges."""
    names = list(OPERATIONS)
    order = [names[k] for k in rng.permutation(len(names))]
    cost = {name: float(rng.integers(1, 1000)) for name in rng.permutation(names)}
    logits = torch.from_numpy(rng.normal(size=(4, len(names)))).float().requires_grad_()

    def expected(values: Sequence[float]) -> float:
        return float((logits.double().softmax(1) @ torch.tensor(values, dtype=torch.float64)).sum().detach())

    found = attempt(logits, list(order), dict(cost))
    expect(torch.is_tensor(found) and found.ndim == 0, "the result must be a tensor with a single number")
    true, value = expected([cost[name] for name in order]), float(found.detach())
    permuted = math.isclose(value, expected(list(cost.values())), rel_tol=1e-5)
    hint = "the table's order is not that of the columns: look costs up by name"
    expect(not permuted, "operations are permuted: each pays the price of another one", hint)
    expect(math.isclose(value, true, rel_tol=1e-5), "not the expectation under the softmax weights")
    chosen = torch.tensor(rng.integers(len(names), size=4))
    one_hot = torch.full((4, len(names)), -200.0).scatter(1, chosen[:, None], 200.0)
    real = sum(cost[order[k]] for k in chosen.tolist())
    decided = math.isclose(float(attempt(one_hot, order, cost)), real, rel_tol=1e-5)
    expect(decided, "decided edges do not cost what they cost")
    expect(found.requires_grad, "the cost has no gradient: the search cannot be told about it", "no argmax, no item()")


@checker
def binary_entropy(attempt: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    """Check attempt(logits (n, k)) -> H(softmax) elementwise in decimal digits, (n, k); finite everywhere."""
    logits = torch.from_numpy(rng.normal(size=(4, 5)))
    found, true = attempt(logits.clone()), stable_entropy(logits)
    expect(found.shape == logits.shape, f"the result has shape {tuple(found.shape)}: it is elementwise")
    natural = {"natural logarithms: 2.3 times too large": true * math.log(10)}
    rule_out(found, natural, true, "the method counts in decimal digits")
    half = {"only -p log p: half of the formula": -logits.softmax(1) * logits.softmax(1).log10()}
    rule_out(found, half, true, "a weight of 0.9 is also a weight of 0.1 for the rest")
    expect(same(found, true), "not the entropy of a yes-or-no choice", "two equal logits give 0.301")
    for gap, dtype in itertools.product((20.0, 200.0), (torch.float32, torch.float64)):
        extreme = torch.tensor([[gap, -gap, 0.0], [-gap, -gap, gap]], dtype=dtype, requires_grad=True)
        value = attempt(extreme)
        expect(value.isfinite().all(), f"not finite at logits of +-{gap:g}", "0 times minus infinity is NaN")
        (gradient,) = torch.autograd.grad(value.sum(), extreme)
        hint = "a value can be right and its gradient NaN: work with log p and log(1 - p), never with 1 - p"
        expect(gradient.isfinite().all(), f"its gradient is not finite at logits of +-{gap:g}", hint)
        right = same(value, stable_entropy(extreme.detach()), 1e-5)
        expect(right, f"wrong at logits of +-{gap:g}", "is a clamp hiding something?")
