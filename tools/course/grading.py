"""Handed-in notebooks, graded: the student's code and the judge share no process.

For each exercise a new process runs what the asked function needs (`worker`), behind walls where the system has them
(`fences`). The judge holds the checkers. It calls the function over a pipe (`wire`), and what it gets back are plain
values. So no code of a student can reach a checker, an answer or a verdict.

Marks are written as they come, and a grading that was cut goes on where it was.
"""

import ast
import contextlib
import csv
import hashlib
import html
import importlib
import inspect
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manas_course import checks
from manas_course.checks.base import Check
from tools.course import contents, fences, sources
from tools.course.contents import Notebook
from tools.course.wire import Ended, Peer

__all__ = ["HandIn", "Limits", "check_cells", "find", "grade", "grade_folder", "identify"]

COLUMNS = ("file", "exercise", "passed", "message", "student", "points", "possible", "sha256")
LARGEST = 256 * 2**20  # bytes of a notebook that is read, outputs included
TRAVELS = 64 * 2**20  # bytes of other files that a hand-in may bring
ANSWER = 64 * 2**20  # bytes that a function may return at once

PAGE = """<!doctype html><meta charset="utf-8"><title>{student}</title>
<style>
body {{ font: 16px sans-serif; margin: 2em }}
td, th {{ text-align: left; padding: .3em 1em; border-bottom: 1px solid #ccc }}
</style>
<h1>{student}</h1>
<p>{points} of {possible} points</p>
<table><tr><th>exercise<th>points<th>what was found
{lines}
</table>
"""

WARNING = "Grading runs other people's code. {walls} Each exercise is given {seconds} s of computing."
WALLS = "It runs behind the walls of {program}: no network, no files but its own copy."
NO_WALLS = (
    "This machine builds no walls (neither bwrap nor unshare works): the code runs with your rights, kept from files, "
    "the network and other programs by Python alone. Use an account or a container that holds nothing of worth."
)


@dataclass(frozen=True)
class Limits:
    """What an exercise may use."""

    seconds: int = 120
    """Seconds of computing. A wall clock stops it after five times as many, and at least 60 s, where it only waits."""

    bytes: int = 4 * 2**30
    """Memory."""

    file_bytes: int = 64 * 2**20
    """Size of a file that it writes."""

    folder_bytes: int = 256 * 2**20
    """Size of all files in its work folder, what the hand-in brought included."""

    processes: int = 256
    """Processes and threads at a time, behind walls, where the grader is not root: Linux counts none of root's. Without
    walls the limit would count the user's other ones too."""


@dataclass(frozen=True)
class HandIn:
    """A notebook as it was handed in, read before any code runs."""

    name: str
    """Its path below the folder."""

    student: str
    """Whose it is: the first folder on its path, or its own name where it lies in no folder."""

    sha256: str
    """Its hash."""

    notebook: Notebook | None
    """Which notebook of the course it is."""

    cells: tuple[tuple[str, str], ...]
    """Kind and source of each code cell; a kind is `exercise:NAME`, `check:NAME` or nothing."""

    fault: str = ""
    """Why it cannot be graded."""

    beside: Path | None = None
    """The folder whose other files go with it."""


def find(folder: Path) -> list[HandIn]:
    """Read every notebook below a folder; FileNotFoundError where there is none."""
    paths = sorted(
        path
        for path in folder.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts and not path.is_symlink() and path.is_file()
    )
    if not paths:
        raise FileNotFoundError(f"{folder} holds no .ipynb file")
    return [_read(path, folder) for path in paths]


