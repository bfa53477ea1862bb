"""Sweeps: the grid, shards, resuming, failures listed, means over seeds. Runs are stood in for by their facts."""

import csv
from pathlib import Path

import pytest

from manas_lite.course import runner, sweeps
from manas_lite.record import write_json
from manas_lite.settings import parse

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

    def fake(notebook, *, preset, parameters, out, name, runs_dir, timeout):
        fails = parameters["level"] == "heavy" and parameters["scene"] == 1 and name not in names
        names.append(name)
        out.mkdir(exist_ok=True)
        metrics = {} if fails else {"psnr": {"derained": 20.0 + parameters["scene"]}}
        facts = {"status": "failed" if fails else "done", "reason": "no luck" if fails else "", "seconds": 1.0}
        write_json(out / f"{name}.json", {**facts, "metrics": metrics})

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
