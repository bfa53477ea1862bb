"""A search or a retraining in a process of its own, so that reading goes on: `background(...)`, then `.wait()`.

The process writes an ordinary run directory. It outlives an interrupted or restarted kernel. The same call then finds
it again while it runs, and continues it where it was stopped.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from manas_lite import draw
from manas_lite.data import open_split
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.space import SearchSpace
from manas_lite.runs.record import MANIFEST, BusyError, read_json, read_log, run_path, write_json
from manas_lite.runs.settings import parse, to_dict
from manas_lite.training.retraining import RetrainResult, retrain
from manas_lite.training.schedules import RetrainSettings, SearchSettings
from manas_lite.training.searching import SearchResult, search

__all__ = ["HEADLESS", "Background", "headless"]

HEADLESS = "MANAS_LITE_HEADLESS"  # set by the runner of notebooks and by tests

JOB = "job.json"
LOCK = ".job.lock"  # held by the process as long as it lives, whichever kernel started it
PROGRAM = (  # the lock first: what else is imported takes seconds
    f"import filelock, sys; lock = filelock.FileLock(sys.argv[2]); lock.acquire(); from {__name__} import main; main()"
)
CURVES = {"search": draw.search_curves, "retrain": draw.training_curves}


def headless() -> bool:
    """Tell whether a notebook runs with no one looking: live bars, curves and widgets then give way to static ones."""
    return bool(os.environ.get(HEADLESS))


@dataclass
class Background:
    """A run in another process."""

    job: dict[str, Any]
    """What is run, as in the file job.json."""
    path: Path
    """The run directory."""
    process: subprocess.Popen[bytes] | None
    """The process; None where another kernel started it."""

    @classmethod
    def start(
        cls,
        what: SearchSpace | Genotype,
        settings: SearchSettings | RetrainSettings,
        *,
        runs_dir: str | Path,
        name: str,
        data: str = "photos",
        seed: int = 0,
    ) -> Self:
        """Start, continue, or find running the search of a space or the retraining of a genotype; return at once.

        The process's output goes to `output.txt` in the run directory. With no one looking (`headless`) the process
        ends with the kernel.

        Args:
            what: the space to search, or the genotype to retrain.
            settings: those of the search or of the retraining.
            runs_dir, name: the run directory is `runs_dir`/`name`.
            data, seed: as in `open_split`.

        Raises:
            BusyError: where it runs already with other settings.
        """
        searching = isinstance(what, SearchSpace)
        kind, wanted = ("search", SearchSettings) if searching else ("retrain", RetrainSettings)
        if not isinstance(settings, wanted):
            raise ValueError(f"a {kind} needs {wanted.__name__}, got {type(settings).__name__}")
        subject = to_dict(what) if isinstance(what, SearchSpace) else json.loads(what.to_json())
        job = {"kind": kind, "what": subject, "settings": to_dict(settings), "data": data, "seed": seed}
        path = run_path(runs_dir, name)
        path.mkdir(parents=True, exist_ok=True)
        if _locked(path):
            held = read_json(path / JOB)
            process_id = held.pop("process", None)
            if held != job:
                raise BusyError(
                    f"process {process_id} is writing {path} with other settings: wait for it, end it, or use "
                    "another name"
                )
            print(f"{kind} {name!r} runs already, in process {process_id}; read on")
            return cls(job, path, None)
        write_json(path / JOB, job)
        process = _start(path)
        write_json(path / JOB, {**job, "process": process.pid})
        print(f"{kind} {name!r} runs in process {process.pid}; read on")
        return cls(job, path, process)

    def running(self) -> bool:
        """Return whether its process is alive."""
        return _locked(self.path) if self.process is None else self.process.poll() is None

    def status(self) -> str:
        """Return one line that says how far it is."""
        done = 1 + max((record["step"] for record in read_log(self.path)), default=-1)
        total = self.job["settings"]["epochs"] * self.job["settings"]["steps"]
        state = "running" if self.running() else "ended"
        if self.process is not None and self.process.returncode is not None:
            state += f" with code {self.process.returncode}"
        return f"{self.job['kind']}: step {done} of {total}, {state}"

    def wait(self, *, live: bool = True, every: float = 5.0) -> Any:
        """Wait until it is done, while its curves grow in one output; return the run's result.

        Args:
            live: False waits silently.
            every: seconds between two looks.

        Raises:
            RuntimeError: where it failed or was stopped, with the last lines of its output.
        """
        handle, shown = None, 0
        while self.running():
            self._pause(every)
            log = read_log(self.path) if live and self.running() else []
            epochs = sum(record["kind"] == "epoch" for record in log)
            if epochs > shown:
                shown, handle = epochs, self._show(log, handle)
        manifest = self.path / MANIFEST
        finished = manifest.is_file() and read_json(manifest)["finished"] is not None
        if not (finished if self.process is None else self.process.returncode == 0):
            output = (self.path / "output.txt").read_text("utf-8", errors="replace")
            raise RuntimeError(f"the {self.job['kind']} in {self.path} failed:\n{output[-2000:]}")
        return self.result()

    def result(self) -> SearchResult | RetrainResult:
        """Return the finished run's result, read from its files."""
        return _run(self.job, self.path)

    def _pause(self, seconds: float) -> None:
        if self.process is None:
            time.sleep(seconds)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)

    def _show(self, log: list[dict[str, Any]], handle: Any) -> Any:
        from IPython.display import display

        figure = CURVES[self.job["kind"]](log)
        if handle is None:
            return display(figure, display_id=True)
        handle.update(figure)
        return handle


def _run(job: dict[str, Any], path: Path) -> SearchResult | RetrainResult:
    split = open_split(job["data"], seed=job["seed"])
    where: dict[str, Any] = {"runs_dir": path.parent, "name": path.name, "progress": False}
    if job["kind"] == "search":
        space = parse(SearchSpace, job["what"])
        return search(space, split, parse(SearchSettings, job["settings"]), **where)
    genotype = Genotype.from_json(json.dumps(job["what"]))
    return retrain(genotype, split, parse(RetrainSettings, job["settings"]), **where)


def _start(path: Path) -> subprocess.Popen[bytes]:
    """Return the process that does a run directory's job; by then it holds its lock, or has ended."""
    apart = not headless()  # from the kernel's process group, which Jupyter interrupts and kills as a whole
    with open(path / "output.txt", "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(path / LOCK)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=apart,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if apart else 0,  # the same on Windows
        )
    while process.poll() is None and not _locked(path):
        time.sleep(0.02)
    return process


def _locked(path: Path) -> bool:
    """Return whether a process that does the run directory's job is alive."""
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def main() -> None:
    """Do the job of the run directory that is named on the command line, in the other process."""
    folder = Path(sys.argv[1])
    _run(read_json(folder / JOB), folder)
