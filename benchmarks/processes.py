"""One global batch by one process and by two: seconds a step, and what travels between them.

Every process has one thread. One process of two threads is left out: its threads wait for each other in every
operation, and on a machine that is busy otherwise they wait for other programs too.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from manas_lite.networks.space import SearchSpace

from . import cases

BATCH, RAINS, PATCH = 4, 3, 64
MAKERS = {"search": cases.search_kit, "retrain": cases.retrain_kit}


def scaling(rounds: int = 3, spaces: tuple[str, ...] = ("lite", "paper")) -> dict[str, Any]:
    """Least seconds of a step by processes, and bytes and messages a step of two.

    The clock is the wall's, which other programs only lengthen: hence the least.
    """
    found: dict[str, Any] = {"batch": f"{BATCH}x{RAINS} patches of {PATCH}", "backend": "gloo"}
    for space in spaces:
        for kind in MAKERS:
            one, two = (_measure(kind, space, count, rounds) for count in (1, 2))
            found[f"{space} {kind}"] = {
                "1 process": one["seconds"],
                "2 processes": two["seconds"],
                "times faster than 1 process": one["seconds"] / two["seconds"],
                "megabytes a step": two["bytes"] / 1e6,
                "messages a step": two["messages"],
            }
            print(f"  {space} {kind}: {found[f'{space} {kind}']}", flush=True)
    return found


def _measure(kind: str, space: str, count: int, rounds: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        children = [
            context.Process(target=_work, args=(kind, space, rank, count, rounds, store, answers))
            for rank in range(count)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        if any(child.exitcode for child in children):
            raise RuntimeError(f"{kind} of {space} in {count} processes failed, see above")
    return answers.get()


def _work(kind: str, space: str, rank: int, count: int, rounds: int, store: str, answers: Any) -> None:
    torch.set_num_threads(1)
    travelled = {"bytes": 0, "messages": 0}
    if count > 1:
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
        send = distributed.all_reduce

        def counted(tensor: torch.Tensor) -> Any:
            travelled["bytes"] += tensor.nbytes
            travelled["messages"] += 1
            return send(tensor)

        distributed.all_reduce = counted
    step = MAKERS[kind](cases.Size(SearchSpace.preset(space), BATCH // count, RAINS, PATCH))
    step()
    travelled.update(bytes=0, messages=0)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    if rank == 0:
        per_step = {name: value / rounds for name, value in travelled.items()}
        answers.put({"seconds": min(seconds), **per_step})
    if count > 1:
        distributed.barrier()
        distributed.destroy_process_group()
