"""One trial of each class of scripts/torture.py: the script holds together, and so does what it tries."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trials use what only Linux has")
ROOT = Path(__file__).resolve().parents[1]
QUICK = ("kill retrain", "kill derain", "kill download", "kill cache", "at once", "descriptors", "archives", "servers")
SLOW = ("kill search", "kill demo", "kill sweep", "kill dask", "kill grade", "documents", "pictures", "kill replace")
ROOTS = ("full disk", "read-only")


def tried(folder: Path, classes: tuple[str, ...], trials: int) -> dict[str, list[dict[str, str]]]:
    """Run the script, and return the rows of its table by class."""
    table = folder / "trials.csv"
    only = [word for name in classes for word in ("--only", name)]
    command = [sys.executable, str(ROOT / "scripts" / "torture.py"), *only, "--trials", str(trials)]
    subprocess.run([*command, "--results", str(table)], capture_output=True, timeout=900)
    with open(table, newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    return {name: [row for row in rows if row["class"] == name] for name in classes}


def check(found: dict[str, list[dict[str, str]]], trials: int) -> None:
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(found, trials)
    assert [row for rows in found.values() for row in rows if row["ok"] != "yes"] == []


def test_a_trial_of_each_quick_class(tmp_path):
    check(tried(tmp_path, QUICK, 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_trials_of_the_other_classes(tmp_path, name):
    check(tried(tmp_path, (name,), 2), 2)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("name", ROOTS)
def test_trials_with_a_disk_of_their_own(tmp_path, name):
    check(tried(tmp_path, (name,), 5), 5)


def test_a_class_that_fails_is_told(tmp_path, monkeypatch):
    """What is left beside the results of a killed job is a fault: the temporary files that nobody clears, say."""
    (tmp_path / "sitecustomize.py").write_text(
        "import manas_lite.runs.checkpoint as c\nc.clear_leftovers = lambda folder: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    (row,) = tried(tmp_path, ("kill cache",), 1)["kill cache"]
    assert row["ok"] == "no"
    assert row["reason"].startswith("left over")
