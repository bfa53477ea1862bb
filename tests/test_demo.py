"""The main job, small and (slow) as it ships."""

import dataclasses
import json

import pytest
import tiny

from manas_lite.data import open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.photos.zoo import load
from manas_lite.training.demo import DemoSettings, run_demo

FILES = ["genotype.json", "weights.safetensors", "metrics.json", "manifest.json", "log.jsonl"]


def test_a_tiny_demo_leaves_everything(tmp_path, capsys):
    split = tiny.tiny_split(tmp_path / "pictures", ("light", "medium", "heavy"))
    settings = DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN)
    result = run_demo(split, settings, runs_dir=tmp_path)
    path = tmp_path / "demo"
    pictures = [
        "genotype.png",
        "search.png",
        *(f"comparison-{level}.png" for level in ("light", "medium", "heavy")),
    ]
    for name in FILES + pictures:
        assert (path / name).stat().st_size > 0, name
    assert Genotype.load(path / "genotype.json") == result.search.genotype == load(path).genotype
    metrics = json.loads((path / "metrics.json").read_text())
    assert set(metrics) == {"hand_made", "searched"}
    assert metrics["searched"]["levels"]["heavy"] == pytest.approx(result.results["searched"].means("heavy"))
    runs = [json.loads(line)["run"] for line in (path / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(runs)) == ["search", "hand_made", "searched"]
    text = capsys.readouterr().out
    for words in ("light", "medium", "heavy", "rainy input", "hand-made", "searched", "PSNR", "SSIM"):
        assert words in text
    other = {"compute": dataclasses.replace(tiny.COMPUTE, picture_gib=1.0), "checkpoint_every": 2}  # of the machine
    settings = DemoSettings(
        tiny.SPACE, dataclasses.replace(tiny.SEARCH, **other), dataclasses.replace(tiny.RETRAIN, **other)
    )
    again = run_demo(split, settings, runs_dir=tmp_path, progress=False)  # nothing is trained twice
    assert again.results["searched"].rows == result.results["searched"].rows


def test_in_parallel_the_results_are_the_same(tmp_path):
    split = tiny.tiny_split(tmp_path / "pictures")
    settings = DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN)
    rows = [
        run_demo(split, settings, runs_dir=tmp_path / str(p), progress=False, parallel=p).results["hand_made"].rows
        for p in (False, True)
    ]
    assert rows[0] == rows[1]


def test_another_space_in_the_same_directory_is_refused(tmp_path):
    split = tiny.tiny_split(tmp_path / "pictures")
    settings = DemoSettings(tiny.SPACE, tiny.SEARCH, tiny.RETRAIN)
    run_demo(split, settings, runs_dir=tmp_path, progress=False)
    other = dataclasses.replace(settings, retrain=dataclasses.replace(tiny.RETRAIN, rate=0.1))
    with pytest.raises(ValueError, match="rate"):
        run_demo(split, other, runs_dir=tmp_path, progress=False)


@pytest.mark.slow
def test_the_demo_removes_rain(tmp_path):
    """As `make demo` runs it: at least 2.0 dB at medium and heavy, nothing lost at light, both networks."""
    result = run_demo("photos", runs_dir=tmp_path, progress=False, parallel=True)
    for name, evaluation in result.results.items():
        for level, least in (("light", 0.0), ("medium", 2.0), ("heavy", 2.0)):
            means = evaluation.means(level)
            assert means["psnr_rgb"] - means["rainy_psnr_rgb"] >= least, (name, level, means)
    trained = {s.name for s in open_split("photos").train}
    assert not trained & {row["scene"] for row in result.results["searched"].rows}
