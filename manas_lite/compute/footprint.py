"""How much memory a step or a picture needs, known before it is tried; and a clear word when it was not enough.

A pass is played through with tensors that have shapes and no data, and every allocation and release is counted: the
peak is that of the real pass, but for the scratch space of single kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from manas_lite.bilevel import Order, functional_loss, hypergradient, virtual_step
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.networks.backbone import Backbone
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.recomputing import Recompute
from manas_lite.networks.space import SearchSpace

GIB = 2**30

OVERHEAD = 1.3
"""What allocators and kernels take on top of the tensors: a rough measure on a CPU."""


class OutOfMemoryError(RuntimeError):
    """A device ran out of memory; the message says what was being done and what to lower."""


# --- estimates ---


@lru_cache(maxsize=64)
def bytes_per_pixel(network: Genotype | SearchSpace) -> float:
    """Return the peak bytes per pixel of deraining one whole picture in float32, without the network's weights."""
    from manas_lite.compute.allocations import AllocationPeak

    side = 256
    with torch.device("meta"), torch.inference_mode(), AllocationPeak() as count:
        net = SuperNet(network) if isinstance(network, SearchSpace) else DerainNet(network)
        weights = count.live
        net.eval()(torch.empty(1, 3, side, side))
    return (count.peak - weights) / side**2


@dataclass(frozen=True)
class StepFootprint:
    """What decides the memory of a training step.

    Example:
    >>> StepFootprint(SearchSpace.preset("smoke"), batch=2, patch=32).bytes < 100 * 2**20
    True
    """

    space: SearchSpace
    """The space that is searched, or the genotype's."""
    batch: int
    """Scenes per step."""
    patch: int = 64
    """Side of a patch, in pixels."""
    rains: int = 3
    """Rainy versions per scene."""
    genotype: Genotype | None = None
    """The network that is retrained; None for a search."""
    accumulate: int = 1
    """Parts in which a step takes its scenes."""
    recompute: Recompute = "none"
    """What is computed twice."""
    order: Order = "first"
    """Order of the architecture gradient."""
    precision: str = "fp32"
    """Numbers of the passes: fp32, bf16 or fp16."""
    optimizer: str = "sgd"
    """sgd keeps one number per weight, adam two."""
    ema: bool = False
    """Whether an average of the weights, and the best one so far, are kept too."""

    @property
    def bytes(self) -> int:
        """The peak memory of the step, in bytes."""
        return _step_bytes(self)

    @property
    def pixels(self) -> int:
        """How many pixels are in the network at once: those of all rainy images of one part of the step."""
        return -(-self.batch // self.accumulate) * self.rains * self.patch**2

    def advice(self, limit: int) -> list[str]:
        """List settings to change, each enough on its own to stay within `limit` bytes; none where none is."""
        advice = []
        for more in get_args(Recompute)[get_args(Recompute).index(self.recompute) + 1 :]:
            less = replace(self, recompute=more).bytes
            if less <= limit:
                advice.append(f"recompute={more!r} ({_gib(less)}; slower, the same gradients)")
                break
        fitting = self._fitting(limit)
        if fitting and self.order == "first":
            parts = -(-self.batch // fitting)
            advice.append(f"accumulate={parts} (BatchNorm then normalises by the parts)")
        if fitting:
            advice.append(f"batch={fitting}")
        return advice

    def _fitting(self, limit: int) -> int:
        """Return the most scenes at once within `limit`: memory grows by the same with each."""
        scenes = -(-self.batch // self.accumulate)
        one = replace(self, batch=1, accumulate=1).bytes
        if one > limit or scenes == 1:
            return 0
        each = (self.bytes - one) / (scenes - 1)
        return min(scenes - 1, 1 + int((limit - one) / each))


@lru_cache(maxsize=256)
def _step_bytes(step: StepFootprint) -> int:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from manas_lite.compute.allocations import AllocationPeak

    share = -(-step.batch // step.accumulate)
    half = {"bf16": torch.bfloat16, "fp16": torch.bfloat16}.get(step.precision)
    autocast = torch.autocast("cpu", dtype=half) if half else nullcontext()
    loss = DerainLoss(LossSettings(external="mse", internal_from=0))  # the maps of SSIM are few beside a network's
    # Tensors without data: the meta device is quick, but only fake CPU tensors follow autocast.
    empty = FakeTensorMode() if half else torch.device("meta")
    with empty, AllocationPeak() as count:
        net: Backbone = SuperNet(step.space) if step.genotype is None else DerainNet(step.genotype)
        net.set_recompute(step.recompute)
        for tensor in (*net.parameters(), *net.buffers()):
            count.track(tensor)
        copies = 2 if step.ema else 0  # the average of the weights, and the best so far
        weights = net.weight_parameters() if isinstance(net, SuperNet) else list(net.parameters())
        moments = 1 if step.optimizer == "sgd" else 2
        kept = [torch.empty_like(w) for w in weights for _ in range(moments + copies)]
        rainy = torch.empty(share, step.rains, 3, step.patch, step.patch)
        clean = torch.empty(share, 3, step.patch, step.patch)

        def objective(net: nn.Module) -> Tensor:
            with autocast:
                outputs = net(rainy.flatten(0, 1))
            return loss(outputs.float().unflatten(0, rainy.shape[:2]), clean, epoch=0)[0]

        if isinstance(net, SuperNet):
            arch = net.arch_parameters()
            pure = functional_loss(net, objective, weights, arch)
            sgd = torch.optim.SGD(weights, 0.1)
            hypergradient(step.order, pure, pure, weights, arch, step=virtual_step(sgd))
        kept += [torch.empty_like(w) for w in weights if step.accumulate > 1]  # the sum over the parts
        torch.autograd.grad(objective(net), weights, allow_unused=True)
    return count.peak


# --- the machine ---


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a process can still take on `device`; None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # live tensors stay
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return None
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:  # a container may allow less than the machine has
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
        return free if limit == "max" else min(free, int(limit) - used)
    except (OSError, ValueError):
        return free


def shortage(step: StepFootprint, device: torch.device) -> str | None:
    """Return a warning with what to change, if `step` needs more than `device` has free; None if it fits.

    The estimate takes seconds. It is not made for steps so small that they fit anywhere.
    """
    free = free_bytes(device)
    if free is None or step.pixels < 2**15 or OVERHEAD * step.bytes <= free:
        return None
    return f"{_needs(step)}, but {device} has {_gib(free)} free: {_advice(step, int(free / OVERHEAD))}"


@contextmanager
def explain_out_of_memory(step: StepFootprint, device: torch.device) -> Iterator[None]:
    """Turn an allocation that failed into an OutOfMemoryError that names the setting to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"{device} ran out of memory. {_needs(step)}: {_advice(step, step.bytes * 2 // 3)}"
        raise OutOfMemoryError(message) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "can't allocate memory" in text)


def _needs(step: StepFootprint) -> str:
    kind = "search" if step.genotype is None else "retraining"
    return (
        f"a {kind} step of {step.batch} scenes x {step.rains} rains of {step.patch}x{step.patch} pixels "
        f"needs about {_gib(int(OVERHEAD * step.bytes))}"
    )


def _advice(step: StepFootprint, limit: int) -> str:
    choices = step.advice(limit)
    return "set " + ", or ".join(choices) if choices else "lower patch, or use a smaller space"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
