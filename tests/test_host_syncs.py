"""No step of a run waits for the device: counted where no GPU is, on tensors without data.

The stand-in is the device `meta`. It has shapes and no values, so whatever asks for a value (`item`, `float`, a branch)
is what would make the host wait for a GPU, and is counted; a copy to the host is an error.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from manas_lite.compute import runtime
from manas_lite.compute.runtime import Compute
from manas_lite.data import SceneBatch
from manas_lite.losses import LossSettings
from manas_lite.training.retraining import _Retraining
from manas_lite.training.searching import _Search

META = torch.device("meta")
ALL_TERMS = LossSettings(internal_from=0)


class Waits(TorchDispatchMode):
    """Counts values that are read from the device (`reads`) and tensors that are sent to it (`sent`)."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.sent = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {tensor.device for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        if func is torch.ops.aten._local_scalar_dense.default and META in given:
            self.reads += 1
            return 1.0
        result = func(*args, **(kwargs or {}))
        made = {tensor.device for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor)}
        self.sent += META in made and given == {torch.device("cpu")}
        return result


@pytest.fixture
def device(monkeypatch) -> None:
    monkeypatch.setattr(runtime, "pick_device", lambda name: META)
    # Autocast knows no such device.
    monkeypatch.setattr(Compute, "autocast", lambda self, **_: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


def batch(scenes: int = 2) -> SceneBatch:
    shape = (scenes, 2, 3, 16, 16)
    index = torch.zeros(scenes, dtype=torch.int64, device=META)
    return SceneBatch(torch.empty(shape, device=META), torch.empty(shape[:1] + shape[2:], device=META), index)


def counted(run, *arguments) -> Waits:
    """Count what the second step does: the first one makes the optimiser's state."""
    run._step(0, 0, batch(), *arguments)
    with Waits() as waits:
        terms = run._step(1, 2, batch(), *arguments)
    assert len(terms) > 2
    assert all(term.device == META for term in terms.values()), "fetched for the log before it is due"
    return waits


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"ema": None}, {"clip": 1.0}])
def test_a_retraining_step_reads_nothing(tmp_path, changes):
    split = tiny.tiny_split(tmp_path / "pictures")
    settings = replace(tiny.RETRAIN, loss=ALL_TERMS, **changes)
    waits = counted(_Retraining(tiny.GENOTYPE, split, settings, None, tmp_path / "run", False))
    assert (waits.reads, waits.sent) == (0, 0)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({}, 0),
        ({"optimizer": "sgd"}, 0),
        ({"accumulate": 2}, 0),
        ({"price_share": 0.5}, 0),
        ({"order": "finite-difference", "optimizer": "sgd"}, 0),
        ({"relaxation": "gumbel"}, 2),  # the noise of alpha and of beta, drawn on the host
    ],
)
def test_a_search_step_reads_nothing(tmp_path, changes, sent):
    split = tiny.tiny_split(tmp_path / "pictures")
    settings = replace(tiny.SEARCH, loss=ALL_TERMS, **changes)
    search = _Search(tiny.SPACE, split, settings, tmp_path / "run", False)
    waits = counted(search, iter([batch(), batch()]))
    assert (waits.reads, waits.sent) == (0, sent)


def test_what_is_read_is_counted():
    x, gradient = torch.ones(3, device=META), torch.ones(3)
    with Waits() as waits:
        bool(x.sum() < 0)
        float(x.mean())
        x.add_(gradient.to(META))
        float(gradient.mean())  # of the host itself
    assert (waits.reads, waits.sent) == (2, 1)


# --- what a GPU is given ---


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
@pytest.mark.parametrize(("capability", "weights"), [((9, 0), torch.float32), ((7, 5), torch.float16)])
def test_a_search_does_not_take_bf16_by_itself(monkeypatch, capability, weights):
    monkeypatch.setattr(runtime, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert Compute(tiny.COMPUTE, search=True).dtype == weights
    assert Compute(replace(tiny.COMPUTE, precision="bf16"), search=True).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
def test_one_kernel_moves_all_weights_on_a_gpu_and_two_processes_load(monkeypatch):
    settings = runtime.ComputeSettings()
    assert (Compute(replace(settings, device="cpu")).fused, runtime.loading_processes(settings)) == (None, 0)
    monkeypatch.setattr(runtime, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert Compute(settings).fused
    assert [runtime.loading_processes(replace(settings, workers=workers)) for workers in (None, 0, 5)] == [2, 0, 5]


def test_batches_travel_to_a_gpu_from_pinned_memory(monkeypatch):
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    def sent(tensor: torch.Tensor, device: str, non_blocking: bool = False) -> torch.Tensor:
        assert non_blocking
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", sent)
    parts = SceneBatch(torch.full((1, 1, 3, 2, 2), 255, dtype=torch.uint8), torch.zeros(1, 3, 2, 2), torch.tensor([7]))
    there = parts.to("cuda:0")
    assert pinned == [*parts]
    assert there.rainy.unique().tolist() == [1.0]
    assert there.index.tolist() == [7]
    parts.to("cpu")
    assert len(pinned) == 3
