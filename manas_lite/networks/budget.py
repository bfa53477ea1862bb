"""The best architecture within a budget: cost as a constraint that holds, in place of a price whose effect is guessed.

Each place of a space adds its own cost and its own score, so that the best choice under a limit is a multiple-choice
knapsack. Dynamic programming over places and costs solves it exactly, but for rounding costs up to a fine grid.
"""

import numpy as np
import torch
from torch import Tensor

from manas_lite.networks.costs import Costs
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace

GRID = 20_000
"""Steps of the grid from no cost to the limit: with 40 places, rounding up takes 0.2 % of the budget at most."""

SLACK = 0.03
"""A network uses at least 1 - SLACK of its budget, where the space has such a one."""


def best_within(space: SearchSpace, alpha: Tensor, beta: Tensor, costs: Costs, limit: float) -> Genotype:
    """Return the architecture of the largest probability whose cost lies within SLACK under a limit.

        maximise  sum over places of log softmax(row)[choice]     subject to   (1 - SLACK) limit <= cost <= limit

    Where no architecture of the space lies in that range, the most expensive one under the limit is returned. A budget
    that no architecture can use up is no constraint: the most probable architecture is returned.

    Args:
        space, costs: the space, and what each of its choices costs, in any unit.
        alpha, beta: logits, (modules, candidate modules) and (edges, operations). What may not win is left out.
        limit: the most that the network may cost, in that unit.

    Raises:
        ValueError: where even the cheapest architecture costs more.

    Source: this kit's choice; the knapsack is that of Dudzinski & Walukiewicz, EJOR 1987.
    """
    barred = torch.tensor([name not in space.choices for name in space.operations])
    alpha, beta = alpha.detach().double().cpu(), beta.detach().double().cpu().masked_fill(barred, -torch.inf)
    scores = [*torch.log_softmax(alpha, 1).numpy(), *torch.log_softmax(beta, 1).numpy()]
    prices = [*costs.modules.numpy(), *costs.edges.numpy()]
    if (cheapest := lowest_cost(space, costs)) > limit:
        costing = f"the cheapest costs {cheapest:,.4g}, the most expensive {costs.largest:,.4g}"
        raise ValueError(f"no network of this space costs {limit:,.4g} {costs.unit} or less: {costing}")
    unit, size = (limit - costs.fixed) / GRID or 1.0, GRID + len(scores) + 1
    # After each place, for every rounded cost: the largest score that reaches it, what that choice truly costs, and the
    # candidate taken last. Rounding errs by half a unit per place, which the true cost makes good in the end.
    best, spent = np.full(size, -np.inf), np.full(size, costs.fixed)
    best[0] = 0.0
    taken = np.full((len(scores), size), -1, np.int16)
    steps = [np.rint(price / unit).astype(int) for price in prices]
    for row, (score, price, step) in enumerate(zip(scores, prices, steps, strict=True)):
        after, cost = np.full(size, -np.inf), np.full(size, np.inf)
        for k in np.flatnonzero(np.isfinite(score) & (step < size)):
            width = step[k]
            reached = best[: size - width] + score[k]
            better = reached > after[width:]
            after[width:][better] = reached[better]
            cost[width:][better] = (spent[: size - width] + price[k])[better]
            taken[row, width:][better] = k
        best, spent = after, cost
    under = np.isfinite(best) & (spent <= limit * (1 + 1e-12))
    inside = under & (spent >= (1 - SLACK) * limit)
    if under.any():
        if inside.any():
            wanted = np.where(inside, best, -np.inf)
        else:
            wanted = np.where(under, best if (1 - SLACK) * limit >= costs.largest else spent, -np.inf)
        at = int(np.argmax(wanted))
        chosen: list[int] = []
        for row in reversed(range(len(scores))):
            chosen.insert(0, int(taken[row, at]))
            at -= int(steps[row][chosen[0]])
    else:  # the limit is so near to the cheapest network that rounding hides it
        chosen = [int(np.argmin(np.where(np.isfinite(s), p, np.inf))) for s, p in zip(scores, prices, strict=True)]
    count = len(space.module_branches)
    modules = tuple(space.modules[k] for k in chosen[:count])
    return Genotype(space, modules, tuple(space.operations[k] for k in chosen[count:]))


def lowest_cost(space: SearchSpace, costs: Costs) -> float:
    """Return the cost of the cheapest architecture that may be derived."""
    allowed = [space.operations.index(name) for name in space.choices]
    return costs.fixed + float(costs.modules.amin(1).sum() + costs.edges[:, allowed].amin(1).sum())


def random_within(space: SearchSpace, costs: Costs, limit: float, seed: int) -> Genotype:
    """Return a random architecture within the budget: the best for logits drawn from a Gumbel distribution.

    Without a limit these are uniform draws. Under one, draws lean neither to modules nor to edges of their own.
    """
    generator = np.random.default_rng(seed)
    alpha, beta = (torch.from_numpy(generator.gumbel(size=tuple(t.shape))) for t in (costs.modules, costs.edges))
    return best_within(space, alpha, beta, costs, limit)


def front(
    space: SearchSpace, alpha: Tensor, beta: Tensor, costs: Costs, count: int = 8
) -> list[tuple[float, Genotype]]:
    """Return (cost, architecture) for `count` budgets spread evenly from the cheapest to the most expensive network.

    The arguments are those of `best_within`. Equal architectures are listed once.
    """
    limits = np.linspace(lowest_cost(space, costs) * (1 + SLACK), costs.largest, count)
    found = {best_within(space, alpha, beta, costs, float(limit)): None for limit in limits}
    return sorted(((costs.of(g.modules, g.edges), g) for g in found), key=lambda point: point[0])
