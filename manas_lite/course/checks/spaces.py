"""Checkers about search spaces and their relaxation."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from manas_lite.course.checks.base import checker, expect
from manas_lite.losses import binary_entropy as stable_entropy
from manas_lite.networks.ops import OPERATIONS


@checker
def count_space(attempt: Callable[[int, int, Sequence[str], bool], int], rng: np.random.Generator) -> None:
    """attempt(modules, edges, operations, allow_none) -> number of architectures; a module is one of two."""
    for _ in range(3):
        modules, edges = int(rng.integers(3, 13)), int(rng.integers(6, 30))
        names = ["none", *rng.choice(list(OPERATIONS)[1:], int(rng.integers(3, 8)), replace=False)]
        for allow_none in (True, False):
            found = attempt(modules, edges, list(names), allow_none)
            choices = len(names) - (not allow_none)
            case = f"{modules} modules, {edges} edges, {len(names)} operations, allow_none={allow_none}"
            if not allow_none:
                counted = found == 2**modules * len(names) ** edges
                expect(not counted, f"{case}: `none` is counted although it may not win", "how many can win an edge?")
            summed = found in (2 * modules + choices * edges, 2**modules + choices**edges)
            expect(not summed, f"{case}: choices are added", "every choice goes with every other one")
            swapped = found == modules**2 * edges**choices
            expect(not swapped, f"{case}: base and exponent are swapped", "one more edge: how many times as many?")
            rounded = isinstance(found, float) and math.isclose(found, 2**modules * choices**edges)
            expect(not rounded, f"{case}: a float, rounded", "Python's whole numbers have no largest one")
            expect(
                found == 2**modules * choices**edges, f"{case}: {found} is another number", "try one module, no edge"
            )


def _gate(weight: Tensor, x: Tensor) -> Tensor:
    return torch.sigmoid(weight * x.mean((2, 3), keepdim=True))


@checker
def gated_edge(attempt: Callable[[Tensor, Sequence[Callable], Tensor], Tensor], rng: np.random.Generator) -> None:
    """attempt(x (B, c, H, W), gates, logits (n,)) -> x times the weighted sum of the gates of x."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    x = torch.randn(2, 3, 5, 4, generator=generator)
    weights = [torch.randn(1, 3, 1, 1, generator=generator) for _ in range(4)]
    gates: list[Callable[[Tensor], Tensor]] = [partial(_gate, w) for w in weights]
    gates.append(lambda x: torch.ones(()))
    logits = (2 * torch.randn(5, generator=generator)).requires_grad_()

    def mixture(w: Tensor) -> Tensor:
        return torch.stack([wk * (x * gate(x)) for wk, gate in zip(w, gates, strict=True)]).sum(0)

    found = attempt(x.clone(), gates, logits)
    expect(found.shape == x.shape, f"the result has shape {tuple(found.shape)}, x has {tuple(x.shape)}")
    raw = torch.allclose(found, mixture(logits), atol=1e-5)
    expect(not raw, "the logits themselves are the weights", "weights of a mixture are positive and sum to 1")
    sigmoid = torch.allclose(found, mixture(torch.sigmoid(logits)), atol=1e-5)
    expect(not sigmoid, "each weight is a sigmoid of its logit alone", "the candidates should compete with each other")
    forgotten = torch.allclose(found * x, mixture(logits.softmax(0)), atol=1e-5)
    expect(not forgotten, "the gates are mixed, but never applied to x")
    expect(torch.allclose(found, mixture(logits.softmax(0)), atol=1e-5), "the value is not that of the mixture")
    expect(found.requires_grad, "no gradient reaches the logits", "no detach, no item(), no argmax")
    (gradient,) = torch.autograd.grad(found.square().sum(), logits)
    expect((gradient != 0).all(), "some logits get no gradient", "every candidate must take part, not the best alone")


@checker
def expected_cost(
    attempt: Callable[[Tensor, Sequence[str], Mapping[str, float]], Tensor], rng: np.random.Generator
) -> None:
    """attempt(logits float32 (edges, n), operations, cost by name) -> expected cost, summed over the edges."""
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
    expect(
        math.isclose(float(attempt(one_hot, order, cost)), real, rel_tol=1e-5),
        "decided edges do not cost what they cost",
    )
    expect(found.requires_grad, "the cost has no gradient: the search cannot be told about it", "no argmax, no item()")


@checker
def binary_entropy(attempt: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    """attempt(logits (n, k)) -> H(softmax) elementwise in decimal digits, (n, k); finite everywhere."""
    logits = torch.from_numpy(rng.normal(size=(4, 5)))
    found, true = attempt(logits.clone()), stable_entropy(logits)
    expect(found.shape == logits.shape, f"the result has shape {tuple(found.shape)}: it is elementwise")
    natural = torch.allclose(found, true * math.log(10))
    expect(not natural, "natural logarithms: 2.3 times too large", "the method counts in decimal digits")
    p = logits.softmax(1)
    half = torch.allclose(found, -p * p.log10())
    expect(not half, "only -p log p: half of the formula", "a weight of 0.9 is also a weight of 0.1 for the rest")
    expect(torch.allclose(found, true), "not the entropy of a yes-or-no choice", "two equal logits give 0.301")
    for gap, dtype in itertools.product((20.0, 200.0), (torch.float32, torch.float64)):
        extreme = torch.tensor([[gap, -gap, 0.0], [-gap, -gap, gap]], dtype=dtype, requires_grad=True)
        value = attempt(extreme)
        expect(value.isfinite().all(), f"not finite at logits of +-{gap:g}", "0 times minus infinity is NaN")
        (gradient,) = torch.autograd.grad(value.sum(), extreme)
        hint = "a value can be right and its gradient NaN: work with log p and log(1 - p), never with 1 - p"
        expect(gradient.isfinite().all(), f"its gradient is not finite at logits of +-{gap:g}", hint)
        wanted = stable_entropy(extreme.detach())
        expect(
            torch.allclose(value, wanted, atol=1e-6), f"wrong at logits of +-{gap:g}", "is a clamp hiding something?"
        )
