"""What a search tells of itself each epoch, and when it should stop: entropy, skip share, expected cost, collapse."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .backbone import SuperNet
from .costs import Costs
from .discretize import argmax


@torch.no_grad()
def report(net: SuperNet, costs: Costs) -> dict[str, Any]:
    """Facts of the present architecture weights, without sampling noise.

    alpha, beta: mixture weights, rounded to 6 digits; alpha_entropy, beta_entropy: see `row_entropy`; skip_share:
    mean weight of `skip_connect`; skip_edges: share of the edges where it is the choice; expected_cost: of the
    relaxed network, as a share of the largest; genotype: id of what argmax would derive now.
    """
    space = net.space
    soft = replace(net.relaxation, hard=False)
    alpha, beta = (soft.weights(p).cpu().double() for p in net.arch_parameters())
    genotype = argmax(space, net.alpha, net.beta)
    expected = costs.fixed + float((alpha * costs.modules).sum() + (beta * costs.edges).sum())
    edges = max(1, len(genotype.edges))
    skips = [k for k, name in enumerate(space.operations) if name == "skip_connect"]
    return {
        "alpha": _rounded(alpha),
        "beta": _rounded(beta),
        "alpha_entropy": row_entropy(alpha),
        "beta_entropy": row_entropy(beta),
        "skip_share": float(beta[:, skips].sum()) / edges,
        "skip_edges": genotype.edges.count("skip_connect") / edges,
        "expected_cost": expected / costs.largest,
        "genotype": genotype.id,
    }


def _rounded(weights: Tensor) -> list[list[float]]:
    return [[round(w, 6) for w in row] for row in weights.tolist()]


@torch.no_grad()
def row_entropy(weights: Tensor) -> float:
    """Mean entropy of rows of weights (n, k) as a share of the largest, log k: 1 undecided, 0 decided."""
    if not weights.numel():
        return 0.0
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(1).mean()
    return float(entropy) / math.log(weights.shape[1])


def collapse(
    skip_edges: float, eigenvalues: list[float], max_skip_share: float, ratio: float | None = 0.75
) -> str | None:
    """Why a search should stop, or None. Eigenvalues: of all measurements so far, oldest first.

    The eigenvalue rule is RobustDARTS's (Zela et al., ICLR 2020): the mean of the last five against that of the
    five ending five measurements ago, a ratio of old to new below `ratio`; at least ten measurements are needed.
    """
    if skip_edges > max_skip_share:
        return f"{skip_edges:.0%} of the edges choose skip_connect (limit {max_skip_share:.0%})"
    if ratio is not None and len(eigenvalues) >= 10:
        magnitudes = [abs(value) for value in eigenvalues]
        old, new = sum(magnitudes[-10:-5]) / 5, sum(magnitudes[-5:]) / 5
        if new > 0 and old / new < ratio:
            return f"the architecture Hessian's dominant eigenvalue rose from {old:.3g} to {new:.3g}"
    return None
