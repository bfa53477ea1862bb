"""Statistics of arms against simulations and textbook values."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from manas_course import ablation, differences, illustrations, support
from manas_lite import losses
from manas_lite.runs.record import read_json, write_json
from manas_lite.runs.settings import to_dict
from tools.course import contents, runner, sources, sweeps


def result(arm: str, search: int, images: dict[str, float], retrain: int = 0) -> dict:
    return {"arm": arm, "search_seed": search, "retrain_seed": retrain, "parameters": 10.0, "images": images}


def study(effect: float, between: float, searches: int, seed: int, arms: int = 1) -> list[dict]:
    rng = np.random.default_rng(seed)
    found = []
    for search in range(searches):
        base = {f"p{k}": 24 + rng.normal(0, 2) for k in range(6)}
        found.append(result("full", search, base))
        for arm in range(arms):
            shift = effect + rng.normal(0, between)
            found.append(result(f"arm{arm}", search, {k: v + shift + rng.normal(0, 0.1) for k, v in base.items()}))
    return found


def test_a_large_effect_is_found_and_none_is_undecided() -> None:
    (row,) = differences.compare(study(-2.0, 0.3, 6, 0))
    assert row["verdict"] == "worse"
    assert row["low"] < -2.0 + 0.5
    assert row["searches"] == 6
    (row,) = differences.compare(study(2.0, 0.3, 6, 1))
    assert row["verdict"] == "better"


def test_without_an_effect_verdicts_are_rare() -> None:
    """Three searches, five arms, no effect anywhere: at most a few per cent of the arms may be called anything."""
    verdicts = [row["verdict"] for seed in range(20) for row in differences.compare(study(0, 0.6, 3, seed, arms=5))]
    assert sum(verdict != "undecided" for verdict in verdicts) <= 6  # of 100


def test_one_search_decides_nothing() -> None:
    (row,) = differences.compare(study(5.0, 0.1, 1, 0))
    assert row["verdict"] == "undecided"
    assert math.isinf(row["detectable"])


def test_pictures_are_not_runs() -> None:
    """The interval does not shrink with more pictures where searches differ."""
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 0.6, (5, 1, 1))
    few, many = (shifts + rng.normal(0, 0.05, (5, 1, n)) for n in (5, 500))
    widths = [np.ptp(differences.interval(d)) for d in (few, many)]
    assert widths[1] > 0.8 * widths[0]


def test_where_pictures_agree_p_is_that_of_a_textbook_t_test_over_searches() -> None:
    means = np.random.default_rng(0).normal(0.3, 0.5, 5)
    d = np.broadcast_to(means[:, None, None], (5, 2, 7))
    assert differences.paired_p(d) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert differences.interval(d) == pytest.approx(stats.ttest_1samp(means, 0).confidence_interval())


def test_where_searches_hardly_differ_p_is_that_of_a_textbook_t_test_over_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(0.5, 0.8, 20)
    d = pictures + 1e-6 * rng.normal(size=(3, 1, 1))
    assert differences.paired_p(d) == pytest.approx(stats.ttest_1samp(pictures, 0).pvalue, rel=1e-3)


def test_what_cannot_be_seen_decides_nothing() -> None:
    d = np.random.default_rng(0).normal(0.3, 0.01, (5, 2, 7))
    copies = np.broadcast_to(d[:1], d.shape)
    for blind in (d[:1], d[..., :1], d[:1, :, :1], copies, np.zeros((3, 1, 4)), np.ones((3, 1, 4))):
        assert differences.paired_p(blind) == 1
        assert differences.equivalence_p(blind) == pytest.approx(0.5)
        assert math.isinf(differences.detectable(blind))
        assert np.isinf(differences.interval(blind)).all()


def test_three_searches_of_one_sign_decide_nothing_by_themselves() -> None:
    """By chance alone one study in four looks so."""
    (row,) = differences.compare([
        result(arm, search, {"a": 20 + gain * (arm == "x"), "b": 21 + gain * (arm == "x")})
        for search, gain in enumerate((0.05, 0.3, 0.9))
        for arm in ("full", "x")
    ])  # fmt: skip
    assert row["low"] < 0 < row["high"]
    assert row["verdict"] == "undecided"


def test_holm_against_values_by_hand() -> None:
    assert differences.holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert differences.holm_adjusted([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_only_shared_seeds_are_paired() -> None:
    found = [result("full", 0, {"a": 1.0}), result("x", 0, {"a": 2.0}), result("x", 1, {"a": 9.0})]
    assert differences.paired(found, "x", "full").tolist() == [[[1.0]]]
    with pytest.raises(ValueError, match="share no"):
        differences.paired([result("full", 0, {"a": 1.0}), result("x", 1, {"a": 1.0})], "x", "full")
    with pytest.raises(ValueError, match="different pictures"):
        differences.paired([result("full", 0, {"a": 1.0}), result("x", 0, {"b": 1.0})], "x", "full")
    with pytest.raises(ValueError, match="no run of the reference"):
        differences.compare([result("x", 0, {"a": 1.0})])


def test_one_name_for_two_arms_is_refused() -> None:
    """A switch changed, the name not: the later result would have taken the place of the earlier one unseen."""
    full, x, other = (
        result(arm, 0, {"a": value}) | {"settings": {"fusion": True, "settings": settings}}
        for arm, value, settings in (("full", 1.0, []), ("x", 2.0, []), ("x", 5.0, ["tv=0.0"]))
    )
    assert differences.paired([full, x, x], "x", "full").tolist() == [[[1.0]]]  # the same run twice is one run
    for found in ([full, x, other], [other, x, full]):
        with pytest.raises(ValueError, match=r"'x' has two .* search seed 0, .*\(tv=0.0\): .* another name"):
            differences.compare(found)


def test_latex_of_one_search_has_no_interval() -> None:
    assert "x & 1 & +1.00 & -- & -- & undecided" in differences.latex(
        differences.compare(
            [result(arm, 0, {"a": 1.0 + (arm == "x"), "b": 2.0 + (arm == "x")}) for arm in ("full", "x")]
        ),
        "",
    )


def test_a_forest_of_one_search_has_dots_and_no_intervals() -> None:
    axes = illustrations.forest(differences.compare(study(1.0, 0.1, 1, 0, arms=2)), title="one search").axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 1, 2]  # two dots, and the line at 0
    assert np.isfinite(axes.get_xlim()).all()


def test_names_in_a_scatter_cover_no_point_and_no_other_name() -> None:
    points = {"one": (1.0, 1.0), "two": (1.001, 1.0), "three": (2.0, 2.0)}
    xs = np.linspace(1.05, 1.4, 40)  # right of the first two
    figure = illustrations.scatter(points, x="x", y="y", title="t", among=(xs, np.full(40, 1.02), xs))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    places = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(places) == set(points)
    dots = axes.transData.transform([*points.values(), *((each, 1.02) for each in xs)])
    for name, place in places.items():
        assert not any(place.contains(*dot) for dot in dots)
        assert not any(place.overlaps(other) for key, other in places.items() if key != name)


def test_the_first_point_of_a_scatter_is_on_top() -> None:
    points = {str(k): (1.0, 1.0) for k in range(9)}
    figure = illustrations.scatter(points, x="x", y="y", title="t")
    heights = [line.get_zorder() for line in figure.axes[0].lines]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 9


def test_latex_is_whole_and_escaped() -> None:
    text = differences.latex(differences.compare(study(1.0, 0.2, 3, 0)), "100 % of a_b & c")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert r"100 \% of a\_b \& c" in text
    assert text.count(r"\\") == 2


def test_every_setting_of_the_notebook_reaches_the_runs() -> None:
    plain = ablation.Arm(size="smoke")
    settings = {
        "external": "ssim", "external_weight": 0.5, "external_ssim": 0.0, "tv": 0.0, "internal_weight": 0.5,
        "internal_from": 2, "internal_ssim": True, "alpha_entropy_weight": 0.0, "beta_entropy_weight": 0.0,
        "complexity_weight": 0.1, "complexity_unit": "flops", "multi_to_one": False,
        "fresh_rain": ["light", "heavy"], "rains": 2, "order": "exact", "attention": False, "residual": False,
        "norm": "batch", "stem": "bottleneck", "arch_rate": 0.5, "loss.tv": 0.0, "compute.threads": 1,
    }  # fmt: skip
    own = {"search_steps": 50, "warmup_epochs": 2, "search_seed": 1, "size": "teach"}
    for name, value in (settings | own).items():
        arm = ablation.Arm.of({"size": "smoke", name: value})
        assert arm.plan != plain.plan, name
        assert bool(arm.settings) == (name in settings)
    other = ablation.Arm(size="smoke", retrain_seed=1, retrain_steps=70)
    assert other.plan.retrain != plain.plan.retrain
    assert other.plan.search == plain.plan.search  # so that the search is shared
    another = ablation.Arm(size="smoke", search_seed=1, settings=("tv=0",))
    assert another.plan.retrain.seed != plain.plan.retrain.seed  # or their noise would be one
    assert another.plan.retrain.seed == ablation.Arm(size="smoke", search_seed=1).plan.retrain.seed


def test_the_loss_counts_where_it_was_asked_for() -> None:
    default = ablation.Arm(size="smoke")
    only_search = ablation.Arm(size="smoke", settings=("internal_weight=0",), loss_phase="search")
    assert only_search.plan.search.loss.internal_weight == 0
    assert only_search.plan.retrain == default.plan.retrain
    only_retrain = ablation.Arm(size="smoke", settings=("internal_weight=0",), loss_phase="retrain")
    assert only_retrain.plan.search == default.plan.search
    assert only_retrain.plan.retrain.loss.internal_weight == 0


def test_a_setting_counts_in_each_part_that_has_it_and_texts_that_change_nothing_are_no_change() -> None:
    arm = ablation.Arm(settings=("tv=0", "multi_to_one=off", "clip=3", "loss.tv=0.0"))
    assert arm.settings == ("clip=3.0", "multi_to_one=false", "tv=0.0")
    for part in (arm.plan.search, arm.plan.retrain):
        assert (part.clip, part.multi_to_one, part.loss.tv) == (3, False, 0)
    assert ablation.Arm(settings=("tv=1e-4", "stem=unshuffle")) == ablation.Arm()
    together = ablation.Arm(settings=("channels=6,9", "groups=3", "compute.threads=1"))  # 9 takes no two groups
    assert (together.plan.space.groups, together.plan.search.compute.threads) == (3, 1)
    assert ablation.Arm(search_seed=2, settings=("tv=0",)).changes() == {"search_seed": 2, "settings": ["tv=0.0"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("internal_wieght=0", "did you mean 'internal_weight'"),
        ("tv=little", "tv: expected float"),
        ("external=l7", "'l7'"),
        ("loss.terms.unheard_of=1", "unheard_of"),
        ("seed=3", "set search_seed or retrain_seed"),
        ("steps=3", "set search_steps or retrain_steps"),
        ("tv", "write name=value"),
        ("tv.x=1", "names nothing"),
    ],
)
def test_a_wrong_setting_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ablation.Arm(settings=(text,))


@pytest.fixture
def own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance and a term that a student registers."""
    monkeypatch.setattr(losses, "DISTANCES", dict(losses.DISTANCES))
    monkeypatch.setattr(losses, "TERMS", dict(losses.TERMS))
    losses.distance("fourth")(lambda outputs, target: (outputs - target).pow(4).mean())
    losses.term("sharpness")(lambda outputs, clean: outputs.var())


