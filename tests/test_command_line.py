"""python -m manas_lite: help, errors in one line, and every command on a tiny set."""

import json

import pytest
import tiny
import torch

from manas_lite.__main__ import main
from manas_lite.commands import find_genotype
from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet
from manas_lite.networks.space import SearchSpace
from manas_lite.photos import onnx_export
from manas_lite.photos.images import write_image
from manas_lite.photos.zoo import save_network

FAST = ["--set", "epochs=2", "--set", "steps=2", "--set", "patch=16", "--set", "batch=2", "--threads", "1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pairs: input/ and target/ with the same names."""
    folder = tmp_path_factory.mktemp("pairs")
    for i in range(10):
        for part in ("input", "target"):
            (folder / part).mkdir(exist_ok=True)
            clean = tiny.picture(i, 32)
            write_image(folder / part / f"{i}.png", clean if part == "target" else clean // 2 + 120)
    return folder


@pytest.mark.parametrize("command", ["", "search", "retrain", "evaluate", "derain", "export", "demo"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_the_whole_way(photos, tmp_path, capsys):
    runs = ["--runs-dir", str(tmp_path)]
    data = ["--data", str(photos)]
    assert main(["search", "--space", "smoke", *data, *runs, *FAST, "--set", "warmup=1"]) == 0
    found = Genotype.load(tmp_path / "search" / "genotype.json")
    assert found.id in capsys.readouterr().out
    assert main(["retrain", "--genotype", str(tmp_path / "search"), *data, *runs, *FAST]) == 0
    out = tmp_path / "rows.json"
    weights = ["--weights", str(tmp_path / "retrain")]
    assert main(["evaluate", *weights, *data, "--part", "all"]) == 0
    assert f"{photos}, all: 10 of 10 scenes, 10 picture(s)\n" in capsys.readouterr().out
    assert main(["evaluate", *weights, *data, "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "rainy input" in printed
    assert f"{photos}, test: 1 of 10 scenes, 1 picture(s); --part all scores every scene\n" in printed
    scores = json.loads(out.read_text())
    assert scores["means"]["psnr_rgb"] > 0
    assert scores["precision"] == "float32"
    target = tmp_path / "derained"
    assert main(["derain", str(photos / "input"), str(target), *weights]) == 0
    assert len(list(target.iterdir())) == 10
    assert main(["derain", str(photos / "input" / "0.png"), str(tmp_path / "one.png"), *weights]) == 0
    assert (tmp_path / "one.png").exists()


def test_a_folder_with_a_bad_file_does_the_rest_and_says_so(photos, tmp_path, capsys):
    main(
        [
            "retrain",
            "--genotype",
            "hand_made:smoke",
            "--data",
            str(photos),
            "--runs-dir",
            str(tmp_path),
            *FAST,
        ]
    )
    folder = tmp_path / "in"
    folder.mkdir()
    write_image(folder / "good.png", tiny.picture(0))
    (folder / "bad.png").write_bytes(b"no picture")
    assert main(["derain", str(folder), str(tmp_path / "out"), "--weights", str(tmp_path / "retrain")]) == 2
    assert "bad.png" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--data", "/nowhere/at/all"], "nowhere"),
        (["search", "--set", "epoch=5"], "epochs"),
        (["search", "--set", "epochs=five"], "epochs"),
        (["search", "--set", "nonsense"], "key=value"),
        (["search", "--device", "foo"], "unknown device"),
        (["search", "--device", "cuda:0"], "no CUDA GPU"),
        (["search", "--threads", "-1"], "threads"),
        (["retrain", "--genotype", "/nowhere.json"], "no genotype"),
        (["retrain", "--genotype", "best:smoke"], "hand_made"),
        (["retrain", "--genotype", "hand_made:huge"], "huge"),
        (["evaluate", "--weights", "/nowhere"], "make demo"),
        (["derain", "/nowhere.png", "/tmp/x.png", "--weights", "/nowhere"], "make demo"),
    ],
)
def test_user_errors_are_one_line(arguments, message, capsys, tmp_path):
    if arguments[0] in ("search", "retrain"):
        arguments = [*arguments, "--runs-dir", str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["search --space smoke", "retrain --genotype hand_made:smoke"])
def test_a_run_out_of_memory_is_one_line(command, photos, tmp_path, monkeypatch, capsys):
    forward = Backbone.forward

    def full(net, rainy):
        if rainy.device.type == "meta":  # the estimate of what was needed
            return forward(net, rainy)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(Backbone, "forward", full)
    run = [*command.split(), "--data", str(photos), "--runs-dir", str(tmp_path), *FAST, "--set", "warmup=1"]
    assert main(run) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: cpu ran out of memory. a ")


def test_a_picture_out_of_memory_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(Backbone, "forward", full)
    write_image(tmp_path / "rainy.png", tiny.picture(0))
    assert main(["derain", str(tmp_path / "rainy.png"), str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err == "error: CUDA out of memory. Tried to allocate 20.00 MiB.\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 20 GB")])
def test_a_picture_out_of_the_cpus_memory_is_one_line(error, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(Backbone, "forward", full)
    write_image(tmp_path / "rainy.png", tiny.picture(0))
    assert main(["derain", str(tmp_path / "rainy.png"), str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err == f"error: {str(error) or 'memory ran out'}\n"


def test_an_export_that_computes_something_else_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_export, "_translate", lambda net, facts: b"")
    monkeypatch.setattr(onnx_export, "_gap", lambda data, net: 1.0)
    save_network(tmp_path, DerainNet(tiny.GENOTYPE))
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "net.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: onnxruntime's output differs from the network's by 1")
    assert error.count("\n") == 1


def test_find_genotype(tmp_path):
    space = SearchSpace.preset("smoke")
    assert find_genotype("random-3:smoke") == Genotype.random(space, 3)
    assert find_genotype("all_fusion:smoke") == Genotype.all_fusion(space)
    file = tmp_path / "genotype.json"
    file.write_text(Genotype.random(space, 1).to_json())
    assert find_genotype(str(tmp_path)) == find_genotype(str(file)) == Genotype.random(space, 1)
