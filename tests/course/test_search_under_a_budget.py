"""Searching the table within a budget, and the network that a budget buys."""

from collections.abc import Callable

import numpy as np
import pytest

from manas_course import micro_bench, widgets

BENCH = micro_bench.load()
COST = BENCH.scores("flops")[:, 0]
WAYS = {"random search": micro_bench.random_search, "evolution": micro_bench.evolution}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


@ways
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_what_a_search_trains_is_within_the_budget(way: Callable, share: float) -> None:
    within = np.quantile(COST, share) >= COST
    for seed in range(20):
        trace = way(BENCH, seed, int(min(12, within.sum())), within=within)
        assert within[list(trace.chosen)].all()


@ways
def test_a_budget_that_allows_everything_changes_nothing(way: Callable) -> None:
    for seed in range(10):
        limited = way(BENCH, seed, 30, within=np.ones(len(COST), bool))
        free = way(BENCH, seed, 30)
        assert limited.chosen == free.chosen
        assert (limited.seconds == free.seconds).all()


def test_evolution_reaches_networks_that_no_single_change_reaches() -> None:
    """Two allowed networks that differ in everything: one change leaves the budget, several enter it again."""
    pair = [BENCH.row(micro_bench.Architecture(*each)) for each in (("pppp", "SE"), ("ffff", "CBAM"))]
    within = np.isin(np.arange(len(COST)), pair)
    chosen = {micro_bench.evolution(BENCH, seed, 12, within=within).chosen[-1] for seed in range(20)}
    assert chosen <= set(pair)
    best = {max(pair, key=lambda row, k=k: BENCH.scores()[row, k]) for k in range(len(BENCH.seeds))}  # type: ignore[misc]
    assert chosen & best


@ways
def test_a_budget_in_which_nothing_fits_is_refused(way: Callable) -> None:
    with pytest.raises(ValueError, match="no architecture of the table is within the budget"):
        way(BENCH, 0, 3, within=COST < 0)
    with pytest.raises(ValueError, match=r"shape \(3,\): expected \(128,\)"):
        way(BENCH, 0, 3, within=np.ones(3, bool))


def test_random_search_cannot_train_more_than_fit() -> None:
    with pytest.raises(ValueError, match="there are 2 architectures to draw from"):
        micro_bench.random_search(BENCH, 0, 3, within=np.arange(len(COST)) < 2)


GENOTYPES = [micro_bench.genotype_of(*each) for each in BENCH.architectures[:3]]
TRIO = {"cost": np.array([10.0, 20.0, 30.0]), "seen": np.array([1.0, 3.0, 2.0]), "expected": np.array([21.0, 22, 23])}


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (9.5, "impossible: no network costs 9.5 units, the least is 10"),
        (10.0, "10.0 of 10 units, PSNR 21.00 ± 0.25 dB"),
        (99.0, "20.0 of 99 units, PSNR 22.00 ± 0.25 dB"),
    ],
)
def test_a_budget_buys_the_network_that_looked_best_with_the_psnr_of_its_other_trainings(
    budget: float, says: str
) -> None:
    still = widgets.network_within(GENOTYPES, **TRIO, error=0.25, budget=budget, unit="units", static=True)
    assert says in [text.get_text() for text in still.texts]
