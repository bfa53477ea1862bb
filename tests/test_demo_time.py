"""The script that times the demo: parts that add up, the second process included."""

import json

import project
import pytest
import tiny

from manas_lite.training import demo

demo_time = project.script("demo_time")


def test_the_parts_are_all_that_is_computed(tmp_path, monkeypatch):
    """Stand-ins that compute a known while: what each takes is counted as its part, and the demo is as before."""

    def burn(seconds: float) -> None:
        end = demo_time.cpu_seconds() + seconds
        while demo_time.cpu_seconds() < end:
            pass

    def run_demo(**options):
        burn(0.05)
        demo.search()
        demo.retrain()
        demo.retrain()

    monkeypatch.setattr(demo, "search", lambda: burn(0.2))
    monkeypatch.setattr(demo, "retrain", lambda: burn(0.1))
    monkeypatch.setattr(demo, "run_demo", run_demo)
    before = {name: getattr(demo, name) for name in demo_time.PARTS}
    found = demo_time.measure()
    assert {name: getattr(demo, name) for name in demo_time.PARTS} == before
    assert found["parts"]["search"] >= 0.2
    assert found["parts"]["retraining"] >= 0.2
    assert found["parts"]["figures"] == found["parts"]["second process"] == 0
    assert sum(found["parts"].values()) == pytest.approx(found["cpu_seconds"], abs=0.3)  # each is rounded


def test_the_sentence_is_of_the_file():
    found = {"wall_seconds": 207.6, "cpu_seconds": 354, "cpu": "Intel", "cores": 2, "date": "2026-11-27"}
    assert demo_time.sentence(found) == "3:28 on 2 cores of Intel, 5.9 minutes of computing (2026-11-27)"


@pytest.mark.slow
def test_a_small_demo_is_timed(tmp_path):
    settings = demo.DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN)
    split = tiny.tiny_split(tmp_path / "pictures")
    found = demo_time.measure(data=split, settings=settings, runs_dir=tmp_path, progress=False, parallel=True)
    assert found["parts"]["search"] > 0
    assert found["parts"]["second process"] > 0
    assert json.loads(json.dumps(found)) == found
