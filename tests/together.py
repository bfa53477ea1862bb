"""Runs a function in several processes that gloo joins, on the CPU; and runs in float64, where sums in another order
agree to many digits."""

import contextlib
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed

PATIENCE = 120.0  # seconds


def together(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each of `count` processes, in their order.

    An exception in one of them ends all, and is raised here with its traceback as text.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(count)]
        children = [
            context.Process(target=_child, args=(rank, count, folder, pipes[rank][1], function, arguments))
            for rank in range(count)
        ]
        for child, (_, inlet) in zip(children, pipes, strict=True):
            child.start()
            inlet.close()
        try:
            waiting, answers = {outlet: rank for rank, (outlet, _) in enumerate(pipes)}, {}
            while waiting:
                ready = multiprocessing.connection.wait(list(waiting), PATIENCE)
                if not ready:
                    raise TimeoutError(f"{len(waiting)} of {count} processes did not answer in {PATIENCE} s")
                for outlet in ready:
                    ok, answers[waiting.pop(outlet)] = pickle.loads(outlet.recv_bytes())
                    if not ok:
                        raise RuntimeError(f"a process failed:\n{list(answers.values())[-1]}")
            return [answers[rank] for rank in range(count)]
        finally:
            for child in children:
                child.join(1)
                if child.is_alive():
                    child.kill()


def _child(rank: int, count: int, folder: str, inlet: Any, function: Callable[..., Any], arguments: tuple) -> None:
    os.environ.pop("WORLD_SIZE", None)
    torch.set_num_threads(1)
    try:
        store = f"file://{folder}/store"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
        answer = (True, function(*arguments))
    except BaseException:
        answer = (False, traceback.format_exc())
    inlet.send_bytes(pickle.dumps(answer))  # plainly: torch would send handles to memory that ends with this process
    os._exit(0)  # nothing of the parent's must run here


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Searches and retrainings compute in float64."""
    from manas_lite.compute.batch_norm import share_statistics

    def prepare(self, net):
        share_statistics(net.double(), self.processes)
        return net

    with (
        mock.patch("manas_lite.compute.runtime.Compute.prepare", prepare),
        mock.patch("manas_lite.compute.runtime.Compute.images", lambda self, batch: batch.flatten(0, 1).double()),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


class Cut(Exception):
    """Stands for the end of a process."""


@contextlib.contextmanager
def cut_after(step: int) -> Iterator[None]:
    """The run within ends, as if killed, right after the checkpoint of `step` steps."""
    from manas_lite.training.loop import Loop

    save = Loop.save

    def cut(self, done, probe, **ended):
        save(self, done, probe, **ended)
        if done == step:
            raise Cut

    with mock.patch.object(Loop, "save", cut), contextlib.suppress(Cut):
        yield


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
