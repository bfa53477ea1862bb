"""A supernet trained by sampled paths, and evolution over it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from manas_lite import DerainNet, Genotype, SearchSpace, SuperNet, search
from manas_lite.networks.budget import SLACK, best_within
from manas_lite.networks.costs import measure_costs
from manas_lite.training.paths import choices_of, draw_path, evolve, on_path, walk

SPACE = SearchSpace.preset("smoke")
LITE = SearchSpace.preset("lite")


def test_a_path_is_a_function_of_seed_and_step():
    one, two = draw_path(SPACE, 3, 7, fair=False), draw_path(SPACE, 3, 7, fair=False)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    others = [draw_path(SPACE, 3, 8, fair=False), draw_path(SPACE, 4, 7, fair=False)]
    assert all(any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True)) for other in others)


@pytest.mark.parametrize("fair", [False, True])
def test_paths_are_uniform_and_take_nothing_that_may_not_win(fair):
    steps = 4000
    counts = np.zeros((len(SPACE.edge_branch), len(SPACE.operations)))
    for step in range(steps):
        counts[np.arange(len(counts)), draw_path(SPACE, 0, step, fair=fair)[1]] += 1
    assert counts[:, SPACE.operations.index("none")].sum() == 0
    rest = np.delete(counts, SPACE.operations.index("none"), axis=1)
    if fair:
        assert (rest == steps / 8).all()
    else:
        assert abs(rest - steps / 8).max() < 5 * np.sqrt(steps / 8)  # five deviations of a binomial count


def test_fair_paths_take_each_candidate_once_a_round():
    for start in range(0, 32, 8):
        seen = np.array([draw_path(SPACE, 1, start + k, fair=True)[1] for k in range(8)])  # (8, edges)
        assert all(sorted(column) == list(range(1, 9)) for column in seen.T)
    seen = np.array([draw_path(SPACE, 1, k, fair=True)[0] for k in range(2)])
    assert all(sorted(column) == [0, 1] for column in seen.T)


def test_a_path_is_the_derived_network_with_the_weights_it_shares():
    net = SuperNet(SPACE, head_gain=0.5).double().eval()
    before = [p.detach().clone() for p in net.arch_parameters()]
    relaxation = net.relaxation
    rainy = torch.rand(1, 3, 20, 28, dtype=torch.float64)
    for seed in range(3):
        genotype = Genotype.random(SPACE, seed)
        with on_path(net, genotype):
            found = net(rainy)
            assert net.derive() == genotype
        torch.testing.assert_close(found, DerainNet(genotype).double().inherit(net).eval()(rainy), rtol=0, atol=1e-12)
    assert net.relaxation == relaxation
    assert all(torch.equal(a, b) for a, b in zip(before, net.arch_parameters(), strict=True))


def test_only_the_path_gets_gradients():
    net = SuperNet(SPACE, head_gain=0.5)
    genotype = Genotype.random(SPACE, 0)
    walk(net, choices_of(genotype))
    net(torch.rand(1, 3, 16, 16)).sum().backward()
    for place, chosen in enumerate(genotype.modules):
        for name, module in net.cells[0].slots[place].candidates.items():
            touched = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
            assert touched == (name == chosen)


def distance(best: Genotype):
    """A score that evolution can climb: the share of places that differ from the best."""

    def score(genotype: Genotype) -> float:
        pairs = zip(best.modules + best.edges, genotype.modules + genotype.edges, strict=True)
        return sum(a != b for a, b in pairs) / len(best.modules + best.edges)

    return score


def test_evolution_finds_what_random_search_does_not():
    best = Genotype.random(LITE, 77)
    draw = lambda alpha, beta: Genotype.from_logits(LITE, alpha, beta)  # noqa: E731
    found = evolve(distance(best), draw, LITE, evaluations=400, seed=0)
    by_chance = min(distance(best)(Genotype.random(LITE, seed)) for seed in range(1000, 1400))
    assert len(found) == len({genotype for _, genotype in found}) == 400
    assert found == sorted(found, key=lambda pair: pair[0])
    assert found[0][0] < 0.7 * by_chance
    assert found == evolve(distance(best), draw, LITE, evaluations=400, seed=0)


def test_evolution_keeps_to_a_budget():
    space = SearchSpace((16, 24, 32, 48), 3, stem="unshuffle", norm="none", residual=True)
    costs = measure_costs(space, "flops")
    limit = 0.4 * costs.largest
    draw = lambda alpha, beta: best_within(space, alpha, beta, costs, limit)  # noqa: E731
    found = evolve(distance(Genotype.all_parallel(space)), draw, space, evaluations=60, seed=0)
    assert len(found) == 60
    assert all((1 - SLACK) * limit <= genotype.cost("flops") <= limit for _, genotype in found)


def test_a_small_space_is_scored_whole():
    space = replace(SPACE, attention=False)
    draw = lambda alpha, beta: Genotype.from_logits(space, alpha, beta)  # noqa: E731
    found = evolve(lambda genotype: float(genotype.modules.count("fusion")), draw, space, evaluations=50)
    assert len(found) == space.count() == 4
    assert found[0][1].modules == ("parallel", "parallel")


@pytest.mark.parametrize("strategy", ["paths", "fair-paths"])
def test_a_search_by_paths_goes_the_whole_way(strategy, tmp_path):
    split = tiny.tiny_split(tmp_path / "pictures")
    settings = replace(tiny.SEARCH, strategy=strategy, evaluations=6, score_batches=1, relaxation="softmax")
    found = search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    candidates = json.loads((tmp_path / "search" / "candidates.json").read_text())
    assert len(candidates) == 6
    assert candidates[0]["modules"] == list(found.genotype.modules)
    assert candidates[0]["loss"] == min(each["loss"] for each in candidates)
    assert found.supernet.derive() == found.genotype
    assert all("arch" not in record for record in found.log)
    again = search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    assert again.genotype == found.genotype


def test_a_search_under_a_budget_keeps_it(tmp_path):
    split = tiny.tiny_split(tmp_path / "pictures")
    limit = 0.9 * measure_costs(tiny.SPACE, "parameters").largest
    settings = replace(tiny.SEARCH, budget=limit, budget_unit="parameters", eigenvalue_every=0)
    found = search(tiny.SPACE, split, settings, runs_dir=tmp_path, progress=False)
    assert found.genotype.cost() <= limit
    with pytest.raises(ValueError, match="no network of this space costs 10 parameters or less"):
        search(tiny.SPACE, split, replace(settings, budget=10.0), runs_dir=tmp_path, name="tight", progress=False)
