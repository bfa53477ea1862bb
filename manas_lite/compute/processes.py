"""Several processes, one run: each takes its share of every batch, and all take the same step.

Processes are started by `accelerate launch` or `notebook_launcher`. What a run computes does not depend on their
number: batches are cut by scene, gradients and logged terms are means over the processes, BatchNorm normalises by the
whole batch (`compute.batch_norm`), and what is drawn at random is a function of (seed, step). Weights are therefore the
same everywhere, at every step, without being sent. The first process alone reads and writes the run directory.

Tensors here are of two sorts: *common* ones, equal in all processes, and *own* ones. `_Spread` makes an own one of a
common one, `_Sum` a common one of own ones. Each is the other's derivative, so that gradients of any order are right
(the pair is Megatron-LM's f and g, Shoeybi et al., arXiv 1909.08053).
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, distributed

from manas_lite.bilevel import Loss
from manas_lite.runs.record import RunDirectory

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, such as while the first one scores validation pictures."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. With one process every method is free and changes nothing."""

    rank: int = 0
    """The number of this process, from 0."""
    count: int = 1
    """How many processes there are."""
    local: int = 1
    """How many of them are on this machine."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> tuple[int, int]:
        """Return (first, one past last) of the scenes of a batch that are this process's.

        Raises:
            ValueError: unless all get as many. Means over processes are then means over scenes.
        """
        if batch % self.count:
            fitting = max(self.count, batch // self.count * self.count)
            raise ValueError(
                f"a batch of {batch} scenes cannot be shared evenly by {self.count} processes: set batch={fitting}"
            )
        each = batch // self.count
        return self.rank * each, (self.rank + 1) * each

    def ask_first(self, find: Callable[[], T]) -> T:
        """Return what `find()` returns in the first process; in the others it is not called."""
        if self.count == 1:
            return find()
        box: list[Any] = [find() if self.first else None]
        distributed.broadcast_object_list(box)
        return box[0]

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor | None]) -> None:
        """Put the mean over the processes into each tensor, in one message; None is a gradient that no process has."""
        there = [tensor for tensor in tensors if tensor is not None]
        if self.count == 1 or not there:
            return
        message = torch.cat([tensor.reshape(-1) for tensor in there])
        distributed.all_reduce(message)
        message /= self.count
        for tensor, piece in zip(there, message.split([tensor.numel() for tensor in there]), strict=True):
            tensor.copy_(piece.view(tensor.shape))

    def gather(self, own: Tensor) -> Tensor:
        """Return the tensors of all processes as (count, *shape), differentiable to any order."""
        rows = torch.stack([own if rank == self.rank else torch.zeros_like(own) for rank in range(self.count)])
        return _Spread.apply(_Sum.apply(rows))[0]

    def mean(self, loss: Loss) -> Loss:
        """Return the mean over the processes of a pure loss, a common one of common `weights` and `arch`.

        Its gradients are the same in every process, so hypergradients and Hessian products of it need no other care.
        """
        if self.count == 1:
            return loss

        def common(weights: Sequence[Tensor], arch: Sequence[Tensor]) -> Tensor:
            return _Sum.apply(loss(_Spread.apply(*weights), _Spread.apply(*arch))) / self.count

        return common

    def open(
        self, path: Path, record: Mapping[str, Any], *, kind: str, defaults: Mapping[str, Any] | None = None
    ) -> RunDirectory:
        """Return the run directory; for all processes but the first, one that keeps nothing."""
        return (RunDirectory if self.first else _NoDirectory)(path, record, kind=kind, defaults=defaults)


ALONE = Processes()


def join(device: torch.device) -> Processes:
    """Return the processes of this launch, introduced to one another: by gloo on CPUs, by NCCL with a GPU each.

    Raises:
        ModuleNotFoundError: where several were launched and `accelerate` is missing.
        ValueError: for a numbered GPU, and for devices that have no way to speak to one another (MPS).
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if not (distributed.is_available() and distributed.is_initialized()):
        if launched < 2:
            return ALONE
        try:
            from accelerate import PartialState
        except ImportError:
            raise ModuleNotFoundError(
                "several processes were launched, and accelerate introduces them to one another: "
                "pip install 'manas_lite[accelerate]'"
            ) from None
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        if not distributed.is_initialized():
            raise ValueError(f"processes on {device.type!r} cannot be joined: use device=cuda or device=cpu")
    count = distributed.get_world_size()
    if count > 1 and device.index is not None:
        raise ValueError(f"device is {str(device)!r}, but each of {count} processes takes its own GPU: set device=cuda")
    return Processes(distributed.get_rank(), count, int(os.environ.get("LOCAL_WORLD_SIZE", count)))


def leave() -> None:
    """Let the processes part, in a program that ends after its run."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


class _Spread(torch.autograd.Function):
    """Common tensors as own ones; their gradients are summed over the processes, in one message."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [gradient for gradient in gradients if gradient is not None]
        if not there:
            return gradients
        message = _Sum.apply(torch.cat([gradient.reshape(-1) for gradient in there]))
        pieces = iter(message.split([gradient.numel() for gradient in there]))
        return tuple(None if gradient is None else next(pieces).view(gradient.shape) for gradient in gradients)


class _Sum(torch.autograd.Function):
    """The sum over the processes of an own tensor; each gets the whole gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Spread.apply(gradient)[0]


def _nothing(*_: Any, **__: Any) -> None:
    pass


class _NoDirectory(RunDirectory):
    """What stands for the run directory in all processes but the first: it writes nothing."""

    __exit__ = note = log = truncate_log = write_json = write_text = _nothing

    def __enter__(self) -> Self:
        self.manifest = {"notes": {}}
        self._began = time.monotonic()
        return self

    def read_log(self) -> list[dict[str, Any]]:
        raise RuntimeError("only the first process has a log: ask_first(run.read_log)")

    def finish(self) -> float:
        return self.seconds