def test_a_new_loss_is_at_once_a_setting_of_an_arm(own_losses: None) -> None:
    arm = ablation.Arm.of({"external": "fourth+ssim", "terms": {"sharpness": 0.1}})
    assert arm.settings == ("external=fourth+ssim", "terms.sharpness=0.1")
    assert arm.plan.retrain.loss.terms == {"sharpness": 0.1}
    assert ablation.Arm(settings=("loss.terms.sharpness=0.1", "loss.external=fourth+ssim")) == arm


def test_a_new_loss_is_at_once_a_parameter_of_the_notebook(own_losses: None, tmp_path: Path) -> None:
    notebook = contents.find("06")
    built = sources.build(notebook, "solution")
    given = {"external": "fourth", "loss.terms.sharpness": "0.1", "rains": "2"}
    values = runner.settle(notebook, built, "smoke", given, tmp_path)
    assert values["external"] == "fourth"
    assert values["settings"] == ["loss.terms.sharpness=0.1", "rains=2"]
    for given, message in (({"tvv": 0}, "'tvv': did you mean 'tv'"), ({"rains": "few"}, "rains: expected int")):
        with pytest.raises(ValueError, match=message):
            runner.settle(notebook, built, "smoke", given, tmp_path)


OLD = {
    "w_mse": 0.0, "w_ssim": 0.0, "w_tv": 0.0, "w_internal": 0.5, "internal_start": 2, "internal_ssim": True,
    "w_entropy_alpha": 0.0, "w_entropy_beta": 0.0, "w_complexity": 0.1, "cost": "flops", "multi_to_one": False,
    "extra_rain": True, "rains_per_scene": 2, "order": "exact", "attention": False, "residual": False,
    "norm": "batch", "stem": "bottleneck", "distance": "mse",
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_an_old_keyword_is_accepted_and_warned_of(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=name):
        arm = ablation.Arm(**{"size": "smoke", name: OLD[name]})
    assert arm.plan != ablation.Arm(size="smoke").plan


def test_old_weights_are_the_losses_that_they_were() -> None:
    with pytest.warns(DeprecationWarning, match="w_mse is now called external_weight"):
        loss = ablation.Arm(w_mse=2.0, distance="mse").plan.loss
    expected = {"external": "mse+ssim", "external_weight": 2, "external_ssim": 0.15, "tv": 5e-5}
    assert {name: getattr(loss, name) for name in expected} == expected
    with pytest.warns(DeprecationWarning, match="w_ssim"), pytest.raises(ValueError, match="both 0"):
        ablation.Arm(w_mse=0.0, w_ssim=0.0)


def test_old_parameters_of_the_notebook_are_accepted_and_warned_of(tmp_path: Path) -> None:
    notebook = contents.find("06")
    built = sources.build(notebook, "solution")
    given = {"w_ssim": "0", "extra_rain": "true", "w_internal": 0.5}
    with pytest.warns(DeprecationWarning, match="extra_rain is now called fresh_rain"):
        values = runner.settle(notebook, built, "paper", given, tmp_path)
    assert (values["external"], values["internal_weight"]) == ("mse", 0.5)  # the pixel distance of the preset stays
    assert "fresh_rain=light,heavy" in values["settings"]


def test_stored_results_get_the_present_names_of_their_arms() -> None:
    """What was stored under old names is what the arms of the sweep file are now, budget and seed apart."""
    found = ablation.read_results(support.shipped("ablation") / "results.json")
    arms = sweeps.read("arms.yaml").arms
    assert {r["arm"] for r in found} == set(arms)
    for r in found:
        budget = {name: r["settings"][name] for name in ("search_seed", "search_steps", "retrain_steps")}
        assert r["settings"] == to_dict(ablation.Arm.of({"arm": r["arm"], **budget, **arms[r["arm"]]})), r["arm"]


def test_an_arm_that_was_run_under_old_and_new_names_counts_once(tmp_path: Path) -> None:
    file = support.shipped("ablation") / "results.json"
    old, new = read_json(file)[:2], ablation.read_results(file)[:2]
    assert old[0]["settings"] != new[0]["settings"]
    for number, result in enumerate([*old, *new]):
        (folder := tmp_path / "ablation" / f"run-{number}").mkdir(parents=True)
        write_json(folder / "result-val.json", result)
    assert ablation.results(tmp_path) == new


def test_only_results_of_one_study_are_compared() -> None:
    def of(size: str, steps: int, pictures: str) -> dict:
        settings = {"size": size, "search_steps": 10, "retrain_steps": steps}
        return {"settings": settings, "images": dict.fromkeys(pictures, 1.0)}

    study, other = [of("smoke", 10, "ab"), of("smoke", 10, "ba")], of("smoke", 10, "xyz")
    found = [of("teach", 10, "ab"), study[0], of("smoke", 20, "ab"), other, study[1]]
    assert ablation.comparable(found) == study
    assert ablation.comparable(found, like=other) == [other]
    assert ablation.comparable(found, like=of("lite", 1, "a")) == []
    assert ablation.comparable([]) == []


def test_the_shipped_arms_were_trained_and_belong_together() -> None:
    found = ablation.read_results(support.shipped("ablation") / "results.json")
    assert ablation.comparable(found) == found
    arms = {r["arm"] for r in found}
    assert "full" in arms
    for name in arms:
        runs = [r for r in found if r["arm"] == name]
        assert sorted(r["search_seed"] for r in runs) == [0, 1, 2]
        gain = np.mean([np.mean(list(r["images"].values())) - np.mean(list(r["rainy"].values())) for r in runs])
        # Without the pixel distance nothing holds the colours, which SSIM hardly sees: that arm may end below its input
        assert gain > 0 or "external=ssim" in runs[0]["settings"]["settings"]
