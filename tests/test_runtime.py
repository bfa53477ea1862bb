"""Where and in what a run computes: training may take half precision by itself, pictures and scores only by name."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from manas_lite.compute import runtime
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.networks.nets import DerainNet
from manas_lite.photos.inference import derain
from manas_lite.training.evaluation import evaluate, validation_psnr


@pytest.fixture
def like_a_gpu(monkeypatch):
    """This CPU trains in bf16 when it may choose, as a GPU does."""
    original = runtime._dtype
    monkeypatch.setattr(runtime, "_dtype", lambda name, *more: original("bf16" if name == "auto" else name, *more))


@pytest.fixture
def net() -> DerainNet:
    net = DerainNet(tiny.GENOTYPE).eval()
    torch.nn.init.normal_(net.head.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return net


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
@pytest.mark.parametrize(
    ("precision", "capability", "training", "pictures"),
    [
        ("auto", (9, 0), torch.bfloat16, torch.float32),
        ("auto", (7, 5), torch.float16, torch.float32),
        ("fp32", (9, 0), torch.float32, torch.float32),
        ("bf16", (9, 0), torch.bfloat16, torch.bfloat16),
        ("fp16", (7, 5), torch.float16, torch.float16),
    ],
)
def test_what_a_gpu_computes_in(monkeypatch, precision, capability, training, pictures):
    monkeypatch.setattr(runtime, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    compute = Compute(ComputeSettings(precision=precision, threads=1))
    assert (compute.dtype, compute.picture_dtype) == (training, pictures)


@pytest.mark.usefixtures("like_a_gpu")
def test_pictures_and_scores_are_not_in_half_precision_unless_asked_for(net, tmp_path):
    scenes, picture = tiny.tiny_split(tmp_path).test, tiny.picture(0)
    settings = {name: dataclasses.replace(tiny.COMPUTE, precision=name) for name in ("auto", "fp32", "bf16")}
    derained = {name: derain(picture, net, compute=each) for name, each in settings.items()}
    scores = {name: evaluate(net, scenes, compute=each) for name, each in settings.items()}
    chosen = {name: validation_psnr(net, scenes, Compute(each)) for name, each in settings.items()}
    assert Compute(settings["auto"]).dtype == torch.bfloat16
    assert np.array_equal(derained["auto"], derained["fp32"])
    assert not np.array_equal(derained["auto"], derained["bf16"])
    for found in (chosen, {name: result.means()["psnr_rgb"] for name, result in scores.items()}):
        assert found["auto"] == found["fp32"] != found["bf16"]
    assert {result.device for result in scores.values()} == {"cpu"}
    assert [result.precision for result in scores.values()] == ["float32", "float32", "bfloat16"]


@pytest.mark.usefixtures("like_a_gpu")
def test_the_manifest_names_both_precisions():
    facts = Compute(tiny.COMPUTE).facts()
    assert (facts["precision"], facts["picture_precision"]) == ("bfloat16", "float32")


@pytest.mark.parametrize("name", ["xpu", "meta", "vulkan", "hpu", "gpu", "cuda:x"])
def test_devices_that_this_kit_does_not_know_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown device '{name}': use auto"):
        runtime.pick_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.pick_device("cuda:1") == torch.device("cuda:1")
    assert runtime.pick_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"'cuda:2' was asked for, but torch sees 2 CUDA GPU"):
        runtime.pick_device("cuda:2")
