"""A sweep's runs handed to `dask.distributed`: several processes here, or a cluster. An extra: 'manas_lite[dask]'."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from manas_lite.runs.record import read_json
from tools.course.sweeps import Run, finished, run_one

__all__ = ["run_on_cluster"]


def run_on_cluster(
    runs: Iterable[Run],
    out: Path,
    where: str,
    *,
    timeout: int | None = None,
    say: Callable[[str], None] = print,
    started: Callable[[Any], None] | None = None,
) -> list[dict[str, Any]]:
    """Execute runs on the workers of a cluster and return the facts of each; those done already are not repeated.

    A run whose worker dies is given to another one.

    Args:
        runs: those of a sweep.
        out: a folder that all workers share.
        where: the address of a scheduler ("tcp://host:8786"), or "local:N" for N processes on this machine.
        timeout: seconds that a cell may take.
        say: told each run that ended.
        started: called with the client once the runs are handed over.

    Raises:
        ValueError: for another form of `where`.
        OSError: where no scheduler answers.
    """
    runs = tuple(runs)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with _client(where) as client:
        waiting = {
            client.submit(run_one, run, out, timeout, key=run.name, pure=False, retries=2): run
            for run in runs
            if not finished(run, out)
        }
        if started is not None:
            started(client)
        _follow(client, waiting, len(runs), say)
    return [read_json(out / f"{run.name}.json") for run in runs if (out / f"{run.name}.json").is_file()]


def _follow(client: Any, waiting: dict[Any, Run], total: int, say: Callable[[str], None]) -> None:
    from distributed import as_completed

    done = total - len(waiting)
    for future in as_completed(waiting):
        done += 1
        run = waiting[future]
        if future.status == "error":
            say(f"{done}/{total} {run.name}: lost, {future.exception()}; the same command tries it again")
            continue
        fact = future.result()
        say(f"{done}/{total} {run.name}: {fact['status']}{': ' + fact['reason'] if fact['reason'] else ''}")


def _client(where: str) -> Any:
    from distributed import Client, LocalCluster

    kind, _, count = where.partition(":")
    if kind == "local":
        if not count.isdecimal() or int(count) < 1:
            raise ValueError(f"{where!r}: write local:N with N processes, or the address of a scheduler")
        cluster = LocalCluster(n_workers=int(count), threads_per_worker=1, dashboard_address=None)
        return Client(cluster)
    return Client(where, timeout=30)
