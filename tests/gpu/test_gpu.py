"""What only a GPU shows: half precision, memory formats, captured steps, no waiting, exhausted memory.

`make gpu` runs this file where a CUDA device is. Elsewhere the same tests run on the CPU, so that they have run before
the day when there is one; the two that a CPU cannot do at all are skipped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from manas_lite.compute.footprint import OutOfMemoryError
from manas_lite.compute.runtime import Compute, ComputeSettings
from manas_lite.data import SceneBatch, Split
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.photos.inference import derain
from manas_lite.training import searching
from manas_lite.training.retraining import RetrainResult, _Retraining, retrain
from manas_lite.training.searching import SearchResult, search

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
COMPUTE = ComputeSettings(device=DEVICE, threads=1)
GPU_ALONE = pytest.mark.skipif(not CUDA, reason="no CUDA device is here, and a CPU has nothing like it")
PRECISIONS = ["auto", "fp32", "bf16", "fp16"]


@pytest.fixture
def split(tmp_path) -> Split:
    return tiny.tiny_split(tmp_path / "pictures")


def searched(split: Split, folder, name: str = "search", **compute) -> SearchResult:
    settings = replace(tiny.SEARCH, compute=replace(COMPUTE, **compute))
    return search(tiny.SPACE, split, settings, runs_dir=folder, name=name, progress=False)


def retrained(split: Split, folder, name: str = "retrain", **compute) -> RetrainResult:
    settings = replace(tiny.RETRAIN, compute=replace(COMPUTE, **compute))
    return retrain(tiny.GENOTYPE, split, settings, runs_dir=folder, name=name, progress=False)


def losses(log: list[dict]) -> list[float]:
    return [record["train"] for record in log if record["kind"] == "step"]


def lively(net: DerainNet) -> DerainNet:
    """A network that changes its input: the head of an untrained residual one is zero."""
    nn.init.normal_(net.head.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return net.eval()


# --- precision ---


@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_trainings_end_in_every_precision(split, tmp_path, precision):
    """Weights stay in float32; the losses are those of float32 to what half precision can hold."""
    for run in (searched, retrained):
        exact = losses(run(split, tmp_path, f"{run.__name__}-fp32", precision="fp32").log)
        result = run(split, tmp_path, f"{run.__name__}-{precision}", precision=precision)
        assert losses(result.log) == pytest.approx(exact, rel=0.05)
        net = result.supernet if isinstance(result, SearchResult) else result.net
        assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_autocast_takes_half_precision_where_it_is_asked_for():
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        compute = Compute(replace(COMPUTE, precision=precision))
        net = compute.prepare(DerainNet(tiny.GENOTYPE))
        seen = []
        net.fusion.register_forward_hook(lambda *call, seen=seen: seen.append(call[2][0].dtype))
        with compute.autocast():
            net(compute.images(torch.rand(1, 2, 3, 16, 16, device=compute.device)))
        assert seen == [dtype]


def test_the_scaler_skips_a_step_that_overflowed_and_is_saved():
    compute = Compute(replace(COMPUTE, precision="fp16"))
    weight = torch.ones(3, device=compute.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight], 0.1, fused=compute.fused)
    scales = []
    for gradient in (1.0, float("inf"), 1.0):
        weight.grad = None
        compute.scaler.scale((weight * gradient).sum()).backward()
        before = weight.detach().clone()
        compute.scaler.step(optimizer)
        compute.scaler.update()
        assert torch.equal(weight, before) == (gradient == float("inf"))
        scales.append(compute.scaler.get_scale())
    assert scales[1] == scales[0] / 2
    again = Compute(replace(COMPUTE, precision="fp16")).scaler
    again.load_state_dict(compute.scaler.state_dict())
    assert again.get_scale() == scales[2]


def test_pictures_are_those_of_the_cpu():
    """Also on cards that round float32 to TF32 in training."""
    net, picture = lively(DerainNet(tiny.GENOTYPE)), tiny.picture(0, 64) / 255.0
    there, here = (derain(picture, net, compute=replace(COMPUTE, device=device)) for device in (DEVICE, "cpu"))
    assert abs(there - here).max() < 1e-5
    assert abs(here - picture).max() > 0.01


# --- memory format and kernels ---


def test_networks_and_batches_are_channels_last(split, tmp_path):
    run = retraining(split, tmp_path)
    run._step(0, 0, batch(run))
    seen = []
    for module in run.net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda layer, x: seen.append(x[0]))
    run._step(1, 0, batch(run))
    assert seen
    for tensor in [*seen, *(p for p in run.net.parameters() if p.dim() == 4)]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_compiled_networks_compute_the_same(split, tmp_path, monkeypatch):
    monkeypatch.setattr("manas_lite.compute.runtime.WORTH_COMPILING", 1)
    torch.compiler.reset()
    if not CUDA:  # the same graph, without minutes of compiling
        original = torch.compile
        monkeypatch.setattr(torch, "compile", lambda net, **how: original(net, backend="aot_eager", **how))
    for run in (searched, retrained):
        plain = losses(run(split, tmp_path, f"{run.__name__}-plain", precision="fp32").log)
        fast = losses(run(split, tmp_path, f"{run.__name__}-fast", precision="fp32", compile=True).log)
        assert fast == pytest.approx(plain, rel=1e-2)


# --- steps ---


def retraining(split: Split, folder, **compute) -> _Retraining:
    settings = replace(tiny.RETRAIN, compute=replace(COMPUTE, **compute))
    return _Retraining(tiny.GENOTYPE, split, settings, None, folder / "run", False)


def batch(run, scenes: int = 2, patch: int = 16) -> SceneBatch:
    shape = (scenes, 2, 3, patch, patch)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return SceneBatch(values, values[:, 0] * 0.9, torch.arange(scenes)).to(run.compute.device)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Make it an error that the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@GPU_ALONE
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_step_waits(split, tmp_path, precision):
    """tests/test_host_syncs.py counts the same where no GPU is."""
    retrain_run = retraining(split, tmp_path, precision=precision)
    settings = replace(tiny.SEARCH, compute=replace(COMPUTE, precision=precision))
    search_run = searching._Search(tiny.SPACE, split, settings, tmp_path / "search", False)
    for run in (retrain_run, search_run):
        one = batch(run)
        more = (iter([one] * 3),) if run is search_run else ()
        run._step(0, 0, one, *more)
        with no_waiting():
            run._step(1, 2, one, *more)


@GPU_ALONE
def test_a_pass_is_captured_as_one_graph():
    """Replayed, it gives the gradients of the pass that it was captured from, for other pictures too."""
    compute = Compute(replace(COMPUTE, precision="fp32"))
    net = compute.prepare(SuperNet(tiny.SPACE).train())
    weights = net.weight_parameters()
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(4, 3, 16, 16, generator=generator).to(compute.device) for _ in range(2))
    held = first.clone()

    def gradients(x: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(net(x).square().mean(), weights, allow_unused=True)
        return [g for g in found if g is not None]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradients(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients(held)
    for x in (first, second):
        held.copy_(x)
        graph.replay()
        for replayed, eager in zip(captured, gradients(x), strict=True):
            torch.testing.assert_close(replayed, eager, rtol=1e-3, atol=1e-5)


# --- runs ---


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_was_cut_goes_on(split, tmp_path, precision, monkeypatch):
    """To the bit on a CPU; on a GPU sums come in any order."""
    whole = retrained(split, tmp_path, "whole", precision=precision)
    step, calls = _Retraining._step, []

    def cut(self, *arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(_Retraining, "_step", cut)
    with pytest.raises(KeyboardInterrupt, match="goes on from step 4"):
        retrained(split, tmp_path, "cut", precision=precision)
    monkeypatch.undo()
    again = retrained(split, tmp_path, "cut", precision=precision)
    bounds = {"rel": 1e-2} if CUDA else {"rel": 0, "abs": 0}
    assert losses(again.log) == pytest.approx(losses(whole.log), **bounds)


def test_two_loading_processes_change_nothing(split, tmp_path):
    alone, two = (losses(retrained(split, tmp_path, f"{n}", workers=n, precision="fp32").log) for n in (0, 2))
    assert two == pytest.approx(alone, rel=1e-3)


def test_exhausted_memory_is_explained(split, tmp_path, monkeypatch):
    """A card that may give a quarter of a gibibyte; on a CPU the allocation that fails is made up."""
    settings = replace(tiny.SEARCH, batch=2048 if CUDA else 4, compute=COMPUTE)
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(2**28 / torch.cuda.get_device_properties(0).total_memory)
    else:

        def full(self, *arguments):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr(searching._Search, "_step", full)
    try:
        with pytest.raises(OutOfMemoryError, match=r"ran out of memory.*(accumulate=|batch=|recompute=)") as caught:
            search(tiny.SPACE, split, settings, runs_dir=tmp_path, name="search", progress=False)
    finally:
        if CUDA:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert "\n" not in str(caught.value)
