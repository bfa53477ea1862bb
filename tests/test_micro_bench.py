"""The table's reader and lock, the searches replayed on it, and the statistics of rankings against oracles."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_bench import BEST, quality, write
from scipy import stats

from manas_course import micro_bench
from manas_course.micro_bench import replays
from manas_lite import Genotype
from manas_lite.data import LeakError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def bench(folder: Path) -> micro_bench.MicroBench:
    return micro_bench.load(folder)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> micro_bench.MicroBench:
    """Without noise: searching is then a matter of looking."""
    return micro_bench.load(write(tmp_path_factory.mktemp("quiet"), noise=0.0))


# --- reading ---


def test_the_table_is_read_as_it_was_written(bench: micro_bench.MicroBench, folder: Path) -> None:
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 512
    assert bench.seeds == (0, 1, 2, 3)
    assert bench.incomplete == {}
    for row in rows[::37]:
        place = bench.row(micro_bench.Architecture(row["modules"], row["gate"])), int(row["seed"])
        assert bench.scores("val_psnr")[place] == float(row["val_psnr"])
        assert bench.final().scores("test_ssim")[place] == float(row["test_ssim"])
        training = bench.query(micro_bench.Architecture(row["modules"], row["gate"]), int(row["seed"]))
        assert training == tuple(float(row[name]) for name in training._fields)


def test_architectures_and_genotypes_are_the_same_thing() -> None:
    assert len(set(micro_bench.ARCHITECTURES)) == len(micro_bench.ARCHITECTURES) == 2**4 * 8
    for architecture in micro_bench.ARCHITECTURES[::7]:
        genotype = micro_bench.genotype_of(*architecture)
        assert micro_bench.Architecture.of(genotype) == architecture
        assert [name[0] for name in genotype.modules] == list(architecture.modules)
    with pytest.raises(ValueError, match="one gate"):
        micro_bench.Architecture.of(Genotype.random(micro_bench.SPACE, 0))
    with pytest.raises(ValueError, match="p or f"):
        micro_bench.genotype_of("pxff", "SE")


def test_the_space_does_not_depend_on_what_others_register(repository: Path) -> None:
    """A student registers candidates of their own first: the shipped table is read all the same."""
    program = (
        "from manas_lite.networks import modules, ops\n"
        "@ops.operation('own')\nclass Own(ops.Gate): pass\n"
        "@modules.searched_module('own')\nclass Shuffle(modules.ParallelModule): pass\n"
        "from manas_course import micro_bench\n"
        "assert len(micro_bench.load().architectures) == 128\n"
        "assert set(''.join(micro_bench.PATTERNS)) == set('pf')\n"
        "assert 'own' not in micro_bench.GATES + micro_bench.SPACE.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=repository, check=True)


def test_test_scores_are_locked_until_the_end(bench: micro_bench.MicroBench) -> None:
    for column in ("test_psnr", "test_ssim"):
        with pytest.raises(LeakError, match="locked"):
            bench.scores(column)
        with pytest.raises(LeakError):
            bench.by_genotype(column)
        assert np.isfinite(bench.final().scores(column)).all()
    with pytest.raises(LeakError):  # opening gives another table, it does not open this one
        bench.scores("test_psnr")
    assert not any("test" in name for name in micro_bench.Training._fields)
    with pytest.raises(LeakError):
        micro_bench.gain(bench, micro_bench.random_search(bench, 0, 3), "test_psnr")


def test_a_caller_cannot_change_the_table(bench: micro_bench.MicroBench) -> None:
    before = bench.scores()
    bench.scores()[:] = 0
    assert (bench.scores() == before).all()


def test_scores_by_genotype_are_means_over_seeds(bench: micro_bench.MicroBench) -> None:
    table = bench.by_genotype()
    assert len(table) == 128
    row = bench.row(BEST)
    assert table[micro_bench.genotype_of(*BEST).id] == pytest.approx(bench.scores()[row].mean())


def changed(folder: Path, tmp_path: Path, name: str, old: str, new: str) -> Path:
    """A copy of the table with the first `old` replaced by `new` in one file."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("val_ssim", "ssim", "no column val_ssim"),
        ("pppp,SE,0", "pppx,SE,0", "line 7: .* not in the table"),
        ("pppp,SE,0", "ppp,SE,0", "not in the table"),
        ("pppp,SE,0", "pppp,none,0", "not in the table"),
        ("pppp,SE,0,", "pppp,SE,0,nan,", "line 7: val_psnr='nan' is no finite number"),
        ("pppp,SE,0,", "pppp,SE,0,inf,", "no finite number"),
        ("pppp,SE,0,", "pppp,SE,0,good,", "'good' is no finite number"),
        ("pppp,SE,0,", "pppp,SE,half,", "seed='half'"),
        ("pppp,SE,0,", "pppp,SE,0.5,", "expected a whole number"),
        ("pppp,SE,0,", "pppp,SE,-1,", "expected a whole number"),
        ("pppp,SE,0,", "pppp,CBAM,0,", "a second time"),
        ("pppp,SE,0,", "pppp,SE\n#", "None is no finite number"),
        (",90.0", ",0.0", "seconds must be positive"),
    ],
)
def test_a_broken_table_is_refused_by_line(folder: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        micro_bench.load(changed(folder, tmp_path, "table.csv", old, new))


def test_costs_must_not_depend_on_the_seed(folder: Path, tmp_path: Path) -> None:
    cost = micro_bench.genotype_of("pppp", "SE").cost()
    with pytest.raises(ValueError, match="parameters of one architecture differ"):
        micro_bench.load(changed(folder, tmp_path, "table.csv", f",{cost},", ",1.0,"))


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        micro_bench.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"table\.csv"):
        micro_bench.load(tmp_path)
    (tmp_path / "manifest.json").write_text("no JSON")
    with pytest.raises(ValueError, match="not JSON"):
        micro_bench.load(tmp_path)
    copy = changed(folder, tmp_path, "manifest.json", "unshuffle", "bottleneck")
    with pytest.raises(ValueError, match="another search space"):
        micro_bench.load(copy)


