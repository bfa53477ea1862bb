"""Memory estimates: counted against real passes; advice that fits; failed allocations explained."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from manas_lite.bilevel import functional_loss, hypergradient
from manas_lite.compute import footprint as memory
from manas_lite.compute.allocations import AllocationPeak
from manas_lite.compute.footprint import (
    OutOfMemoryError,
    StepFootprint,
    bytes_per_pixel,
    explain_out_of_memory,
    free_bytes,
    shortage,
)
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.space import SearchSpace

CPU = torch.device("cpu")
SPACE = SearchSpace((8, 12), 1)


def test_the_peak_counts_what_lives_at_once():
    with AllocationPeak() as count:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b.view(10, 100).t()  # a view owns nothing
        assert count.live == 4000
        del b, c
        d = torch.zeros(500)
    assert count.live == 2000
    assert count.peak == 8000
    del d


def real_search_step(batch: int, patch: int, checkpoint: str = "none") -> int:
    with AllocationPeak() as count:
        net = SuperNet(SPACE)
        net.set_recompute(checkpoint)
        for tensor in (*net.parameters(), *net.buffers()):
            count.track(tensor)
        weights, arch = net.weight_parameters(), net.arch_parameters()
        momenta = [torch.zeros_like(w) for w in weights]
        rainy = torch.rand(3 * batch, 3, patch, patch)
        pure = functional_loss(net, lambda n: (n(rainy) ** 2).mean(), weights, arch)
        hypergradient("first", None, pure, weights, arch)
        torch.autograd.grad((net(rainy) ** 2).mean(), weights)
    del momenta
    return count.peak


@pytest.mark.parametrize("checkpoint", ["none", "edges", "all"])
def test_a_search_step_needs_what_was_estimated(checkpoint):
    real = real_search_step(2, 32, checkpoint)
    assert StepFootprint(SPACE, 2, 32, recompute=checkpoint).bytes == pytest.approx(real, rel=0.05)


def test_what_saves_memory_saves_it_in_the_estimate():
    full = StepFootprint(SPACE, 4, 32)
    assert StepFootprint(SPACE, 8, 32).bytes > 1.8 * full.bytes
    assert replace(full, accumulate=4).bytes < 0.4 * full.bytes
    assert replace(full, recompute="all").bytes < replace(full, recompute="edges").bytes < 0.85 * full.bytes
    assert replace(full, precision="bf16").bytes < 0.75 * full.bytes
    assert replace(full, order="exact").bytes > 1.5 * full.bytes
    assert replace(full, genotype=Genotype.hand_made(SPACE)).bytes < full.bytes
    assert replace(full, optimizer="adam", ema=True).bytes > full.bytes


def test_a_picture_needs_what_was_estimated():
    genotype = Genotype.hand_made(SPACE)
    net = DerainNet(genotype).eval()
    with torch.inference_mode(), AllocationPeak() as count:
        net(torch.rand(1, 3, 160, 120))
    assert bytes_per_pixel(genotype) * 160 * 120 == pytest.approx(count.peak, rel=0.02)


def test_advice_fits():
    step = StepFootprint(SPACE, 8, 32)
    limit = int(0.6 * step.bytes)
    advice = step.advice(limit)
    assert len(advice) == 3
    parts, batch = (int(re.search(rf"{name}=(\d+)", " ".join(advice))[1]) for name in ("accumulate", "batch"))
    for settings in ({"accumulate": parts}, {"batch": batch}):
        assert replace(step, **settings).bytes <= limit * 1.01
    assert replace(step, batch=batch + 2).bytes > limit
    assert f"recompute={'all'!r}" in advice[0]
    assert replace(step, recompute="all").bytes <= limit
    assert step.advice(1000) == []


def test_a_shortage_names_what_to_lower(monkeypatch):
    step = StepFootprint(SPACE, 12, 32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: step.bytes // 2)
    text = shortage(step, CPU)
    assert "a search step of 12 scenes x 3 rains of 32x32 pixels needs about" in text
    assert "batch=" in text
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * step.bytes)
    assert shortage(step, CPU) is None
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert shortage(step, CPU) is None
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    assert shortage(replace(step, batch=1), CPU) is None, "a step this small is not worth an estimate"


def test_free_memory_of_this_machine():
    free = free_bytes(CPU)
    assert free is None or 2**20 < free < 2**50
    assert free_bytes(torch.device("mps")) is None


def test_free_memory_of_a_gpu_is_what_no_tensor_holds(monkeypatch):
    """80 GiB of which others hold 10, this process's allocator 30, of these its tensors 25: 40 + 5 are free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * memory.GIB, 80 * memory.GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * memory.GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 25 * memory.GIB)
    assert free_bytes(torch.device("cuda")) == 45 * memory.GIB


def test_a_failed_allocation_is_explained():
    """A real one: more than any machine has."""
    step = StepFootprint(SPACE, 4, 32)
    message = r"cpu ran out of memory. a search step of 4 scenes .* batch=\d"
    with pytest.raises(OutOfMemoryError, match=message), explain_out_of_memory(step, CPU):
        torch.empty(2**50)
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ...")
    with pytest.raises(OutOfMemoryError) as caught, explain_out_of_memory(step, CPU):
        raise gpu
    assert "CUDA out of memory" not in str(caught.value)


def test_other_errors_pass():
    step = StepFootprint(SPACE, 1, 32)
    with pytest.raises(RuntimeError, match="size mismatch"), explain_out_of_memory(step, CPU):
        raise RuntimeError("size mismatch")
    with pytest.raises(KeyError), explain_out_of_memory(step, CPU):
        nn.ModuleDict()["a"]
