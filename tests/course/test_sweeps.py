"""Sweeps: the grid, shards, resuming, failures listed, means over seeds. Runs are stood in for by their facts."""

import csv
import re
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from manas_lite.runs.record import read_json, write_json
from manas_lite.runs.settings import parse, to_dict
from tools.course import contents, estimates, reports, runner, sources, sweep_reports, sweeps
from tools.course.__main__ import main
from tools.course.parameters import arm_of

SPEC = {
    "notebook": "00",
    "preset": "smoke",
    "arms": {"light": {"level": "light"}, "heavy": {"level": "heavy"}},
    "grid": {"scene": [0, 1, 2]},
    "seeds": ["scene"],
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were executed; scene 1 under heavy rain fails the first time."""
    names: list[str] = []

    def fake(notebook, *, preset, parameters, out, name, runs_dir, timeout, imports):
        fails = parameters.get("level") == "heavy" and parameters["scene"] == 1 and name not in names
        names.append(name)
        out.mkdir(exist_ok=True)
        metrics = {"psnr": {"derained": 20.0 + parameters.get("scene", 0)}, "arm": "full", "seconds": 99.0}
        ended = ("failed", "no luck") if fails else ("done", "")
        copy = out / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(), copy)
        outcome = runner.Outcome(notebook.stem, preset, dict(parameters), *ended, 1.0, 1, "CPU", copy)
        write_json(out / f"{name}.json", {**asdict(outcome), "metrics": {} if fails else metrics})

    monkeypatch.setattr(runner, "run", fake)
    return names


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_lists_failures_and_goes_on_where_it_was(ran: list[str], tmp_path: Path) -> None:
    sweep = parse(sweeps.Sweep, SPEC)
    said: list[str] = []
    facts = sweeps.run_all(sweep.runs(), tmp_path, say=said.append)
    assert [fact["status"] for fact in facts] == ["done"] * 4 + ["failed", "done"]
    assert "failed in 1 s: no luck" in said[4]
    results, summary = sweeps.collect(sweep, tmp_path)
    assert [row["status"] for row in rows(results)].count("failed") == 1
    by_arm = {row["arm"]: row for row in rows(summary)}
    assert float(by_arm["light"]["psnr.derained mean"]) == 21
    assert float(by_arm["light"]["psnr.derained sd"]) == 1
    assert (by_arm["heavy"]["runs"], by_arm["heavy"]["done"]) == ("3", "2")

    before = len(ran)
    sweeps.run_all(sweep.runs(), tmp_path, say=said.append)
    assert len(ran) == before + 1  # only the one that failed


def test_other_parameters_are_other_runs(ran: list[str], tmp_path: Path) -> None:
    first = parse(sweeps.Sweep, SPEC).runs()
    other = parse(sweeps.Sweep, {**SPEC, "parameters": {"steps": 5}}).runs()
    assert not {run.name for run in first} & {run.name for run in other}


def test_shards_are_disjoint_and_complete() -> None:
    runs = parse(sweeps.Sweep, SPEC).runs()
    parts = [sweeps.shard(runs, f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0"):
        with pytest.raises(ValueError, match="write i/n"):
            sweeps.shard(runs, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"x": {"levl": "light"}}}, "did you mean 'level'"),
        ({"grid": {"scene": ["first"]}}, "scene: expected int"),
        ({"seeds": ["seed"]}, "'seed' is no parameter"),
        ({"notebook": "77"}, "no notebook '77'"),
        ({"gird": {}}, "did you mean 'grid'"),
    ],
)
def test_a_wrong_sweep_is_refused_as_a_whole(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(sweeps.Sweep, {**SPEC, **change}).runs()


def test_a_metric_does_not_replace_the_sweeps_own_columns(ran: list[str], tmp_path: Path) -> None:
    """The example of the module's docstring; as notebook 06, the stand-in records a metric `arm`."""
    example = textwrap.dedent(re.search(r"^    notebook:.*?(?=^$)", sweeps.__doc__, re.DOTALL | re.MULTILINE)[0])
    sweep = parse(sweeps.Sweep, yaml.safe_load(example))
    assert {run.parameters["arm"] for run in sweep.runs()} == {"full", "no_tv"}
    sweeps.run_all(sweep.runs(), tmp_path)
    results, summary = map(rows, sweeps.collect(sweep, tmp_path))
    assert [row["arm"] for row in results] == 3 * ["full"] + 3 * ["no_tv"]
    assert [row["seconds"] for row in results] == 6 * ["1.0"]
    assert [(row["arm"], row["done"]) for row in summary] == [("full", "3"), ("no_tv", "3")]
    assert list(results[0])[:4] == ["run", "arm", "search_seed", "status"]


def test_an_arm_that_is_named_keeps_its_name() -> None:
    spec = {"notebook": "06", "arms": {"full": {}, "mine": {"arm": "other"}, "no_tv": {"tv": 0.0}}}
    assert [run.parameters["arm"] for run in parse(sweeps.Sweep, spec).runs()] == ["full", "other", "no_tv"]


def test_names_of_runs_are_fit_for_files(ran: list[str], tmp_path: Path) -> None:
    data = ["/a/b", "/a_b", "https://x.y/z.zip?raw=1", "c" * 300]
    sweep = parse(sweeps.Sweep, {"notebook": "03", "arms": {"w/o order": {}}, "grid": {"data": data}})
    facts = sweeps.run_all(sweep.runs(), tmp_path)
    assert len(set(ran)) == len(data)
    assert all((tmp_path / f"{name}.json").is_file() for name in ran)
    assert [fact["parameters"]["data"] for fact in facts] == data
    assert max(map(len, ran)) < 100


@pytest.mark.parametrize(("number", "parameter"), [("03", "name"), ("04", "retrain_name")])
def test_runs_of_one_sweep_get_directories_of_their_own(number: str, parameter: str) -> None:
    grid = {"seed": [0, 1]}
    runs = parse(sweeps.Sweep, {"notebook": number, "grid": grid}).runs()
    assert [run.parameters[parameter] for run in runs] == [run.name for run in runs]
    runs = parse(sweeps.Sweep, {"notebook": number, "grid": {parameter: ["a", "b"]}}).runs()
    assert [run.parameters[parameter] for run in runs] == ["a", "b"]


@pytest.mark.slow
def test_a_sweep_of_a_search_over_seeds(tmp_path: Path) -> None:
    sweep = parse(sweeps.Sweep, {"notebook": "03", "preset": "smoke", "grid": {"seed": [0, 1]}, "seeds": ["seed"]})
    facts = sweeps.run_all(sweep.runs(), tmp_path)
    assert [(fact["status"], fact["reason"]) for fact in facts] == 2 * [("done", "")]
    assert len(list((tmp_path / "runs").glob("*/genotype.json"))) == 2


def test_only_a_bare_name_is_looked_for_among_the_notebooks(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = contents.folder() / "sweeps" / "arms.yaml"
    assert sweeps.find("arms.yaml") == shipped
    for missing in ("mine/arms.yaml", tmp_path / "arms.yaml"):
        with pytest.raises(FileNotFoundError, match="no sweep file"):
            sweeps.read(missing)
    Path("arms.yaml").write_text("notebook: [")
    assert sweeps.find("arms.yaml") == Path("arms.yaml")
    assert main(["sweep", "arms.yaml"]) == 2
    told = capsys.readouterr()
    assert "sweep file: arms.yaml" in told.out
    assert re.fullmatch(r"error: arms\.yaml is no YAML: .*line 1.*\n", told.err)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return str(path)


def test_a_dry_run_is_of_the_shard(file: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(estimates, "time_step", lambda *_, **__: estimates.StepTime(0.5, 0.25))
    options = ["sweep", file, "--out", str(tmp_path / "out"), "--dry-run", "--shard"]
    assert main([*options, "1/4"]) == 0
    assert "2 runs of notebook 00" in capsys.readouterr().out
    assert main([*options, "9/4"]) == 2


def test_pages_are_made_of_what_ended_since(ran: list[str], file: str, tmp_path: Path, monkeypatch) -> None:
    rendered: list[str] = []

    def render(copy: Path) -> None:
        rendered.append(copy.stem)
        copy.with_suffix(".html").write_text(str(read_json(copy.with_suffix(".json"))["status"]))

    monkeypatch.setattr(reports, "render", render)
    out = tmp_path / "out"
    runs = parse(sweeps.Sweep, SPEC).runs()
    out.mkdir()
    (out / f"{runs[1].name}.ipynb").write_text("another shard's, half done")
    assert main(["sweep", file, "--out", str(out), "--shard", "1/2"]) == 1
    assert rendered == [run.name for run in runs[::2]]
    rendered.clear()
    assert main(["sweep", file, "--out", str(out), "--shard", "1/2"]) == 0
    assert rendered == [runs[4].name]  # the one that failed
    assert (out / f"{runs[4].name}.html").read_text() == "done"


def test_what_is_said_of_a_stop_and_of_a_missing_extra(file: str, tmp_path: Path, monkeypatch, capsys) -> None:
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", stopped)
    assert main(["run", "00", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert main(["sweep", file, "--out", str(tmp_path)]) == 130
    assert "goes on where it was" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["sweep", file, "--out", str(tmp_path), "--dask", "local:1"]) == 2
    assert "pip install 'manas_lite[dask]'" in capsys.readouterr().err


# --- the report ---

STUDY = {
    "notebook": "06",
    "preset": "smoke",
    "arms": {"full": {}, "no_tv": {"tv": 0.0}, "no_internal": {"internal_weight": 0.0}},
    "grid": {"search_seed": [0, 1, 2, 3]},
    "seeds": ["search_seed"],
}
WORTH = {"full": 0.0, "no_tv": -3.0, "no_internal": 0.0}  # dB


def finish(study: sweeps.Sweep, runs: tuple[sweeps.Run, ...], out: Path, first: int = 0) -> None:
    """Write what runs leave: their facts, and the results of their arms, in folders numbered from `first`."""
    notebook = contents.find(study.notebook)
    built = sources.build(notebook, "solution")
    defaults = {parameter.name: parameter.default for parameter in runner.parameters_of(built)}
    for number, run in enumerate(runs, start=first):
        arm = arm_of({**defaults, **runner.settle(notebook, built, study.preset, run.parameters, Path("."))})
        chance = np.random.default_rng([arm.search_seed, list(WORTH).index(run.arm)])
        images = {f"picture-{k}": 24.0 + WORTH[run.arm] + chance.normal(0, 0.1) for k in range(8)}
        result = {"arm": arm.arm, "search_seed": arm.search_seed, "retrain_seed": arm.retrain_seed, "part": "val"}
        result |= {"genotype": "g", "parameters": 1000, "seconds": 1.0, "settings": to_dict(arm)}
        folder = out / "runs" / "ablation" / f"{run.arm}-{number}"
        folder.mkdir(parents=True)
        write_json(folder / "result-val.json", result | dict.fromkeys(("images", "images_y", "rainy"), images))
        facts = {"status": "done", "reason": "", "seconds": 1.0, "metrics": {"psnr_rgb": 24.0}}
        write_json(out / f"{run.name}.json", facts)


def test_a_report_is_made_of_the_sweeps_own_runs_also_from_shards(tmp_path: Path, capsys) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    study = sweeps.read(file)
    runs = study.runs()
    places = [tmp_path / "one", tmp_path / "two"]
    for part, place in enumerate(places, start=1):
        finish(study, sweeps.shard(runs, f"{part}/2"), place)
    stranger = next((places[0] / "runs" / "ablation").glob("no_tv-*/result-val.json"))
    foreign = read_json(stranger)
    foreign["settings"] = {**foreign["settings"], "search_seed": 99}
    (places[0] / "runs" / "ablation" / "stranger").mkdir()
    write_json(places[0] / "runs" / "ablation" / "stranger" / "result-val.json", foreign | {"search_seed": 99})
    assert main(["sweep", str(file), "--out", str(places[0]), "--report", str(places[1])]) == 0
    folder = places[0] / "report"
    assert str(folder / "forest.pdf") in capsys.readouterr().out
    assert (folder / "forest.png").is_file()
    table = {row["arm"]: row for row in rows(folder / "table.csv")}
    assert {arm: row["searches"] for arm, row in table.items()} == {"no_tv": "4", "no_internal": "4"}
    assert float(table["no_tv"]["mean"]) == pytest.approx(-3, abs=0.2)
    assert table["no_tv"]["verdict"] == "worse"
    line = (folder / "protocol.txt").read_text()
    assert line.startswith("12 runs of this sweep: 2 arms, each paired with full over 4 searches and 8 pictures")
    assert "no\\_tv" in (folder / "table.tex").read_text()
    assert "| no_tv | 4 | -" in (folder / "table.md").read_text()
    summary = {row["arm"]: row for row in rows(places[0] / "summary.csv")}
    assert summary["no_tv"]["difference mean"] == table["no_tv"]["mean"]
    assert summary["no_tv"]["difference verdict"] == "worse"
    assert summary["full"]["difference verdict"] == ""
    assert not [column for row in rows(places[0] / "results.csv") for column in row if "verdict" in column]


def test_a_report_of_nothing_says_what_it_needs(tmp_path: Path, capsys) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    assert main(["sweep", str(file), "--out", str(tmp_path / "empty"), "--report"]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_a_half_done_sweep_reports_what_is_missing(tmp_path: Path) -> None:
    study = parse(sweeps.Sweep, STUDY)
    finish(study, study.runs()[:7], tmp_path)  # full: 4 searches, no_tv: 3
    found = sweep_reports.compared(study, [tmp_path])
    assert found is not None
    assert [row["arm"] for row in found.rows] == ["no_tv"]
    assert "5 runs of the sweep missing" in found.protocol()