def test_a_seed_that_lacks_architectures_is_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    copy = changed(folder, tmp_path, "table.csv", "pppp,SE,3", "pppp,SE,9")
    bench = micro_bench.load(copy)
    assert bench.seeds == (0, 1, 2)
    assert bench.incomplete == {3: 127, 9: 1}
    with pytest.raises(ValueError, match="seed 3 is not in the table"):
        bench.query(BEST, 3)
    (copy / "table.csv").write_text("".join((copy / "table.csv").read_text().splitlines(keepends=True)[:100]))
    with pytest.raises(ValueError, match=r"no seed has all 128 architectures.*0: 99"):
        micro_bench.load(copy)


def test_searches_and_one_shot_scores(bench: micro_bench.MicroBench, folder: Path, tmp_path: Path) -> None:
    first, second = bench.gradient_searches()
    assert (first.seed, second.seed) == (0, 1)
    assert first.seconds == (100.0, 200.0, 300.0)
    assert [a.modules for a in first.derived] == ["pppp", "ppff", "ffff"]
    assert bench.one_shot().shape == (2, 128)
    copy = changed(folder, tmp_path, "searches.csv", "0,1,ppff,SE,200.0", "0,1,ppff,SE,50.0")
    with pytest.raises(ValueError, match="seconds fall"):
        micro_bench.load(copy).gradient_searches()
    copy = changed(folder, tmp_path, "searches.csv", "0,1,ppff", "0,1,ppff?")
    with pytest.raises(ValueError, match=r"searches\.csv, line 3"):
        micro_bench.load(copy).gradient_searches()
    copy = changed(folder, tmp_path, "one_shot.csv", "1,pppp,SE,", "2,pppp,SE,")
    with pytest.raises(ValueError, match="127 of 128"):
        micro_bench.load(copy).one_shot()
    for name, read in (("searches", "gradient_searches"), ("one_shot", "one_shot")):
        kinds = tmp_path / name
        kinds.mkdir()
        for file in folder.iterdir():
            (kinds / file.name).write_text(file.read_text())
        header, *rows = (folder / f"{name}.csv").read_text().splitlines()
        of_two_kinds = [f"{kind},{row}" for kind in ("gradient", "other") for row in rows]
        (kinds / f"{name}.csv").write_text("\n".join([f"arm,{header}", *of_two_kinds]))
        both = micro_bench.load(kinds)
        for kind in ("gradient", "other"):  # the same rows, twice
            assert repr(getattr(both, read)(kind)) == repr(getattr(bench, read)())
        with pytest.raises(ValueError, match="no search of the kind 'third': there are gradient, other"):
            getattr(both, read)("third")
    (copy / "one_shot.csv").unlink()
    with pytest.raises(FileNotFoundError, match="one_shot"):
        micro_bench.load(copy).one_shot()


