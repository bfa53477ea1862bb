"""What `make gpu` keeps: one file per part, and none is measured twice; its parts run on the CPU too, at tiny sizes."""

import json

import pytest

from benchmarks import gpu


def test_parts_are_kept_and_not_done_again(tmp_path, capsys):
    done: list[str] = []
    parts = {name: lambda left, name=name: done.append(name) or {"left": left} for name in ("one", "two")}
    assert gpu.run_parts(parts, tmp_path, minutes=1, commit="abc") == []
    entry = json.loads((tmp_path / "one.json").read_text())
    assert set(entry) == {"device", "commit", "date", "found", "seconds"}
    assert 0 < entry["found"]["left"] <= 60
    (tmp_path / "two.json").unlink()  # as where the first call was stopped before it
    assert gpu.run_parts(parts, tmp_path, minutes=1, commit="abc") == []
    assert done == ["one", "two", "two"]
    assert "one: done on 2" in capsys.readouterr().out
    for change in ({"commit": "other"}, {"commit": "other", "again": True}):
        gpu.run_parts(parts, tmp_path, minutes=1, **change)
    assert done == ["one", "two", "two", "one", "two", "one", "two"]


def test_another_device_measures_anew(tmp_path, monkeypatch):
    done: list[str] = []
    parts = {"one": lambda left: done.append(gpu.device_name())}
    for name in ("card A", "card B", "card B"):
        monkeypatch.setattr(gpu, "device_name", lambda name=name: name)
        gpu.run_parts(parts, tmp_path, minutes=1)
    assert done == ["card A", "card B"]


def test_a_part_that_fails_leaves_the_others_their_time_and_is_tried_again(tmp_path):
    works = [False]

    def broken(left: float) -> str:
        if not works[0]:
            raise RuntimeError("CUDA error: no kernel image")
        return "found"

    parts = {"one": broken, "two": lambda left: "found"}
    assert gpu.run_parts(parts, tmp_path, minutes=1) == ["one"]
    assert json.loads((tmp_path / "one.json").read_text())["error"] == "RuntimeError: CUDA error: no kernel image"
    assert json.loads((tmp_path / "two.json").read_text())["found"] == "found"
    works[0] = True
    assert gpu.run_parts(parts, tmp_path, minutes=1) == []
    assert "error" not in json.loads((tmp_path / "one.json").read_text())


def test_no_part_begins_when_the_minutes_are_over(tmp_path):
    assert gpu.run_parts({"one": lambda left: 1}, tmp_path, minutes=0) == ["one"]
    assert list(tmp_path.iterdir()) == []


def test_targets_are_judged_on_the_papers_size(tmp_path):
    def row(space: str, who: str, faster: float, peak: int) -> dict:
        return {"space": space, "who": who, "faster": {"median": faster}, "peak_bytes": peak}

    rows = [row("lite", "kit, auto", 9, 1), row("paper", "textbook", 1, 100), row("paper", "kit, auto", 3.5, 40)]
    for kind in ("search", "retrain"):
        (tmp_path / f"{kind}.json").write_text(json.dumps({"found": rows}))
    assert gpu.verdicts(tmp_path) == [
        "search: 3.50x (target 4x, missed), 0.40 of the textbook's memory",
        "retrain: 3.50x (target 3x, reached), 0.40 of the textbook's memory",
    ]


def test_what_became_of_each_test_is_kept(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): raise RuntimeError('no kernel image')\n"
        "@pytest.mark.skip(reason='no device')\n"
        "def test_left_out(): pass\n"
    )
    found = gpu.outcomes(600, str(tmp_path))
    assert (found["ok"], found["passed"]) == (False, ["test_good"])
    assert found["failed"] == ["test_bad: RuntimeError: no kernel image"]
    assert found["skipped"] == ["test_left_out: no device"]


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in gpu.PARTS if part != "tests"])
def test_every_part_runs_without_a_gpu(part, tmp_path):
    if gpu.CUDA:
        pytest.skip("`make gpu` itself runs them here")
    assert gpu.run_parts({part: gpu.PARTS[part]}, tmp_path, minutes=10) == []
    assert json.loads((tmp_path / f"{part}.json").read_text())["found"]
