"""The best architecture within a budget, against every architecture of a space that can be listed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manas_lite import Genotype, SearchSpace
from manas_lite.networks.budget import SLACK, best_within, front, random_within
from manas_lite.networks.costs import measure_costs

OPERATIONS = ("none", "skip_connect", "SE", "sep_conv_3x3")
SPACE = SearchSpace((6, 8), 3, groups=1, stem="unshuffle", norm="none", residual=True, operations=OPERATIONS)
LITE = SearchSpace.preset("lite")
FOUR_BRANCHES = SearchSpace((16, 24, 32, 48), 3, stem="unshuffle", norm="none", residual=True)


def logits(space: SearchSpace, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.randn(len(space.module_branches), len(space.modules), generator=generator)
    return alpha, torch.randn(len(space.edge_branch), len(space.operations), generator=generator)


def everything(space: SearchSpace) -> list[Genotype]:
    modules = itertools.product(space.modules, repeat=len(space.module_branches))
    edges = list(itertools.product(space.choices, repeat=len(space.edge_branch)))
    return [Genotype(space, m, e) for m in modules for e in edges]


def score(genotype: Genotype, alpha: torch.Tensor, beta: torch.Tensor) -> float:
    space = genotype.space
    beta = beta.double().clone()
    beta[:, space.operations.index("none")] = -torch.inf
    total = 0.0
    for names, chosen, rows in (
        (space.modules, genotype.modules, alpha.double().log_softmax(1)),
        (space.operations, genotype.edges, beta.log_softmax(1)),
    ):
        total += sum(float(row[names.index(name)]) for row, name in zip(rows, chosen, strict=True))
    return total


ALL = everything(SPACE)
COSTS = measure_costs(SPACE)
CHEAPEST = min(COSTS.of(g.modules, g.edges) for g in ALL)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.2))
def test_it_is_the_best_of_all_within_the_range(seed: int, share: float) -> None:
    alpha, beta = logits(SPACE, seed)
    limit = CHEAPEST + share * (COSTS.largest - CHEAPEST)
    found = best_within(SPACE, alpha, beta, COSTS, limit)
    cost = COSTS.of(found.modules, found.edges)
    assert cost <= limit * (1 + 1e-9)
    fitting = [g for g in ALL if (1 - SLACK) * limit <= COSTS.of(g.modules, g.edges) <= limit]
    if fitting:
        best = max(score(g, alpha, beta) for g in fitting)
        if cost >= (1 - SLACK) * limit:  # rounding may hide those at the very edge of the range
            inner = [g for g in fitting if COSTS.of(g.modules, g.edges) >= (1 - SLACK) * limit * 1.002]
            least = max((score(g, alpha, beta) for g in inner), default=-1e9)
            assert least - 1e-9 <= score(found, alpha, beta) <= best + 1e-9
    elif (1 - SLACK) * limit >= COSTS.largest:  # a budget that nothing uses up is no constraint
        assert score(found, alpha, beta) == pytest.approx(max(score(g, alpha, beta) for g in ALL))
    else:
        under = [COSTS.of(g.modules, g.edges) for g in ALL if COSTS.of(g.modules, g.edges) <= limit]
        assert cost == pytest.approx(max(under), rel=2e-3)


@pytest.mark.parametrize("unit", ["parameters", "flops"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_large_space_is_met_within_three_percent(unit: str, share: float) -> None:
    costs = measure_costs(FOUR_BRANCHES, unit)
    cheapest = front(FOUR_BRANCHES, *logits(FOUR_BRANCHES, 0), costs, 2)[0][0]
    limit = cheapest + share * (costs.largest - cheapest)
    for seed in range(3):
        genotype = best_within(FOUR_BRANCHES, *logits(FOUR_BRANCHES, seed), costs, limit)
        assert (1 - SLACK) * limit <= genotype.cost(unit) <= limit


def test_a_budget_that_nothing_meets_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no network of this space costs 10 parameters or less: the cheapest costs"):
        best_within(SPACE, *logits(SPACE, 0), COSTS, 10)


def test_a_wide_budget_gives_the_cheapest_logits_their_way() -> None:
    """Where the most probable architecture costs just what is allowed, it is the one that is returned."""
    alpha, beta = logits(LITE, 4)
    free = Genotype.from_logits(LITE, alpha, beta)
    assert best_within(LITE, alpha, beta, measure_costs(LITE), free.cost() * 1.01) == free


def test_random_ones_differ_and_keep_to_the_budget() -> None:
    costs = measure_costs(FOUR_BRANCHES, "flops")
    limit = 0.4 * costs.largest
    drawn = [random_within(FOUR_BRANCHES, costs, limit, seed) for seed in range(6)]
    assert len(set(drawn)) == 6
    assert all((1 - SLACK) * limit <= g.cost("flops") <= limit for g in drawn)
    assert random_within(FOUR_BRANCHES, costs, limit, 3) == drawn[3]


def test_a_front_rises() -> None:
    points = front(FOUR_BRANCHES, *logits(FOUR_BRANCHES, 1), measure_costs(FOUR_BRANCHES, "flops"), 6)
    assert len(points) >= 5
    costs = [cost for cost, _ in points]
    assert costs == sorted(costs)
    assert all(cost == genotype.cost("flops") for cost, genotype in points)
