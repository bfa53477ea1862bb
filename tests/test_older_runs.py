"""Runs outlive versions: a run directory of commit 60807e1, cut after half its steps, is continued to its end.

The fixture holds the cut runs as that version left them, and the logs and results of the same runs when it did not cut
them. Other machines round differently, so numbers are compared to a relative 1e-3 and decisions exactly.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from manas_lite import Genotype, RetrainSettings, SearchSettings, SearchSpace, load, retrain, search
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.runs.record import FORMAT, read_log

OLD = Path(__file__).parent / "fixtures" / "run-60807e1"
CPU = ComputeSettings(device="cpu", threads=1)
SIZE = {"epochs": 4, "steps": 3, "batch": 1, "patch": 16, "compute": CPU}


@pytest.fixture
def runs(tmp_path):
    shutil.copytree(OLD / "cut", tmp_path, dirs_exist_ok=True)
    return tmp_path


def continued_search(runs, **changes):
    published = {"mask_barred": False, "head_gain": 0.0}  # the preset has other values since
    settings = SearchSettings.preset("smoke", **{**SIZE, **published, **changes})
    return search("smoke", "photos", settings, runs_dir=runs, progress=False)


def continued_retraining(runs, **changes):
    settings = RetrainSettings.preset("smoke", ema=0.9, **{**SIZE, **changes})
    genotype = Genotype.hand_made(SearchSpace.preset("smoke"))
    return retrain(genotype, "photos", settings, runs_dir=runs, progress=False)


def assert_same_log(found, whole, cut):
    assert len(found) == len(whole)
    assert all(set(theirs) <= set(mine) for mine, theirs in zip(found, whole, strict=True))  # later versions log more
    assert found[: len(cut)] == cut  # what was logged before the cut is still there, to the last digit
    for mine, theirs in zip(found, whole, strict=True):
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, rel=1e-3, abs=1e-6), (mine["step"], name)


def test_a_search_of_an_older_version_is_continued(runs):
    cut = read_log(runs / "search")
    result = continued_search(runs)
    assert_same_log(result.log, read_log(OLD / "whole" / "search"), cut)
    assert result.genotype == Genotype.load(OLD / "whole" / "search" / "genotype.json")


def test_a_retraining_of_an_older_version_is_continued(runs):
    cut = read_log(runs / "retrain")
    result = continued_retraining(runs)
    assert_same_log(result.log, read_log(OLD / "whole" / "retrain"), cut)
    whole = load(OLD / "whole" / "retrain").state_dict()
    for name, value in result.net.state_dict().items():
        assert (value - whole[name]).abs().max() < 1e-4, name


def test_only_what_differs_in_effect_is_refused(runs):
    with pytest.raises(ValueError, match=r"settings\.clip 0\.5 here, 1\.0 there"):
        continued_search(runs, clip=0.5)
    manifest = runs / "search" / "manifest.json"
    document = json.loads(manifest.read_text())
    assert document["settings"].pop("clip") == 1.0  # as if `clip` had come later: its default was in effect, 5.0
    manifest.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"settings\.clip 1\.0 here, 5\.0 there"):
        continued_search(runs)
    continued_search(runs, clip=SearchSettings().clip)


def test_a_new_loss_term_locks_no_older_run(runs, monkeypatch):
    from manas_lite import losses

    monkeypatch.setitem(losses.TERMS, "edges", losses.Term("image", lambda outputs, clean: outputs.mean()))
    off = RetrainSettings.preset("smoke").loss
    continued_retraining(runs, loss=replace(off, terms={}))
    with pytest.raises(ValueError, match=r"settings\.loss\.terms"):
        continued_retraining(runs, loss=replace(off, terms={"edges": 0.1}))


def test_a_run_of_a_later_version_is_refused_by_saying_so(runs):
    manifest = runs / "search" / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "format": FORMAT + 1}))
    with pytest.raises(ValueError, match="a later manas_lite wrote it"):
        continued_search(runs)
