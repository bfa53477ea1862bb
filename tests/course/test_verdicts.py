"""The verdict rule against simulated studies whose truth is known: how often it is wrong, covers and finds."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from manas_course import differences
from manas_course.chance import MARGIN, Chance

SEARCHES, PICTURES = (3, 5, 10), (8, 10, 30)
DEVIATIONS = [each for each in itertools.product((0.0, 0.1, 0.5, 1.0), repeat=3) if any(each)]
SOME = [(0.5, 0.0, 0.0), (0.0, 1.0, 0.1), (0.1, 0.5, 0.1), (0.1, 0.0, 0.5), (0.5, 1.0, 0.5)]
SIZES = list(itertools.product(SEARCHES, PICTURES))


def studies(shape: tuple[int, ...], deviations: tuple[float, float, float], seed: int) -> np.ndarray:
    """Return made-up runs (..., searches, 1, pictures): each search, picture and cell deviates by its own number."""
    rng = np.random.default_rng(seed)
    *many, searches, pictures = shape
    sources = ((*many, searches, 1, 1), (*many, 1, 1, pictures), (*many, searches, 1, pictures))
    return sum(deviation * rng.normal(size=each) for deviation, each in zip(deviations, sources, strict=True))


def share(trials: int, wanted: float, slack: float = 3.5) -> float:
    """Return how far a simulated share may lie from the wanted one by the simulation's own chance."""
    return slack * math.sqrt(wanted * (1 - wanted) / trials)


def check_coverage(searches: int, pictures: int, deviations: tuple[float, float, float], trials: int) -> float:
    low, high = differences.interval(studies((trials, searches, pictures), deviations, seed=7))
    covered = float(np.mean((low <= 0) & (high >= 0)))
    assert covered >= 0.95 - share(trials, 0.05), (searches, pictures, deviations)
    between, among, rest = deviations
    errors = between**2 / searches, among**2 / pictures
    alone = rest == 0 and max(errors) > 50 * min(errors)
    if alone and between:  # one source is all there is: exact. Equal searches are copies, which decide nothing.
        assert covered <= 0.97 + share(trials, 0.03), (searches, pictures, deviations)
    return covered


def check_family(searches: int, pictures: int, deviations: tuple[float, float, float], trials: int, arms: int) -> None:
    """Every arm is the reference again: a study errs where any arm gets a verdict that says otherwise."""
    runs = studies((trials, arms + 1, searches, pictures), deviations, seed=arms)
    found = differences.paired_p(runs[:, 1:] - runs[:, :1])
    wrong = np.mean([min(differences.holm_adjusted(list(p))) <= 0.05 for p in found])
    assert wrong <= 0.05 + share(trials, 0.05), (searches, pictures, deviations, arms)


@pytest.mark.parametrize("deviations", SOME)
def test_intervals_cover(deviations: tuple[float, float, float]) -> None:
    for searches, pictures in SIZES:
        check_coverage(searches, pictures, deviations, 3000)


def test_intervals_are_hardly_wider_than_needed() -> None:
    """Ten searches: both kinds of chance alike, and nothing but the rest, which stands in both errors."""
    assert check_coverage(10, 10, (0.5, 0.5, 0.0), 4000) < 0.975
    assert check_coverage(10, 30, (0.0, 0.0, 0.5), 4000) < 0.985


@pytest.mark.slow
def test_intervals_cover_on_the_whole_grid_and_most_of_them_not_too_often() -> None:
    covered = [check_coverage(*size, each, 20000) for size in SIZES for each in DEVIATIONS]
    print(np.quantile(covered, [0, 0.25, 0.5, 0.75, 1]))
    assert np.mean(np.array(covered) <= 0.97 + share(20000, 0.03)) > 0.65


@pytest.mark.parametrize("arms", [1, 12])
@pytest.mark.parametrize("deviations", SOME)
def test_wrong_differences_are_rare_in_a_family(deviations: tuple[float, float, float], arms: int) -> None:
    for searches in SEARCHES:
        check_family(searches, 12, deviations, 250, arms)