def grade_folder(
    folder: Path,
    table: Path,
    limits: Limits = Limits(),
    *,
    feedback: Path | None = None,
    fence: fences.Fence | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Grade every notebook below a folder, and return how many there are.

    Args:
        folder: where they lie. A folder in it is a student's; a notebook beside these folders is a student of its name.
        table: the CSV to write, one row per exercise. Beside it, `NAME-students.csv` gets a row per student.
        limits: what an exercise may use.
        feedback: folder of a page per student; by default `NAME-feedback` beside the table.
        fence: the walls; by default the first that work here.
        say: takes a line per notebook.

    Raises:
        FileNotFoundError: where there is no notebook.
        ValueError: where the table holds marks that this command cannot have written.
    """
    fence = fences.find() if fence is None else fence
    handed_in = find(folder)
    kept = _kept(table, handed_in)
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = [row for each in handed_in for row in kept.get(each.name, [])]
    with open(table, "w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        for number, each in enumerate(handed_in, start=1):
            if each.name in kept:
                say(f"{number}/{len(handed_in)} {_printable(each.name)}: was graded")
                continue
            start, mine = time.monotonic(), []
            for check in _checks(each, limits, fence):
                mine.append(_row(each, check))
                writer.writerow(mine[-1])
                file.flush()
            rows += mine
            passed = sum(row["passed"] == "1" for row in mine)
            took = f"{time.monotonic() - start:.0f} s"
            say(f"{number}/{len(handed_in)} {_printable(each.name)}: {passed} of {len(mine)} passed, {took}")
    _write_students(table, rows)
    _write_feedback(feedback or table.with_name(f"{table.stem}-feedback"), rows)
    return len(handed_in)


def grade(path: Path, timeout: int = 120) -> list[Check]:
    """Return the checks of one file, each exercise given `timeout` seconds of computing."""
    return list(_checks(_read(path, path.parent), Limits(timeout), fences.find()))


def check_cells(
    notebook: Notebook, handed_in: Any, limits: Limits = Limits(), fence: fences.Fence = fences.NONE
) -> list[Check]:
    """Return a Check for each exercise of a notebook (nbformat), in the course's order."""
    cells = _cells(handed_in)
    return [judged(notebook, exercise, cells, limits, fence) for exercise in notebook.exercises]


def identify(handed_in: Any) -> Notebook:
    """Return which notebook of the course a file is, judged by its exercises."""
    theirs = {_exercise(cell) for cell in handed_in.cells if "exercise" in sources.tags(cell)}
    known = contents.notebooks()
    best = max(known, key=lambda notebook: len(theirs & set(notebook.exercises)))
    if not theirs & set(best.exercises):
        raise ValueError("no exercise of this course in the file: were the cells' tags lost?")
    return best


# --- one exercise ---


def judged(
    notebook: Notebook,
    exercise: str,
    cells: Sequence[tuple[str, str]],
    limits: Limits,
    fence: fences.Fence,
    beside: Path | None = None,
) -> Check:
    """Return the verdict on one exercise, whatever the cells hold.

    Args:
        notebook: the notebook that it stands in.
        exercise: its name.
        cells: kind and source of each code cell that was handed in.
        limits: what it may use.
        fence: the walls round the student's process.
        beside: a folder whose files go with it.
    """
    imports, function = _asked(notebook, exercise)
    lent = {name: _part(name) for name in notebook.lent.get(exercise, ())}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        work = folder / "work"
        _bring(beside, work)
        with _started(folder, work, limits, fence) as (process, peer):
            try:
                names = peer.call(0, function, exercise, [("", imports), *cells], lent)
                return getattr(checks, exercise)(_Proxy(peer, names))
            except Ended as error:
                why = str(error)
            except Exception as error:  # nothing was called yet: the cells define no function
                return Check(exercise, False, _line(str(error)))
        return Check(exercise, False, _end(process, why, limits, folder / "stderr"))


@contextlib.contextmanager
def _started(folder: Path, work: Path, limits: Limits, fence: fences.Fence) -> Iterator[tuple[Any, Peer]]:
    """Start a student's process, and end it with all that it started."""
    kit = folder / "kit"
    here = Path(__file__).parent
    (kit / "tools" / "course").mkdir(parents=True)
    for name in ("tools/__init__.py", "tools/course/__init__.py"):
        (kit / name).touch()
    for name in ("wire.py", "worker.py"):
        shutil.copyfile(here / name, kit / "tools" / "course" / name)
    shown = [*fences.visible(), str(kit)]
    given: dict[str, Any] = {"seconds": limits.seconds, "bytes": limits.bytes, "file_bytes": limits.file_bytes}
    given["processes"] = limits.processes if fence.program else 0
    given |= {"hidden": fences.hidden(), "visible": [*fences.SYSTEM, *shown], "guarded": True}
    program = f"import sys; sys.path.insert(0, {str(kit)!r}); from tools.course.worker import main; main()"
    environment = {
        "PATH": f"{os.defpath}:/usr/sbin:/sbin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    # -P and -s: else files beside a hand-in stand in for Python's own modules, and run before any limit is set.
    run = fence.command([sys.executable, "-P", "-s", "-c", program, json.dumps(given)], work, shown)
    with open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(
            run,
            cwd=work,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    process.spent = _spent()  # type: ignore[attr-defined]
    peer = Peer(process.stdout.fileno(), process.stdin.fileno(), most=ANSWER)
    peer.deadline = time.monotonic() + max(60, 5 * limits.seconds)
    peer.watch = lambda: _watch(work, limits)
    try:
        yield process, peer
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may just be ending by itself, and says how
            process.wait(0.5 if sys.exc_info()[0] is None else 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _end_others(str(kit))
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        process.wait()


def _watch(work: Path, limits: Limits) -> None:
    """End an exercise whose files have become too many: no limit of the system counts them together."""
    size = 0
    for folder, _, names in os.walk(work):
        for name in names:
            with contextlib.suppress(OSError):  # gone since
                size += os.lstat(os.path.join(folder, name)).st_blocks * 512 + 4096
        if size > limits.folder_bytes:
            raise Ended(f"wrote more than {limits.folder_bytes // 2**20} MB of files")


def _end_others(kit: str) -> None:
    """End processes that left the group: on Linux, each still shows the command of the one that it was forked from."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if kit.encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)


def _end(process: Any, why: str, limits: Limits, errors: Path) -> str:
    """Return in words why a process gave no answer."""
    if _spent() - process.spent > limits.seconds - 1 or process.returncode in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return f"took more than {limits.seconds} s of computing"
    if why == "out of time":
        return f"took more than {max(60, 5 * limits.seconds)} s, most of them waiting"
    if why != "the pipe is closed":
        return why
    with open(errors, "rb") as file:
        file.seek(max(0, errors.stat().st_size - 2000))
        said = file.read().decode(errors="replace").strip().splitlines()
    ended = f"the code ended its process (code {process.returncode}), and gave no answer"
    return _line(f"{ended}: {said[-1]}" if said else ended)


def _spent() -> float:
    """Return the seconds of computing of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Proxy:
    """A function that calls the student's, and does to its arguments what the student's did.

    Args:
        peer: the student's end of the pipe.
        names: the names of the function's arguments.
    """

    def __init__(self, peer: Peer, names: Any) -> None:
        self.peer = peer
        with contextlib.suppress(ValueError, TypeError):  # names that are none
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            self.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])

    def __call__(self, *args: Any) -> Any:
        answer, said, changed = self.peer.call(1, random.getrandbits(32), *args)
        print(str(said), end="")
        for place, value in changed:
            _write_back(args[place], value)
        return answer


def _write_back(mine: Any, value: Any) -> None:
    import torch

    if torch.is_tensor(mine):
        mine.data = value.detach().reshape(value.shape)
    elif isinstance(mine, np.ndarray):
        mine[...] = value
    elif isinstance(mine, list):
        mine[:] = value
    elif isinstance(mine, dict):
        mine.clear()
        mine.update(value)
    elif isinstance(mine, tuple):
        for part, new in zip(mine, value, strict=True):
            _write_back(part, new)
    elif isinstance(mine, np.random.Generator):
        mine.bit_generator.state = value.bit_generator.state


def _asked(notebook: Notebook, exercise: str) -> tuple[str, str]:
    """Return the course's imports, and the name of the function that an exercise asks for."""
    cells = sources.build(notebook, "student").cells
    imports = next(cell.source for cell in cells if "imports" in sources.tags(cell))
    check = next((cell.source for cell in cells if f"check:{exercise}" in sources.tags(cell)), None)
    if check is None:
        raise ValueError(f"{notebook.name}: the exercise {exercise!r} has no cell with the tag `check:{exercise}`")
    calls = [node.args[0] for node in ast.walk(ast.parse(check).body[-1]) if isinstance(node, ast.Call)]
    (function,) = [argument.id for argument in calls if isinstance(argument, ast.Name)]
    return imports, function


def _part(name: str) -> Any:
    """Return a part of the kit by its full name."""
    module, _, part = name.rpartition(".")
    return getattr(importlib.import_module(module), part)


def _bring(beside: Path | None, work: Path) -> None:
    """Copy the files of a hand-in into the folder that its code runs in: regular ones, no notebooks, up to a size."""
    work.mkdir()
    left = TRAVELS
    for path in sorted(beside.rglob("*")) if beside else []:
        if path.is_symlink() or not path.is_file() or path.suffix == ".ipynb":
            continue
        left -= path.stat().st_size
        if left < 0:
            return
        place = work / path.relative_to(beside or path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place, follow_symlinks=False)


# --- hand-ins ---


def _read(path: Path, folder: Path) -> HandIn:
    import nbformat

    relative = path.relative_to(folder)
    in_folder = len(relative.parts) > 1
    student = relative.parts[0] if in_folder else path.stem
    if path.stat().st_size > LARGEST:
        return HandIn(str(relative), student, "", None, (), f"the file has more than {LARGEST // 2**20} MB")
    data = path.read_bytes()
    try:
        read = nbformat.reads(data.decode("utf-8"), as_version=4)
        notebook, cells, fault = identify(read), _cells(read), ""
    except Exception as error:  # whatever stands in the file
        notebook, cells, fault = None, (), _line(str(error) or type(error).__name__)
    beside = path.parent if in_folder else None
    return HandIn(str(relative), student, hashlib.sha256(data).hexdigest()[:16], notebook, cells, fault, beside)


def _cells(handed_in: Any) -> tuple[tuple[str, str], ...]:
    found = []
    for cell in handed_in.cells:
        if cell.cell_type == "code":
            named = [tag for tag in sources.tags(cell) if str(tag).startswith(("exercise:", "check:"))]
            found.append((named[0] if named else "", str(cell.source)))
    return tuple(found)


def _checks(handed_in: HandIn, limits: Limits, fence: fences.Fence) -> Iterator[Check]:
    if handed_in.notebook is None:
        yield Check("all", False, handed_in.fault)
        return
    for exercise in handed_in.notebook.exercises:
        yield judged(handed_in.notebook, exercise, handed_in.cells, limits, fence, handed_in.beside)


def _exercise(cell: Any) -> str:
    """Return the name in the tag `exercise:NAME` or `check:NAME`, or an empty text."""
    names: Iterator[str] = (tag.partition(":")[2] for tag in sources.tags(cell) if ":" in tag)
    return next(names, "")


# --- tables and pages ---


def _row(handed_in: HandIn, check: Check) -> dict[str, str]:
    possible = handed_in.notebook.worth(check.exercise) if handed_in.notebook else 0.0
    message = _line(f"{check.message}{f' Hint: {check.hint}' if check.hint else ''}")
    cells = {
        "file": handed_in.name,
        "exercise": check.exercise,
        "passed": str(int(check.passed)),
        "message": message,
        "student": handed_in.student,
        "points": f"{possible if check.passed else 0.0:g}",
        "possible": f"{possible:g}",
        "sha256": handed_in.sha256,
    }
    return {name: _safe(text) for name, text in cells.items()}


def _safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠") else text


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _printable(text: str) -> str:
    """Return a text without the characters by which a terminal could be steered."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _kept(table: Path, handed_in: Sequence[HandIn]) -> dict[str, list[dict[str, str]]]:
    """Return the rows of an earlier, cut grading whose files are the same and whose exercises are all there."""
    if not table.is_file():
        return {}
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{table} is no table of this command: give --csv another name, or move it away")
        rows = list(reader)
    kept = {}
    for each in handed_in:
        mine = [row for row in rows if row["file"] == _safe(each.name)]
        wanted = list(each.notebook.exercises) if each.notebook else ["all"]
        if not mine or [row["exercise"] for row in mine] != wanted or any(r["sha256"] != each.sha256 for r in mine):
            continue
        for row in mine:
            possible = f"{each.notebook.worth(row['exercise']) if each.notebook else 0.0:g}"
            right = row["passed"] in ("0", "1") and row["possible"] == possible
            if not right or row["points"] != (possible if row["passed"] == "1" else "0"):
                raise ValueError(
                    f"{table}: {row['exercise']} of {row['file']} says {row['points']!r} of {row['possible']!r} points "
                    f"where {possible} are possible: remove the row, and it is graded again"
                )
        kept[each.name] = mine
    return kept


def _best(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, Mapping[str, str]]]:
    """Return the best row per student and exercise: who hands in twice is given no more than once."""
    students: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in rows:
        mine = students.setdefault(row["student"], {})
        if row["exercise"] not in mine or float(row["points"]) > float(mine[row["exercise"]]["points"]):
            mine[row["exercise"]] = row
    return students


def _write_students(table: Path, rows: Sequence[Mapping[str, str]]) -> None:
    worth = {row["exercise"]: float(row["possible"]) for row in rows if row["exercise"] != "all"}
    with open(
        table.with_name(f"{table.stem}-students.csv"), "w", newline="", encoding="utf-8", errors="replace"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(["student", *worth, "points", "possible"])
        for student, mine in sorted(_best(rows).items()):
            points = [float(mine[exercise]["points"]) if exercise in mine else 0.0 for exercise in worth]
            writer.writerow(
                [student, *(f"{each:g}" for each in points), f"{sum(points):g}", f"{sum(worth.values()):g}"]
            )


def _write_feedback(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a page per student; whatever stands in a message is shown as text."""
    folder.mkdir(parents=True, exist_ok=True)
    for student, mine in _best(rows).items():
        lines = []
        for row in mine.values():
            cells = (row["exercise"], f"{row['points']} / {row['possible']}", row["message"])
            lines.append("<tr>" + "".join(f"<td>{html.escape(text)}" for text in cells))
        sums = [sum(float(row[key]) for row in mine.values()) for key in ("points", "possible")]
        given = {"student": html.escape(student), "points": f"{sums[0]:g}", "possible": f"{sums[1]:g}"}
        page = PAGE.format(**given, lines="\n".join(lines))
        name = re.sub(r"[^\w.-]+", "_", student)[:80].strip(".") or "student"
        mark = "" if name == student else f"-{hashlib.sha256(student.encode(errors='replace')).hexdigest()[:6]}"
        (folder / f"{name}{mark}.html").write_text(page, encoding="utf-8", errors="replace")
