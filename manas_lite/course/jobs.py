"""A search or a retraining in a process of its own, so that reading goes on: `background(...)`, then `.wait()`.

The process writes an ordinary run directory. It outlives a restarted kernel, and starting it again continues it.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from .. import draw
from ..data import open_split
from ..genotype import Genotype
from ..record import MANIFEST, read_json, read_log, write_json
from ..schedules import RetrainSettings, SearchSettings
from ..searching import SearchResult, search
from ..settings import parse, to_dict
from ..space import SearchSpace
from ..training import RetrainResult, retrain

__all__ = ["Background"]

Kind = Literal["search", "retrain"]
JOB = "job.json"
CURVES = {"search": draw.search_curves, "retrain": draw.training_curves}


@dataclass
class Background:
    """A run in another process. `path` is its run directory."""

    kind: Kind
    job: dict[str, Any]
    path: Path
    process: subprocess.Popen[bytes]

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
        """Start (or continue) searching a space, or retraining a genotype, and return at once.

        data, seed: as in `open_split`. The process's output goes to `output.txt` in the run directory.
        """
        kind: Kind = "search" if isinstance(what, SearchSpace) else "retrain"
        wanted = SearchSettings if kind == "search" else RetrainSettings
        if not isinstance(settings, wanted):
            raise ValueError(f"a {kind} needs {wanted.__name__}, got {type(settings).__name__}")
        subject = to_dict(what) if isinstance(what, SearchSpace) else json.loads(what.to_json())
        job = {"kind": kind, "what": subject, "settings": to_dict(settings), "data": data, "seed": seed}
        path = Path(runs_dir) / name
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / JOB, job)
        command = [sys.executable, "-c", f"from {__name__} import main; main()", str(path)]
        with open(path / "output.txt", "ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        print(f"{kind} {name!r} runs in process {process.pid}; read on")
        return cls(kind, job, path, process)

    def status(self) -> str:
        """One line: how far it is."""
        log = read_log(self.path)
        done = 1 + max((record["step"] for record in log), default=-1)
        total = self.job["settings"]["epochs"] * self.job["settings"]["steps"]
        state = "running" if self.process.poll() is None else f"ended with code {self.process.returncode}"
        return f"{self.kind}: step {done} of {total}, {state}"

    def wait(self, *, live: bool = True, every: float = 5.0) -> Any:
        """Wait until it is done, its curves growing in one output meanwhile; returns the run's result.

        live: False waits silently. Raises RuntimeError with the last lines of its output where it failed.
        """
        handle, shown = None, -1
        while self.process.poll() is None:
            try:
                self.process.wait(timeout=every if live else None)
            except subprocess.TimeoutExpired:
                log = read_log(self.path)
                epochs = sum(record["kind"] == "epoch" for record in log)
                if epochs > max(shown, 0):
                    shown, handle = epochs, self._show(log, handle)
        if self.process.returncode != 0:
            output = (self.path / "output.txt").read_text(errors="replace")
            raise RuntimeError(f"the {self.kind} in {self.path} failed:\n{output[-2000:]}")
        return self.result()

    def result(self) -> SearchResult | RetrainResult:
        """The finished run's result, read from its files."""
        return _run(self.job, self.path)

    def _show(self, log: list[dict[str, Any]], handle: Any) -> Any:
        from IPython.display import display

        figure = CURVES[self.kind](log)
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


def seconds(path: str | Path) -> float:
    """What a run directory says it took, over all its stretches."""
    return read_json(Path(path) / MANIFEST)["seconds"]


def main() -> None:
    """What the other process runs."""
    folder = Path(sys.argv[1])
    _run(read_json(folder / JOB), folder)