# --- searching ---


def test_random_search_finds_what_the_order_statistic_says(quiet: micro_bench.MicroBench) -> None:
    """Although training seeds shift all scores: a search trains with one of them."""
    scores = quiet.scores()[:, 0]
    for n in (1, 3, 10, 40):
        found = np.array([scores[micro_bench.random_search(quiet, seed, n).chosen[-1]] for seed in range(600)])
        error = found.std() / np.sqrt(len(found))
        assert found.mean() == pytest.approx(micro_bench.expected_best(scores, n), abs=4 * error)


def test_a_search_compares_architectures_and_not_training_seeds(quiet: micro_bench.MicroBench) -> None:
    """Seeds lie up to 1.5 dB apart here, most architectures less: which one was trained with must not decide."""
    drawn = {search: search(quiet, 3, 40) for search in (micro_bench.random_search, micro_bench.evolution)}
    assert all(len(set(trace.trained)) == 1 for trace in drawn.values())
    assert {micro_bench.random_search(quiet, seed, 1).trained for seed in range(30)} == {(k,) for k in range(4)}
    for seed in range(10):
        assert micro_bench.random_search(quiet, seed, 128).chosen[-1] == quiet.row(BEST)


def test_a_search_is_a_function_of_table_and_seed(bench: micro_bench.MicroBench) -> None:
    for search in (micro_bench.random_search, micro_bench.evolution):
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        one, two, other = (search(bench, seed, 30) for seed in (5, 5, 6))
        assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
        assert one.chosen == two.chosen
        assert (one.seconds == two.seconds).all()
        assert one.chosen != other.chosen


def test_a_search_pays_for_every_training_and_keeps_the_best_it_saw(bench: micro_bench.MicroBench) -> None:
    for search in (micro_bench.random_search, micro_bench.evolution):
        trace = search(bench, 1, 40)
        paid = np.diff(trace.seconds, prepend=0.0)
        assert set(paid) <= set(bench.scores("seconds").ravel())
        seen = [bench.scores()[row, column] for row, column in zip(trace.chosen, trace.trained, strict=True)]
        assert len(seen) == 40
        assert seen == sorted(seen)


def test_evolution_beats_chance_where_quality_is_smooth(tmp_path: Path) -> None:
    bench = micro_bench.load(write(tmp_path, noise=0.0, shift=0.0, seeds=2))
    evolved = [micro_bench.gain(bench, micro_bench.evolution(bench, seed, 60))[-1] for seed in range(100)]
    drawn = [micro_bench.gain(bench, micro_bench.random_search(bench, seed, 60))[-1] for seed in range(100)]
    assert np.mean(evolved) > np.mean(drawn)
    best = quality(*BEST) - np.mean([quality(*a) for a in bench.architectures])
    assert np.mean(np.isclose(evolved, best)) > 0.55 > np.mean(np.isclose(drawn, best))  # 60 of 128: chance is 0.47


