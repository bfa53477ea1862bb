"""One notebook, executed strictly, over papermill.

Unknown parameters and wrong types are refused before anything runs; each cell has a time limit; the executed copy is
kept whether the run succeeded or not; and a run that "succeeded" without doing its work has failed: no recorded
metric, no figure, no training step where there should be one, or an exercise whose solution does not pass.
"""

import base64
import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manas_course.checks.base import CHECK
from manas_course.jobs import HEADLESS
from manas_course.support import METRICS, device_name
from manas_lite.runs.arguments import import_file
from manas_lite.runs.record import write_json
from tools.course import sources
from tools.course.contents import Notebook, preset
from tools.course.parameters import SETTINGS, Parameter, arm_of, cast, gathered, read

__all__ = ["Outcome", "parameters_of", "prepare", "run", "settle"]

TIMEOUTS = {"smoke": 300, "teach": 7200}  # seconds a cell, by preset; none elsewhere
IMPORTS_AT = 3  # before the cell with the versions: title, facts and set-up stand above


@dataclass(frozen=True)
class Outcome:
    """The facts of a run."""

    notebook: str
    """Stem of the notebook."""

    preset: str
    """Name of the preset."""

    parameters: dict[str, Any]
    """The parameters that were set."""

    status: str
    """Either "done" or "failed"."""

    reason: str
    """Why it failed."""

    seconds: float
    """Time from the kernel's start to its end."""

    memory: int
    """Peak resident bytes of the kernel."""

    device: str
    """What it ran on."""

    copy: Path
    """The executed notebook."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """What the last cell recorded."""

    checks: dict[str, bool] = field(default_factory=dict)
    """Whether each exercise passed, by its name."""

    figures: int = 0
    """How many figures were shown."""

    cpu_seconds: float = 0.0
    """What its processes computed, the kernel's background ones included. On a machine that also does other things this
    is nearer to what a quiet one would take."""

    @property
    def done(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "done"


def parameters_of(notebook: Any) -> tuple[Parameter, ...]:
    """Return the parameters that a built notebook (nbformat) defines."""
    cells = [cell for cell in notebook.cells if "parameters" in sources.tags(cell)]
    if len(cells) != 1:
        raise ValueError(f"a notebook has one cell tagged `parameters`, this one has {len(cells)}")
    return read(cells[0].source)


def settle(
    notebook: Notebook, built: Any, preset_name: str, given: Mapping[str, Any], runs_dir: Path
) -> dict[str, Any]:
    """Return the parameters of a run: the preset's, then `given`, checked against the notebook's own."""
    known = parameters_of(built)
    standing = preset(preset_name, notebook)
    values = cast(known, {**standing, **gathered(known, given, standing)})
    defaults = {parameter.name: parameter.default for parameter in known}
    if SETTINGS in defaults:
        arm_of({**defaults, **values})  # refuses what a setting does not take
    if "runs_dir" in defaults:
        values.setdefault("runs_dir", str(runs_dir.resolve()))
    return values


def run(
    notebook: Notebook,
    *,
    preset: str = "teach",
    parameters: Mapping[str, Any] | None = None,
    out: str | Path = "runs/course",
    name: str | None = None,
    runs_dir: str | Path | None = None,
    timeout: int | None = None,
    version: sources.Version = "solution",
    imports: Sequence[str | Path] = (),
) -> Outcome:
    """Execute a notebook; write NAME.ipynb (also of a failed run) and NAME.json, the facts, into `out`.

    A run that is cut from outside (Ctrl-C) leaves a half copy and no facts.

    Args:
        notebook: which one.
        preset, parameters: see `settle`.
        out: folder of the copy and the facts.
        name: what both are called (default: the notebook's stem).
        runs_dir: what the notebook's parameter of that name is set to unless given. Default: `out`/runs/`preset`, as a
            run directory takes no other size's settings.
        timeout: seconds that a cell may take.
        version: solution or student.
        imports: Python files that are run first, here and in the kernel: they register parts of the user's own.

    Returns:
        The facts. A notebook that fails is an Outcome, not an exception.

    Raises:
        ValueError: for unknown parameters or wrong types.
        FileNotFoundError: where a file to import is missing.
    """
    import papermill

    folder = Path(out)
    built = sources.build(notebook, version)
    for file in imports:
        import_file(file)  # here too: what it registers is a setting that is checked before the kernel starts
    built.cells[IMPORTS_AT:IMPORTS_AT] = [_import_cell(file) for file in imports]
    values = settle(notebook, built, preset, parameters or {}, Path(runs_dir or folder / "runs" / preset))
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{name or notebook.stem}.ipynb"
    facts = copy.with_suffix(".json")
    facts.unlink(missing_ok=True)  # an earlier run's: were this one cut, they would speak for its half copy
    reason, began, computed = "", time.monotonic(), _children_seconds()
    with _environment():
        try:
            papermill.execute_notebook(
                built,
                str(copy),
                parameters=values,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(folder),
                execution_timeout=timeout or TIMEOUTS.get(preset),
                start_timeout=180,
            )
        except Exception as error:  # papermill's, nbclient's and the kernel's own: the copy shows what happened
            reason = _reason(error)
    seconds = (time.monotonic() - began, _children_seconds() - computed)
    outcome = _judge(notebook, preset, values, version, reason, seconds, copy)
    write_json(facts, asdict(outcome))
    return outcome


def _import_cell(file: str | Path) -> Any:
    """Return a cell that runs a file of the user's, as `--import` does."""
    from nbformat.v4 import new_code_cell

    path = str(Path(file).resolve())
    return new_code_cell(f"from manas_lite.runs.arguments import import_file\n\nimport_file({path!r})")


def prepare(notebook: Notebook, path: Path, *, preset: str, runs_dir: Path, stored: Any = None) -> None:
    """Write the solution version with its parameters injected and nothing run, for `pytest --nbval-lax`."""
    import papermill

    built = sources.build(notebook, "solution", stored=stored)
    values = settle(notebook, built, preset, {}, runs_dir)
    papermill.execute_notebook(built, str(path), parameters=values, kernel_name="python3", prepare_only=True)


def _children_seconds() -> float:
    """Return the CPU seconds of this process's ended children, and theirs; 0 on Windows, which does not tell."""
    times = os.times()
    return times.children_user + times.children_system


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set what the kernel inherits; put it back afterwards."""
    before = os.environ.get(HEADLESS)
    os.environ[HEADLESS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[HEADLESS]
        else:
            os.environ[HEADLESS] = before


def _judge(
    notebook: Notebook,
    preset: str,
    values: dict[str, Any],
    version: str,
    reason: str,
    seconds: tuple[float, float],
    copy: Path,
) -> Outcome:
    outputs = list(_outputs(copy))
    metrics: dict[str, Any] = next((o[METRICS] for o in reversed(outputs) if METRICS in o), {})
    checks = {o[CHECK]["exercise"]: o[CHECK]["passed"] for o in outputs if CHECK in o}
    figures = sum("image/png" in output for output in outputs)
    memory = metrics.pop("peak_memory", {}).get("resident_bytes", 0)
    if not reason:
        reason = "; ".join(_lacks(notebook, version, metrics, checks, figures))
    return Outcome(
        notebook=notebook.stem,
        preset=preset,
        parameters=values,
        status="failed" if reason else "done",
        reason=reason,
        seconds=round(seconds[0], 1),
        cpu_seconds=round(seconds[1], 1),
        memory=memory,
        device=device_name(),
        copy=copy,
        metrics=metrics,
        checks=checks,
        figures=figures,
    )


def _lacks(
    notebook: Notebook, version: str, metrics: Mapping[str, Any], checks: Mapping[str, bool], figures: int
) -> Iterator[str]:
    """Yield why a run that raised nothing has failed all the same."""
    if not metrics:
        yield "no metric was recorded: the last cell calls course.record_results(...)"
    if not figures:
        yield "no figure was shown"
    if notebook.trains and not metrics.get("steps"):
        yield "no training step was taken: the metric `steps` is missing or 0"
    if version == "solution":
        missing = [name for name in notebook.exercises if name not in checks]
        wrong = [name for name, passed in checks.items() if not passed]
        if missing:
            yield f"exercises without a check: {', '.join(missing)}"
        if wrong:
            yield f"solutions that do not pass: {', '.join(wrong)}"


def _outputs(copy: Path) -> Iterator[dict[str, Any]]:
    """Yield the mimebundles of an executed copy, in order."""
    import nbformat

    if not copy.is_file():
        return
    for cell in nbformat.read(copy, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "data" in output:
                yield dict(output["data"])


def pictures(copy: Path) -> list[bytes]:
    """Return the pictures that a run shows, in order, as the bytes of PNG files."""
    return [base64.b64decode(output["image/png"]) for output in _outputs(copy) if "image/png" in output]


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    name = getattr(error, "ename", None)
    if name:  # papermill's report of an exception in a cell
        return f"{name}: {getattr(error, 'evalue', '')}".strip()[:500]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:500]
