"""Where and how a run computes: device, precision, memory format, threads. The same call runs on CPU, CUDA, MPS."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from manas_lite.compute.batch_norm import share_statistics
from manas_lite.compute.processes import ALONE, join
from manas_lite.networks.recomputing import Recompute
from manas_lite.runs.settings import check, must_be

Net = TypeVar("Net", bound=nn.Module)
WORTH_COMPILING = 500
"""Steps below which compiling cannot pay: this kit's choice, from warm-ups of two minutes and more on two CPU cores."""
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class ComputeSettings:
    """Where and how a run computes. What a run finds does not depend on it, but for the precision."""

    RENAMED: ClassVar = {"checkpoint": "recompute"}

    device: str = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, mps, cuda, or cuda:1."""
    precision: PrecisionName = "auto"
    """Numbers of a training pass: auto takes bf16 on GPUs that have it, fp16 with a gradient scaler on older ones, and
    fp32 elsewhere, and derains whole pictures in fp32; a precision that is named holds for both. A search never takes
    bf16 by itself: supernets were seen to diverge in it. On CPUs with AMX, bf16 is worth naming for the retraining of
    large networks, whose passes it makes about twice as fast."""
    threads: int = 0
    """CPU threads of a run; 0 chooses by the size of the network."""
    workers: int | None = None
    """Processes that load data; batches do not depend on it. None takes two beside a GPU where processes can be forked,
    and otherwise none."""
    picture_gib: float = 2.0
    """GiB above which a picture is derained in tiles, with the same result."""
    recompute: Recompute = "none"
    """What a training step computes twice to save memory, with the same gradients."""
    compile: bool = False
    """Let torch.compile make the kernels of training passes; no preset does."""
    engine: Literal["torch", "onnx"] = "torch"
    """What derains whole pictures: torch, or onnx (ONNX Runtime, on CPUs in float32), which is 1.3 to 1.6 times as fast
    on one thread and exports each network once before, in about 20 seconds. Training is always by torch."""

    def __post_init__(self) -> None:
        check(self)
        must_be(self, "above", 0, "picture_gib")
        must_be(self, "at least", 0, "threads", "workers")
        must_be(self, "at most", 1024, "threads", "workers")  # OpenMP ends the process where it cannot start so many
        if self.compile and self.recompute != "none":
            raise ValueError(f"compile and recompute={self.recompute!r} exclude each other: leave one of them out")


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`.

    Raises:
        ValueError: for a name that no device has, or whose device is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r} was asked for, but torch sees no CUDA GPU. On Colab: Runtime > Change runtime type > "
            "GPU. Elsewhere: check `nvidia-smi` and that torch is not a CPU build. Or use device='cpu'"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {name!r} was asked for, but torch sees {count} CUDA GPU(s), counted from cuda:0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r} was asked for, but this torch has no MPS: use device='cpu'")
    return device


class Compute:
    """A device with its precision: it prepares a network, and says in what numbers each pass is computed.

    Args:
        settings: what was asked for.
        width: channels of the network's first branch, for the number of threads (see `default_threads`).
        search: whether the network is a supernet, for the precision.
        together: work with the other processes of this launch, if there are any.
    """

    def __init__(
        self, settings: ComputeSettings, width: int | None = None, *, search: bool = False, together: bool = False
    ) -> None:
        self.device = pick_device(settings.device)
        self.fused = True if self.device.type == "cuda" else None
        """What optimisers are told: on GPUs one kernel updates all weights, and none waits for the host."""
        self.processes = join(self.device) if together else ALONE
        self.dtype = _dtype(settings.precision, self.device, search)
        self.picture_dtype = torch.float32 if settings.precision == "auto" else self.dtype
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.threads = settings.threads or max(1, default_threads(width) // self.processes.local)
        self.picture_bytes = int(settings.picture_gib * 2**30)
        self.engine = settings.engine
        if self.engine == "onnx" and (self.device.type, self.picture_dtype) != ("cpu", torch.float32):
            raise ValueError("engine='onnx' computes on the CPU in float32: set device='cpu' and precision='fp32'")
        self.compile = settings.compile
        if self.compile and self.processes.count > 1:
            raise ValueError(f"compile is for one process, not for {self.processes.count}: leave it out")

    def prepare(self, net: Net) -> Net:
        """Move a network to the device, in the memory format that is fastest for its convolutions."""
        net = net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_statistics(net, self.processes)
        return net

    def compiled(self, net: Net, steps: int) -> Net | Callable[..., Any]:
        """Return what the training passes of a run of `steps` steps call: `net`, or its compiled form if asked for.

        The warm-up of minutes is bounded: short runs go without (see WORTH_COMPILING), all steps share their shapes
        (one graph a kind of pass, and a break in it is an error, not a silent detour), and torch keeps what it
        compiled in a cache on disk for the next run of the same network.
        """
        if not self.compile or steps < WORTH_COMPILING:
            return net
        return torch.compile(net, fullgraph=True, dynamic=False)

    def images(self, batch: Tensor) -> Tensor:
        """Turn (B, R, 3, h, w) into (B * R, 3, h, w) in the network's memory format: one forward pass for all."""
        return batch.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def autocast(self, *, scaled: bool = True) -> torch.autocast:
        """Return the context that sets the precision of a training pass.

        Gradients in fp16 vanish unless the loss goes through the scaler. Passes whose loss does not (`scaled=False`,
        those of the architecture) are therefore computed in fp32 there.
        """
        half = self.dtype == torch.bfloat16 or (self.dtype == torch.float16 and scaled)
        return torch.autocast(self.device.type, dtype=self.dtype if half else None, enabled=half)

    @contextmanager
    def autocast_pictures(self) -> Iterator[None]:
        """Set the precision of deraining whole pictures within a `with` block.

        It is half only where it was asked for by name: a score must not depend on the machine, and bf16's eight bits
        are as coarse as the steps of a picture. For the same reason no GPU rounds float32 to TF32 there.
        """
        half = self.picture_dtype != torch.float32
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = before and half
        try:
            with torch.autocast(self.device.type, dtype=self.picture_dtype if half else None, enabled=half):
                yield
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the machine: device, its name, precisions, threads and processes."""
        return {
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "picture_precision": str(self.picture_dtype).removeprefix("torch."),
            "threads": self.threads,
            "processes": self.processes.count,
        }

    @contextmanager
    def session(self) -> Iterator[None]:
        """Use the threads of this run within a `with` block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _dtype(precision: str, device: torch.device, search: bool) -> torch.dtype:
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return names[precision]
    if device.type != "cuda":
        return torch.float32
    # Turing cards (T4) emulate bf16 slowly: is_bf16_supported() alone would say yes.
    if torch.cuda.get_device_capability(device)[0] < 8:
        return torch.float16
    return torch.float32 if search else torch.bfloat16  # cuDNN takes TF32 for convolutions in float32


def loading_processes(settings: ComputeSettings) -> int:
    """Return how many processes load the data of a run."""
    if settings.workers is not None:
        return settings.workers
    forked = multiprocessing.get_context().get_start_method() == "fork"  # others would start a caller's script again
    return 2 if forked and pick_device(settings.device).type == "cuda" else 0


def default_threads(width: int | None = None) -> int:
    """Return how many CPU threads to use for training a network whose first branch has `width` channels.

    Without a width, the number is for whole pictures. Operations on patches of a narrow network are so small that a
    second thread only waits for the first.
    """
    return 1 if width is not None and width < 32 else min(8, os.cpu_count() or 1)