def test_a_mutation_changes_one_choice() -> None:
    rng = np.random.default_rng(0)
    parent = micro_bench.Architecture("pfpf", "SE")
    children = [replays.mutated(parent, rng) for _ in range(400)]
    for child in children:
        differing = sum(a != b for a, b in zip(child.modules, parent.modules, strict=True))
        assert differing + (child.gate != parent.gate) == 1
    assert {c.gate for c in children} == set(micro_bench.GATES)
    assert len({c.modules for c in children}) == 5


def test_a_replayed_search_pays_supernet_and_training(bench: micro_bench.MicroBench) -> None:
    trace = micro_bench.replay(bench, bench.gradient_searches()[0])
    assert trace.seconds.tolist() == [100 + 90, 200 + 70, 300 + 50]  # 50 s and ten more a parallel module
    assert trace.trained == (None,) * 3
    centred = bench.scores() - bench.scores().mean(0)
    rows = [bench.row(micro_bench.Architecture(m, "SE")) for m in ("pppp", "ppff", "ffff")]
    assert micro_bench.gain(bench, trace) == pytest.approx(centred[rows].mean(1))


def test_the_training_that_decided_does_not_count(bench: micro_bench.MicroBench) -> None:
    """What was picked for its luck is judged on other trainings, else every search looks better than it is."""
    trace = micro_bench.random_search(bench, 3, 1)
    row, column = trace.chosen[0], trace.trained[0]
    centred = bench.scores() - bench.scores().mean(0)
    others = [k for k in range(4) if k != column]
    assert micro_bench.gain(bench, trace)[0] == pytest.approx(centred[row, others].mean())


def test_noise_alone_gains_nothing(tmp_path: Path) -> None:
    """Where all architectures are equal, the best of 30 is no better than any, although its own score says so."""
    bench = micro_bench.load(write(tmp_path, noise=5.0, shift=0.0))
    centred = bench.scores() - bench.scores().mean(0)
    gains, luck = [], []
    for seed in range(300):
        trace = micro_bench.random_search(bench, seed, 30)
        gains.append(micro_bench.gain(bench, trace)[-1])
        luck.append(centred[trace.chosen[-1], trace.trained[-1]])
    assert np.mean(luck) > 8
    assert abs(np.mean(gains)) < 2


def test_one_seed_cannot_tell(tmp_path: Path) -> None:
    bench = micro_bench.load(write(tmp_path, seeds=1))
    with pytest.raises(ValueError, match="one whole seed"):
        micro_bench.gain(bench, micro_bench.random_search(bench, 0, 3))
    with pytest.raises(ValueError, match="two seeds"):
        micro_bench.noise_ceiling(bench.scores())


def test_at_cost_is_a_step_function() -> None:
    trace = micro_bench.Trace(np.array([10.0, 30.0, 20.0]), (0, 1, 2), (None,) * 3)
    values = np.array([1.0, 3.0, 2.0])
    found = micro_bench.at_cost(trace, values, np.array([0.0, 9.9, 10.0, 19.0, 20.0, 29.0, 31.0]))
    assert np.isnan(found[:2]).all()
    assert found[2:].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_impossible_searches_are_refused(bench: micro_bench.MicroBench) -> None:
    for call in (
        lambda: micro_bench.random_search(bench, 0, 0),
        lambda: micro_bench.random_search(bench, 0, 129),
        lambda: micro_bench.evolution(bench, 0, 0),
        lambda: micro_bench.evolution(bench, 0, 10, population=1),
        lambda: micro_bench.evolution(bench, 0, 10, population=3, sample=4),
        lambda: bench.query(micro_bench.Architecture("pp", "SE"), 0),
        lambda: bench.scores("psnr"),
    ):
        with pytest.raises(ValueError, match=r"trainings|population|not in the table|no column"):
            call()


# --- comparing ---


def flat(bench: micro_bench.MicroBench, rows: list[int], cost: float = 500.0) -> list[micro_bench.Trace]:
    """Searches that choose these rows after `cost` seconds."""
    return [micro_bench.Trace(np.array([cost]), (row,), (None,)) for row in rows]