@pytest.mark.slow
@pytest.mark.parametrize("arms", [1, 12])
def test_wrong_differences_are_rare_in_a_family_on_the_whole_grid(arms: int) -> None:
    for (searches, pictures), deviations in itertools.product(SIZES, DEVIATIONS):
        check_family(searches, pictures, deviations, 2000 // arms, arms)


@pytest.mark.parametrize("searches", SEARCHES)
def test_wrong_equivalences_are_rare(searches: int) -> None:
    """The true difference is the margin itself; with little noise, equivalence could be shown were it true."""
    trials, deviations = 3000, (0.03, 0.05, 0.05)
    runs = studies((trials, searches, 12), deviations, seed=3)
    assert np.mean(differences.equivalence_p(MARGIN + runs) <= 0.05) <= 0.05 + share(trials, 0.05)
    assert np.mean(differences.equivalence_p(runs) <= 0.05) > 0.5


@pytest.mark.parametrize("searches", SEARCHES)
@pytest.mark.parametrize("deviations", [*SOME, (0.5, 0.5, 0.0), (0.0, 0.5, 0.5)])
def test_power_is_as_planned(searches: int, deviations: tuple[float, float, float]) -> None:
    """A difference of the planned size is found 4 times in 5: exactly with one source, within 9 points with more."""
    pictures, trials = 12, 3000
    between, among, rest = (each**2 for each in deviations)
    left = rest / searches / pictures
    freedom = (searches - 1, pictures - 1, (searches - 1) * (pictures - 1))
    chance = Chance(between / searches + left, among / pictures + left, left, freedom)
    for arms in (1, 12):
        low, _ = differences.interval(
            chance.detectable(arms) + studies((trials, searches, pictures), deviations, seed=arms), 1 - 0.05 / arms
        )
        slack = 0.0 if among == rest == 0 else 0.09
        assert np.mean(low > 0) == pytest.approx(0.8, abs=share(trials, 0.8) + slack)


def test_planning_is_the_noncentral_t() -> None:
    """Against a numerical mean over the standard errors that a study may see. At n = 3, K = 12: 19.65 errors."""
    for searches, arms in itertools.product((2, 3, 5, 10, 50), (1, 2, 12)):
        plan, freedom = Chance.planned(searches, 1.0), searches - 1
        shift = plan.detectable(arms) / math.sqrt(2 / searches)
        seen = np.sqrt(stats.chi2.ppf((np.arange(50000) + 0.5) / 50000, freedom) / freedom)
        limit = stats.t.ppf(1 - 0.025 / arms, freedom)
        assert stats.norm.sf(limit * seen - shift).mean() == pytest.approx(0.8, abs=1e-3)
        assert plan.power(plan.detectable(arms), arms) == pytest.approx(0.8)
    assert Chance.planned(3, 1.0).detectable(12) / math.sqrt(2 / 3) == pytest.approx(19.65, abs=0.01)
    assert math.isinf(Chance.planned(1).detectable())
    assert Chance.planned(1).power(100.0) == 0


arrays = st.tuples(
    st.integers(2, 6), st.integers(1, 2), st.integers(2, 9), st.integers(0, 2**32 - 1),
    st.floats(-2, 2), st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([0.0, 0.1, 1.0]),
)  # fmt: skip


@given(arrays)
def test_p_interval_and_verdict_never_contradict_each_other(case) -> None:
    searches, retrainings, pictures, seed, mean, between, among = case
    rng = np.random.default_rng(seed)
    d = mean + between * rng.normal(size=(searches, retrainings, 1)) + among * rng.normal(size=pictures)
    d = d + 0.1 * rng.normal(size=d.shape)
    for level in (0.9, 0.95, 0.999):
        low, high = differences.interval(d, level)
        assert (low > 0 or high < 0) == (differences.paired_p(d) < 1 - level)
    low, high = differences.interval(d, 0.9)
    assert (low > -MARGIN and high < MARGIN) == (differences.equivalence_p(d) < 0.05)
    assert differences.paired_p(-d) == pytest.approx(float(differences.paired_p(d)))
    (row,) = differences.compare([
        {"arm": arm, "search_seed": s, "retrain_seed": r, "parameters": 1.0,
         "images": {str(k): 20 + (arm == "x") * d[s, r, k] for k in range(pictures)}}
        for arm in ("full", "x") for s in range(searches) for r in range(retrainings)
    ])  # fmt: skip
    if row["verdict"] in ("better", "worse"):
        assert row["low"] > 0 if row["verdict"] == "better" else row["high"] < 0
    assert (row["verdict"] == "equivalent") == (row["p_equivalent"] <= 0.05)
    if row["verdict"] == "undecided":
        assert row["low"] <= 0 <= row["high"]


def test_a_table_has_each_of_the_four_verdicts() -> None:
    rng = np.random.default_rng(0)
    effects = {"full": (0, 0.01), "up": (2, 0.05), "down": (-2, 0.05), "same": (0.02, 0.01), "noisy": (0.3, 1.0)}
    rows = differences.compare([
        {"arm": arm, "search_seed": s, "retrain_seed": 0, "parameters": 1.0,
         "images": {str(k): 20 + k + shift + rng.normal(0, 0.02) for k in range(8)}}
        for arm, (mean, spread) in effects.items() for s in range(6) for shift in [mean + spread * rng.normal()]
    ])  # fmt: skip
    assert {row["arm"]: row["verdict"] for row in rows} == {
        "up": "better", "down": "worse", "same": "equivalent", "noisy": "undecided",
    }  # fmt: skip


def test_a_worse_arm_on_twelve_unlike_pictures_is_undecided_among_twelve_arms() -> None:
    """Three searches that agree to 0.08 dB, pictures that differ by 2.8 dB: other pictures may say otherwise."""
    rng = np.random.default_rng(0)
    d = -2.5 + 0.08 * rng.normal(size=(3, 1, 1)) + 2.8 * stats.zscore(rng.normal(size=12), ddof=1)
    p = float(differences.paired_p(d))
    assert stats.ttest_1samp(d.mean((1, 2)), 0).pvalue * 12 < 0.05
    assert p < 0.05 < 12 * p


def test_texts_name_the_numbers_that_planning_gives(repository: Path) -> None:
    """Written by hand in three places, and to be written anew where the plan changes."""
    three, ten = (Chance.planned(n).detectable() for n in (3, 10))
    teaching, notebook, results = (
        " ".join((repository / name).read_text("utf-8").replace("\n#", "\n").split())
        for name in ("notebooks/teaching/README.md", "notebooks/sources/06_ablations.py", "docs/results.md")
    )
    assert f"Three searches find a difference of about {three:.1f} dB" in teaching
    assert f"three searches reach it at about {three:.1f} dB, ten at about {ten:.1f} dB" in notebook
    assert f"3 searches of each find a difference of {three:.1f} dB 4 times in 5" in results
