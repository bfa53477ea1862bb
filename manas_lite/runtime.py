"""Where and how a run computes: device, precision, memory format, threads. The same call runs on CPU, CUDA, MPS."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class ComputeSettings:
    """device: `auto` (CUDA, else MPS, else CPU) or a torch device name. precision: `auto` is bf16 on GPUs that
    have it, fp16 with a gradient scaler on older ones, fp32 on CPU and MPS. threads: CPU threads of a run, 0 to
    choose by size. workers: loader processes (batches do not depend on it)."""

    device: str = "auto"
    precision: PrecisionName = "auto"
    threads: int = 0
    workers: int = 0


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; RuntimeError when this machine does not have it."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {name!r} was asked for, but torch sees no CUDA GPU. On Colab: Runtime > Change runtime type > "
            "GPU. Elsewhere: check `nvidia-smi` and that torch is not a CPU build. Or use device='cpu'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError(f"device {name!r} was asked for, but this torch has no MPS: use device='cpu'")
    return device


class Compute:
    """A device with its precision: `prepare` a network, `autocast` its passes, `scaler` for fp16.

    width: see `default_threads`.
    """

    def __init__(self, settings: ComputeSettings, width: int | None = None) -> None:
        self.device = pick_device(settings.device)
        self.dtype = _dtype(settings.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.threads = settings.threads or default_threads(width)

    def prepare(self, net: Net) -> Net:
        """Move a network here, in the memory format that its convolutions like best."""
        return net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def images(self, batch: Tensor) -> Tensor:
        """(B, R, 3, h, w) -> (B * R, 3, h, w) in the network's memory format: one forward pass for all."""
        return batch.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @contextmanager
    def session(self) -> Iterator[None]:
        """The threads of this run, for a stretch."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        if precision not in names:
            raise ValueError(f"unknown precision {precision!r}: choose one of auto, {', '.join(names)}")
        return names[precision]
    if device.type != "cuda":
        return torch.float32
    # Turing cards (T4) emulate bf16 slowly: is_bf16_supported() alone would say yes.
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def default_threads(width: int | None = None) -> int:
    """CPU threads for training a network whose first branch has `width` channels; None: for whole pictures.

    Operations on patches of a narrow network are so small that a second thread only waits for the first.
    """
    return 1 if width is not None and width < 32 else min(8, os.cpu_count() or 1)