def test_a_comparison_is_made_at_equal_cost(bench: micro_bench.MicroBench) -> None:
    baseline = [micro_bench.random_search(bench, seed, 128) for seed in range(50)]
    best = bench.row(BEST)
    means = []
    for cost in (30.0, 500.0, 2000.0):
        found = micro_bench.against(bench, flat(bench, [best] * 3, cost), baseline)
        held = [micro_bench.at_cost(t, micro_bench.gain(bench, t), cost) for t in baseline]
        own = (bench.scores() - bench.scores().mean(0))[best].mean()
        assert found.mean == pytest.approx(own - np.mean(np.nan_to_num(held)))
        means.append(found.mean)
    assert means[0] == pytest.approx(own)  # nothing is trained within 30 s: the baseline is a blind choice
    assert means[0] > means[1] > means[2]
    with pytest.raises(ValueError, match=r"128 trainings\).* more trainings, about \d"):
        micro_bench.against(bench, flat(bench, [best] * 3, 1e6), baseline)
    with pytest.raises(ValueError, match="at least two"):
        micro_bench.against(bench, flat(bench, [best]), baseline)


def test_verdicts_of_comparisons(bench: micro_bench.MicroBench) -> None:
    baseline = [micro_bench.random_search(bench, seed, 1) for seed in range(400)]  # blind choices
    good, bad = (bench.row(micro_bench.Architecture(m, g)) for m, g in (("ffff", "SE"), ("pppp", "SE")))
    cost = min(t.seconds[-1] for t in baseline)
    assert micro_bench.against(bench, flat(bench, [good] * 4, cost), baseline).verdict == "better"
    assert micro_bench.against(bench, flat(bench, [bad] * 4, cost), baseline).verdict == "worse"
    mixed = micro_bench.against(bench, flat(bench, [good, bad], cost), baseline)
    assert mixed.verdict == "undecided"
    assert mixed.detectable > abs(mixed.mean)


def test_searches_that_choose_as_chance_does_are_equivalent_where_little_varies(tmp_path: Path) -> None:
    """Ten supernets, each a thousandth of a dB from an average architecture, in a table almost without noise."""
    bench = micro_bench.load(write(tmp_path, noise=1e-4, shift=0.0))
    gains = (bench.scores() - bench.scores().mean(0)).mean(1)
    near = np.argsort(abs(gains))[:10].tolist()
    baseline = [micro_bench.random_search(bench, seed, 1) for seed in range(4000)]
    found = micro_bench.against(bench, flat(bench, near, min(t.seconds[-1] for t in baseline)), baseline)
    assert found.verdict == "equivalent", str(found)
    assert -0.15 < found.low < found.high < 0.15


def test_luck_shared_by_all_searches_decides_nothing(tmp_path: Path) -> None:
    """Twenty searches that choose one architecture are twenty times the same trainings, not twenty results."""
    bench = micro_bench.load(write(tmp_path, noise=20.0, shift=0.0))
    baseline = [micro_bench.random_search(bench, seed, 1) for seed in range(400)]
    cost = min(t.seconds[-1] for t in baseline)
    rows = range(0, 128, 2)
    verdicts = [micro_bench.against(bench, flat(bench, [row] * 20, cost), baseline).verdict for row in rows]
    assert sum(verdict != "undecided" for verdict in verdicts) <= 8  # of 64; 5 % would be 3


# --- ranks ---


def test_expected_best_against_every_draw() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    for n in range(1, 6):
        without = np.mean([max(draw) for draw in itertools.combinations(values, n)])
        again = np.mean([max(draw) for draw in itertools.product(values, repeat=n)])
        assert micro_bench.expected_best(np.array(values), n) == pytest.approx(without)
        assert micro_bench.expected_best(np.array(values), n, replacement=True) == pytest.approx(again)
    for n in (0, 6):
        with pytest.raises(ValueError, match="draws"):
            micro_bench.expected_best(np.array(values), n)


