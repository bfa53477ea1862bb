"""A search finds what is known to be right, with the settings that it has by default (scripts/planted.py)."""

import importlib
import sys
from pathlib import Path

import pytest

from manas_lite import SearchSettings, open_split, search
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.networks import modules, ops

ONE_THREAD = ComputeSettings(device="cpu", threads=1)
SCRIPTS = str(Path(__file__).resolve().parents[1] / "scripts")


@pytest.fixture
def problems(monkeypatch):
    """The planted problems; their candidates are registered for one test."""
    before = [dict(registry) for registry in (ops.OPERATIONS, modules.MODULES)]
    monkeypatch.syspath_prepend(SCRIPTS)
    sys.modules.pop("planted", None)
    yield importlib.import_module("planted").PROBLEMS
    for registry, entries in zip((ops.OPERATIONS, modules.MODULES), before, strict=True):
        registry.clear()
        registry.update(entries)


def rightness(problem, seed: int, folder: Path, **changes) -> float:
    """The share of right places in what a search of a problem finds."""
    settings = SearchSettings.preset("smoke", seed=seed, compute=ONE_THREAD, **changes)
    found = search(problem.space("smoke"), open_split("photos"), settings, runs_dir=folder, progress=False)
    return problem.right(found.genotype)


def test_a_damaged_module_is_not_chosen_although_it_is_cheaper(problems, tmp_path):
    assert rightness(problems["damaged fusion"], 0, tmp_path) == 1


def test_with_a_silent_head_the_price_chooses_it(problems, tmp_path):
    """Why the presets start as they do: the same search from a head of zero takes the damaged module."""
    assert rightness(problems["damaged fusion"], 0, tmp_path, head_gain=0.0, mask_barred=False) == 0


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["damaged fusion", "damaged parallel", "costly twin"])
def test_the_right_modules_are_found_from_other_seeds(problems, problem, tmp_path):
    right = [rightness(problems[problem], seed, tmp_path / str(seed)) for seed in (1, 2, 3, 4)]
    assert sum(right) / len(right) >= 0.85


@pytest.mark.slow
def test_paths_find_the_intact_module_too(problems, tmp_path):
    assert rightness(problems["damaged fusion"], 0, tmp_path, strategy="paths", evaluations=40) == 1