def test_tau_is_scipys_also_with_ties_and_resamples() -> None:
    rng = np.random.default_rng(0)
    from manas_course.micro_bench.ranks import _taus

    for digits in (0, 6):
        x, y = np.round(rng.normal(size=(2, 30)), digits)
        counts = rng.multinomial(30, np.full(30, 1 / 30), size=20)
        expected = [stats.kendalltau(np.repeat(x, c), np.repeat(y, c)).statistic for c in counts]
        assert _taus(x, y, counts) == pytest.approx(expected)


def test_agreement_is_the_mean_over_trainings() -> None:
    rng = np.random.default_rng(1)
    scores, proxy = rng.normal(size=(40, 3)), rng.normal(size=(2, 40))
    expected = np.mean([stats.kendalltau(p, column).statistic for p in proxy for column in scores.T])
    found = micro_bench.agreement(proxy, scores)
    assert found.tau == pytest.approx(expected)
    assert found.low < found.tau < found.high
    ceiling = micro_bench.noise_ceiling(scores)
    pairs = [stats.kendalltau(scores[:, k], scores[:, j]).statistic for k, j in ((0, 1), (0, 2), (1, 2))]
    assert ceiling.tau == pytest.approx(np.mean(pairs))


def test_verdicts_follow_the_interval() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=100)
    scores = truth[:, None] + 0.3 * rng.normal(size=(100, 3))
    assert micro_bench.agreement(truth, scores).verdict == "agrees"
    assert micro_bench.agreement(-truth, scores).verdict == "disagrees"
    assert micro_bench.Agreement(0.05, -0.02, 0.12).verdict == "undecided"
    with pytest.raises(ValueError, match="constant"):
        micro_bench.agreement(np.ones(100), scores)
    with pytest.raises(ValueError, match="rankings of"):
        micro_bench.agreement(truth[:-1], scores)


def test_supernets_that_disagree_decide_nothing() -> None:
    """Of three, one ranks the other way round: their mean tau is above 0, the next supernet's may not be."""
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(128, 1)) + 0.3 * rng.normal(size=(128, 2))
    same = scores.mean(1) + 0.5 * rng.normal(size=(3, 128))
    one, three, mixed = (micro_bench.agreement(p, scores) for p in (same[0], same, same * [[1], [1], [-1]]))
    assert (one.verdict, three.verdict, mixed.verdict) == ("agrees", "agrees", "undecided")
    assert mixed.tau > 0.1
    assert mixed.low < -0.2


def test_intervals_cover() -> None:
    """Two normal variables of correlation r have tau = 2/pi asin r: intervals should hold it 95 times in 100."""
    covered, r = 0, 0.5
    for seed in range(100):
        x, e = np.random.default_rng(seed).normal(size=(2, 100))
        found = micro_bench.agreement(x, (r * x + np.sqrt(1 - r * r) * e)[:, None], draws=300, seed=seed)
        covered += found.low <= 2 / np.pi * np.arcsin(r) <= found.high
    assert covered >= 88


def test_spread_recovers_what_was_put_in() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 0.5, (2000, 1)) + rng.normal(0, 0.2, (2000, 4)) + np.array([0.0, 3.0, -2.0, 1.0])
    found = micro_bench.spread(scores)
    assert found.architectures == pytest.approx(0.5, rel=0.06)
    assert found.noise == pytest.approx(0.2, rel=0.06)
    assert found.reliability == pytest.approx(0.25 / 0.29, rel=0.05)
    nothing = micro_bench.spread(rng.normal(size=(2000, 4)))
    assert nothing.reliability < 0.05
    with pytest.raises(ValueError, match="at least two"):
        micro_bench.spread(scores[:, :1])


# --- the table that the package brings ---


def test_the_shipped_table_is_whole_and_its_costs_are_those_of_the_networks() -> None:
    bench = micro_bench.load()
    assert len(bench.seeds) >= 2
    for row, architecture in list(enumerate(bench.architectures))[::9]:
        genotype = micro_bench.genotype_of(*architecture)
        assert bench.scores("parameters")[row, 0] == genotype.cost()
        assert bench.scores("flops")[row, 0] == genotype.cost("flops")
    assert bench.one_shot().shape[1] == len(bench.architectures)
    assert bench.gradient_searches()
