# ruff: noqa: E501 (hand-ins are quoted as they are)
"""Grading: cheats get nothing and are told, honest work counts, and nothing that a hand-in does harms another."""

import csv
import html
import linecache
import os
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manas_course import checks
from tools.course import contents, fences, grading, sources
from tools.course.__main__ import main
from tools.course.grading import Limits
from tools.course.wire import Ended, Peer

KNOWN = contents.notebooks()
NOTEBOOK = replace(KNOWN[0], exercises=KNOWN[0].exercises[:2])  # two are enough, however many it comes to have
FIRST, SECOND = NOTEBOOK.exercises
RIGHT = "def my_psnr(x, clean):\n    return 10 * np.log10(1 / np.mean((x - clean) ** 2))"
LIMITS = Limits()
HERE = fences.find()


@pytest.fixture(scope="module", autouse=True)
def two_exercises():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "notebooks", lambda: (NOTEBOOK, *KNOWN[1:]))
        yield


needs_walls = pytest.mark.skipif(not HERE.program, reason="neither bwrap nor unshare works here")


def answered(source: str, *, above: tuple[str, ...] = (), below: tuple[str, ...] = ()):
    """The solutions of notebook 00, with another answer to the first exercise, and cells above and below it."""
    built = sources.build(NOTEBOOK, "solution")
    place = next(k for k, cell in enumerate(built.cells) if f"exercise:{FIRST}" in sources.tags(cell))
    built.cells[place].source = source
    for text in reversed(above):
        built.cells.insert(place, nbformat.v4.new_code_cell(text))
    for text in below:
        built.cells.append(nbformat.v4.new_code_cell(text))
    return built


def first(source: str, fence: fences.Fence = fences.NONE, limits: Limits = LIMITS, **cells) -> checks.Check:
    """The verdict on an answer to the first exercise."""
    return grading.judged(NOTEBOOK, FIRST, grading._cells(answered(source, **cells)), limits, fence)


def hand_in(path: Path, source: str = RIGHT, **cells) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(answered(source, **cells), path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- cheats ---

ZERO = "\ndef my_psnr(x, clean):\n    return 0.0"
SOLUTION = contents.folder() / "sources" / f"{NOTEBOOK.stem}.py"
CHEATS = {
    "a checker replaced": (
        "from manas_course import checks\nsetattr(checks, 'psnr_rgb', lambda f: checks.Check('psnr_rgb', True, ''))"
        + ZERO,
        "expected another",
    ),
    "a checker replaced while it runs": (
        "import sys\ndef my_psnr(x, clean):\n    for m in list(sys.modules.values()):\n"
        "        if hasattr(m, 'expect'):\n            m.expect = lambda *a: None\n    return 0.0",
        "expected another",
    ),
    "a verdict written": (
        "import os, sys\ndef my_psnr(x, clean):\n    for name in [*sys.argv, 'checks.json']:\n        if name:\n"
        '            open(name, \'w\').write(\'[{"exercise": "psnr_rgb", "passed": true}]\')\n    os._exit(0)',
        "gave no answer",
    ),
    "the process ended": ("import os\ndef my_psnr(x, clean):\n    os._exit(0)", "gave no answer"),
    "a verdict sent": (
        "import os\ndef my_psnr(x, clean):\n    for fd in range(3, 12):\n        try:\n"
        "            os.write(fd, b'{\"passed\": true}' * 9)\n        except OSError:\n            pass\n    return 0.0",
        "",
    ),
    "messages of the judge's own form": (
        "import json, os, struct\ndef my_psnr(x, clean):\n"
        "    text = json.dumps([{'do': 'return'}, ['l', [True, 'PASSED', ['l', []]]]]).encode()\n"
        "    for fd in range(3, 12):\n        try:\n            os.write(fd, struct.pack('>II', len(text), 0) + text)\n"
        "        except OSError:\n            pass\n    return True",
        "",
    ),
    "the kit's own function": (
        "from manas_lite.metrics import psnr\ndef my_psnr(x, clean):\n    return psnr(x, clean)",
        "kit's own",
    ),
    "the kit's own function, its name put together": (
        "import importlib\ndef my_psnr(x, clean):\n    return importlib.import_module('manas_' + 'lite.metrics').psnr(x, clean)",
        "kit's own",
    ),
    "the kit's own function, from the imports cell": (
        "def my_psnr(x, clean):\n    return metrics.psnr(to_tensor(x), to_tensor(clean))",
        "kit's own",
    ),
    "the kit looked for on the disk": (
        f"import sys\nsys.path.insert(0, {str(contents.folder().parent)!r})\nsys.meta_path[:] = sys.meta_path[1:]\n"
        "from manas_lite.metrics import psnr\ndef my_psnr(x, clean):\n    return psnr(x, clean)",
        "",
    ),
    "the solution read": (
        f"def my_psnr(x, clean):\n    scope = {{'np': np}}\n    text = open({str(SOLUTION)!r}).read()\n"
        "    exec(text[text.index('def my_psnr'):text.index('# END')], scope)\n    return scope['my_psnr'](x, clean)",
        "",
    ),
    "an object equal to everything": (
        "class Any(float):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0.0\n"
        "    __rsub__ = __sub__\n    def __abs__(self): return 0.0\ndef my_psnr(x, clean):\n    return Any(0)",
        "expected another",
    ),
    "a text that is no number": ("def my_psnr(x, clean):\n    return 'PASSED'", "str"),
    "an object with code in its pickle": (
        "class Bomb:\n    def __reduce__(self): return (print, ('boom',))\ndef my_psnr(x, clean):\n    return Bomb()",
        "Bomb",
    ),
    "not a number": ("def my_psnr(x, clean):\n    return float('nan')", ""),
    "more than an answer can need": ("def my_psnr(x, clean):\n    return np.zeros(2 * 10**7)", "more is sent"),
    "a list in a list in a list": (
        "def my_psnr(x, clean):\n    y = []\n    for _ in range(10**5):\n        y = [y]\n    return y",
        "RecursionError",
    ),
    "a list that is endless": ("import itertools\ndef my_psnr(x, clean):\n    return itertools.count()", ""),
    "an error with the checker's name": (
        "class Misconception(Exception): pass\ndef my_psnr(x, clean):\n    raise Misconception('passed')",
        "Misconception",
    ),
    "the interpreter left": ("import sys\ndef my_psnr(x, clean):\n    sys.exit(0)", "SystemExit"),
    "generators foretold": (
        "import random\nrandom.getrandbits = lambda n: 0\nnp.random.seed = lambda s: None" + ZERO,
        "expected another",
    ),
    "another program": (
        "import subprocess\ndef my_psnr(x, clean):\n    return float(subprocess.run(['echo', '1'], capture_output=True).stdout)",
        "grading starts no other program",
    ),
    "the network": (
        "import socket\ndef my_psnr(x, clean):\n    socket.create_connection(('127.0.0.1', 9))\n    return 0.0",
        "grading has no network",
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "endless" in n else ()) for n in CHEATS])
def test_a_cheat_gets_nothing_and_is_told(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    source, said = CHEATS[name]
    found = first(source, limits=Limits(seconds=8, bytes=2**30))
    assert not found.passed, found
    assert said in found.message, found
    assert "boom" not in capfd.readouterr().out


@needs_walls
@pytest.mark.slow
@pytest.mark.parametrize("program", ["bwrap", "unshare"])
@pytest.mark.parametrize("name", [n for n in CHEATS if any(w in n for w in ("kit", "solution", "network", "program"))])
def test_walls_keep_in_what_goes_round_python(name: str, program: str) -> None:
    """The audit hook is switched off by hand, as code in C could: the walls alone must hold."""
    fence = fences.Fence(program)
    if not fences._works(fence):
        pytest.skip(f"{program} does not work here")
    found = first(CHEATS[name][0], fence)
    assert not found.passed, found


REACH = """\
import ctypes, os
C = ctypes.CDLL(None, use_errno=True)
def my_psnr(x, clean):
    fd = C.open(PATH.encode(), os.O_RDWR)
    raise ValueError("OPENED" if fd >= 0 else "closed")
"""


@needs_walls
@pytest.mark.parametrize("program", ["bwrap", "unshare"])
def test_files_elsewhere_are_not_there_for_the_systems_own_calls(program: str, tmp_path: Path) -> None:
    fence = fences.Fence(program)
    if not fences._works(fence):
        pytest.skip(f"{program} does not work here")
    (tmp_path / "other.ipynb").write_text("{}")
    for path in (tmp_path / "other.ipynb", SOLUTION, Path(checks.__file__)):
        assert path.is_file()
        found = first(f"PATH = {str(path)!r}\n{REACH}", fence)
        assert "closed" in found.message, found
    own = first(f"PATH = 'mine'\nopen('mine', 'w').close()\nmine = PATH\n{REACH}".replace("\nmine", "\nPATH"), fence)
    assert "closed" in own.message  # a line that nothing needs is not run
    own = first(f"with open('mine', 'w') as file:\n    PATH = file.name\n{REACH}", fence)
    assert "OPENED" in own.message  # its own folder is open


@pytest.mark.slow
def test_an_endless_loop_costs_its_exercise_alone(tmp_path: Path) -> None:
    hand_in(tmp_path / "cat.ipynb", "def my_psnr(x, clean):\n    while True:\n        pass")
    slow, other = grading.grade(tmp_path / "cat.ipynb", timeout=3)
    assert "took more than 3 s" in slow.message
    assert other.passed
    top = first("while True:\n    my_psnr = 1", limits=Limits(seconds=2))
    assert "took more than 2 s" in top.message


def test_memory_has_a_limit() -> None:
    hog = "def my_psnr(x, clean):\n    parts = [np.ones(2**24) for _ in range(40)]\n    return len(parts)"
    found = first(hog, limits=Limits(bytes=2**30))
    assert not found.passed
    assert "MemoryError" in found.message or "allocate" in found.message


def test_a_file_has_a_largest_size() -> None:
    found = first("def my_psnr(x, clean):\n    open('big', 'wb').write(bytes(2**20))", limits=Limits(file_bytes=2**16))
    assert not found.passed
    assert "OSError" in found.message


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at Linux's list of processes")
@pytest.mark.parametrize("leave", ["pass", "os.setsid()"])
def test_what_a_hand_in_started_is_ended_with_it(leave: str) -> None:
    """A process started past Python, in the student's group of processes or in one of its own."""
    fork = "import ctypes, os, time\ndef my_psnr(x, clean):\n    if ctypes.CDLL(None).fork() == 0:\n"
    fork += f"        {leave}\n        time.sleep(600)\n    raise ValueError('started')"
    seconds = 7171 if leave == "pass" else 7172  # stands in the command of the student's process
    found = first(fork, limits=Limits(seconds=seconds))
    assert "started" in found.message
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(f'"seconds": {seconds}'.encode() in command for command in commands)


# --- cheats by files that come with a hand-in, and hand-ins that harm the machine ---

STEAL = f"""
import builtins, os
try:
    text = open({str(SOLUTION)!r}).read()
    builtins.stolen = text[text.index('def my_psnr'):text.index('# END')]
except Exception as error:
    builtins.stolen = f'raise LookupError({{str(error)!r}})'
"""
USE = "def my_psnr(x, clean):\n    import builtins\n    scope = {'np': np}\n    exec(builtins.stolen, scope)\n    return scope['my_psnr'](x, clean)"
PYTHON = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PLANTED = {
    "a module that the worker imports": ("linecache.py", Path(linecache.__file__).read_text() + STEAL),
    "a module that sets the limits": ("resource.py", STEAL),
    "a line for Python's start": (f"{PYTHON}/planted.pth", f"import builtins; exec({STEAL!r})\n"),
    "a module for Python's start": ("usercustomize.py", STEAL),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_file_beside_a_hand_in_stands_for_nothing_of_pythons_own(name: str, tmp_path: Path) -> None:
    """Such a file would run before the limits are set, and before files elsewhere are closed."""
    place, text = PLANTED[name]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(text)
    found = grading.judged(NOTEBOOK, FIRST, grading._cells(answered(USE)), LIMITS, fences.NONE, tmp_path)
    assert not found.passed
    assert "stolen" in found.message  # the attribute is not there: the planted file was not run
    right = grading.judged(NOTEBOOK, FIRST, grading._cells(answered(RIGHT)), LIMITS, fences.NONE, tmp_path)
    assert right.passed, right  # and an honest student who has such a file loses nothing


@pytest.mark.slow
def test_many_files_have_a_largest_size_together() -> None:
    fill = "import time\ndef my_psnr(x, clean):\n    for k in range(10**6):\n        open(f'{k}', 'wb').write(bytes(2**20)); time.sleep(0.1)"
    found = first(fill, limits=Limits(seconds=60, folder_bytes=2**23))
    assert "wrote more than 8 MB of files" in found.message


@needs_walls
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() == 0, reason="Linux counts the processes of everybody but root")
@pytest.mark.parametrize("program", ["bwrap", "unshare"])
def test_processes_behind_walls_are_counted(program: str) -> None:
    fence = fences.Fence(program)
    if not fences._works(fence):
        pytest.skip(f"{program} does not work here")
    forks = "import ctypes, time\ndef my_psnr(x, clean):\n    C = ctypes.CDLL(None)\n    for k in range(200):\n        pid = C.fork()\n        if pid == 0:\n            time.sleep(60)\n            C._exit(0)\n        if pid < 0:\n            raise ValueError(f'{k} started')\n    raise ValueError('all started')"
    found = first(forks, fence, Limits(processes=40))
    assert "all started" not in found.message
    assert " started" in found.message


# --- honest work ---

HONEST = {
    "as asked": {"source": RIGHT},
    "a helper in another cell": {
        "source": "def my_psnr(x, clean):\n    return decibels(mean_square(x - clean))",
        "above": (
            "import math",
            "def mean_square(d):\n    return np.mean(d ** 2)",
            "decibels = lambda m: -10 * math.log10(m)",
        ),
    },
    "a helper in a cell below": {
        "source": "def my_psnr(x, clean):\n    return helper(x, clean)",
        "below": ("from math import log10\ndef helper(x, clean):\n    return -10 * log10(np.mean((x - clean) ** 2))",),
    },
    "a try that fails": {"source": RIGHT + "\nprint(my_psnr(never_defined, 1))\nassert False"},
    "a cell that fails above": {
        "source": RIGHT,
        "above": ("1 / 0", "raise SystemExit", "while True: break", "x = = 3"),
    },
    "a cell that never ends above": {"source": RIGHT, "above": ("while True:\n    other = 1",)},
    "timed": {"source": "%%time\n" + RIGHT},
    "a magic in a magic": {"source": "%%capture\n%matplotlib inline\n" + RIGHT},
    "a shell line": {"source": "!nvidia-smi\nfiles = !ls\n" + RIGHT},
    "no magic at all": {"source": "x = (7\n%2)\n" + RIGHT},
    "a file written by a magic": {
        "source": "from mine import decibels\ndef my_psnr(x, clean):\n    return decibels(x - clean)",
        "above": (
            "%%writefile mine.py\nimport numpy as np\ndef decibels(d):\n    return -10 * np.log10(np.mean(d ** 2))",
        ),
    },
    "a lambda": {"source": "my_psnr = lambda x, clean: -10 * np.log10(np.mean((x - clean) ** 2))"},
    "a decorated function": {
        "source": "@noisy\n" + RIGHT,
        "above": (
            "import functools\ndef noisy(f):\n    @functools.wraps(f)\n    def g(*a):\n        return f(*a)\n    return g",
        ),
    },
    "a constant made by a loop": {
        "source": "def my_psnr(x, clean):\n    return SCALE['db'] * np.log10(np.mean((x - clean) ** 2))",
        "above": ("SCALE = {}\nfor name in ['db']:\n    SCALE[name] = -10", "SCALE.update(other=1)"),
    },
    "everything imported": {
        "source": "def my_psnr(x, clean):\n    return -10 * log10(np.mean((x - clean) ** 2))",
        "above": ("from math import *",),
    },
    "the imports changed": {
        "source": "def my_psnr(x, clean):\n    return float(-10 * npy.log10(npy.mean((x - clean) ** 2)))",
        "above": ("import numpy as npy",),
    },
    "torch in float32": {
        "source": "def my_psnr(x, clean):\n    d = torch.tensor(x - clean, dtype=torch.float32)\n    return -10 * torch.log10((d ** 2).mean())",
        "above": ("import torch",),
    },
    "a class": {
        "source": "class P:\n    def __call__(self, x, clean):\n        return -10 * np.log10(np.mean((x - clean) ** 2))\nmy_psnr = P()",
    },
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_counts(name: str) -> None:
    found = first(**HONEST[name], limits=Limits(seconds=20))
    assert found.passed, found


def test_an_answer_in_a_cell_of_its_own_counts() -> None:
    """Between the blank and its check, as one who keeps the blank would write it."""
    built = answered("def my_psnr(x, clean):\n    raise NotImplementedError")
    place = next(k for k, cell in enumerate(built.cells) if f"check:{FIRST}" in sources.tags(cell))
    built.cells.insert(place, nbformat.v4.new_code_cell(RIGHT))
    assert grading.judged(NOTEBOOK, FIRST, grading._cells(built), Limits(), fences.NONE).passed


def test_a_cell_that_raises_or_is_missing_fails_alone() -> None:
    built = answered("1 / 0")
    found, second = grading.check_cells(NOTEBOOK, built)
    assert "ZeroDivisionError" in found.message
    assert second.passed
    built.cells = [cell for cell in built.cells if f"exercise:{SECOND}" not in sources.tags(cell)]
    assert "missing" in grading.check_cells(NOTEBOOK, built)[1].message


@pytest.mark.parametrize("end", ["sys.exit()", "print('{', end=''); sys.exit()"])
def test_leaving_python_fails_alone_too(end: str) -> None:
    for source in (f"import sys\n{end}", f"import sys\n\n\ndef my_psnr(x, clean):\n    {end}"):
        found, second = grading.check_cells(NOTEBOOK, answered(source))
        assert "SystemExit" in found.message
        assert second.passed


def test_a_function_of_another_name_fails_alone() -> None:
    found, second = grading.check_cells(NOTEBOOK, answered(RIGHT.replace("def my_psnr", "def psnr")))
    assert found.message == "name 'my_psnr' is not defined"
    assert second.passed


def test_an_error_is_told_with_its_line_and_with_what_failed_before() -> None:
    found = first("def my_psnr(x, clean):\n    return scale * 2", above=("scale = 1 / 0",))
    assert "name 'scale' is not defined" in found.message
    assert "ZeroDivisionError" in found.message
    assert "scale * 2" in found.message


def test_an_exercise_split_over_two_cells_is_one() -> None:
    built = sources.build(NOTEBOOK, "solution")
    place = next(k for k, cell in enumerate(built.cells) if "exercise" in sources.tags(cell))
    whole = built.cells[place]
    half = nbformat.v4.new_code_cell("%%time\nhelper = 1", metadata=whole.metadata)
    built.cells.insert(place + 1, half)
    assert all(check.passed for check in grading.check_cells(NOTEBOOK, built))
    whole.source, half.source = half.source, whole.source
    assert all(check.passed for check in grading.check_cells(NOTEBOOK, built))


def test_an_argument_that_is_changed_is_seen_by_the_checker() -> None:
    found = first("def my_psnr(x, clean):\n    x -= clean\n    return -10 * np.log10(np.mean(x ** 2))")
    assert not found.passed
    assert "changes its argument `x`" in found.message


# --- folders, tables and pages ---


def test_a_folder_becomes_tables_and_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "handed"
    hand_in(folder / "ann.ipynb")
    hand_in(folder / "bob" / "work.ipynb", "def my_psnr(x, clean):\n    raise ValueError('<script>alert(1)</script>')")
    (folder / "bob" / "help.py").write_text("answer = 42\n")
    hand_in(folder / "=cmd|' !A1" / "late.ipynb", "def my_psnr(x, clean):\n    return 0.0")
    (folder / "dan.ipynb").write_text("no notebook")
    (folder / "link.ipynb").symlink_to("/etc/hostname")
    assert main(["grade", str(folder), "--csv", str(tmp_path / "grades.csv"), "--timeout", "60"]) == 0
    said = capsys.readouterr().err
    assert "other people's code" in said
    assert "2 of 2 passed" in said
    rows = rows_of(tmp_path / "grades.csv")
    passed = {(row["student"], row["exercise"]): row["passed"] for row in rows}
    assert passed == {
        ("ann", FIRST): "1",
        ("ann", SECOND): "1",
        ("bob", FIRST): "0",
        ("bob", SECOND): "1",
        ("'=cmd|' !A1", FIRST): "0",
        ("'=cmd|' !A1", SECOND): "1",
        ("dan", "all"): "0",
    }
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    sums = {row["student"]: (row["points"], row["possible"]) for row in rows_of(tmp_path / "grades-students.csv")}
    assert sums == {"ann": ("2", "2"), "bob": ("1", "2"), "'=cmd|' !A1": ("1", "2"), "dan": ("0", "2")}
    page = (tmp_path / "grades-feedback" / "bob.html").read_text()
    assert html.escape("<script>") in page
    assert "<script>" not in page
    assert len(list((tmp_path / "grades-feedback").iterdir())) == 4


def test_files_beside_a_hand_in_go_with_it_and_stay_as_they_are(tmp_path: Path) -> None:
    spoils = "from help import decibels\nopen('help.py', 'w').write('spoilt')\ndef my_psnr(x, clean):\n    open('help.py', 'w').write('spoilt')\n    return decibels(x - clean)"
    hand_in(tmp_path / "ann" / "work.ipynb", spoils)
    hand_in(tmp_path / "bob" / "work.ipynb", spoils)
    text = "import numpy as np\ndef decibels(d):\n    return -10 * np.log10(np.mean(d ** 2))\n"
    (tmp_path / "ann" / "help.py").write_text(text)
    grading.grade_folder(tmp_path, tmp_path / "out" / "grades.csv", fence=fences.NONE)
    passed = {
        row["student"]: row["passed"] for row in rows_of(tmp_path / "out" / "grades.csv") if row["exercise"] == FIRST
    }
    assert passed == {"ann": "1", "bob": "0"}  # bob has no such file, and sees none of ann's
    assert (tmp_path / "ann" / "help.py").read_text() == text


def test_a_cut_grading_goes_on_and_grades_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "grades.csv"
    for name in ("ann", "bob", "cat"):
        hand_in(tmp_path / "in" / f"{name}.ipynb")
    asked = []

    def judged(notebook, exercise, cells, limits, fence, beside=None):
        asked.append(exercise)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return checks.Check(exercise, True, "well")

    monkeypatch.setattr(grading, "judged", judged)
    with pytest.raises(KeyboardInterrupt):
        grading.grade_folder(tmp_path / "in", table, fence=fences.NONE)
    assert len(rows_of(table)) == 3  # written as they came
    said: list[str] = []
    grading.grade_folder(tmp_path / "in", table, fence=fences.NONE, say=said.append)
    assert len(asked) == 4 + 4
    assert "was graded" in said[0]
    assert [(row["file"], row["exercise"]) for row in rows_of(table)] == [
        (f"{name}.ipynb", exercise) for name in ("ann", "bob", "cat") for exercise in (FIRST, SECOND)
    ]
    hand_in(tmp_path / "in" / "ann.ipynb", "def my_psnr(x, clean):\n    return 1")
    grading.grade_folder(tmp_path / "in", table, fence=fences.NONE)
    assert len(asked) == 8 + 2  # a changed file alone


@pytest.mark.parametrize(
    ("column", "value"), [("points", "1000"), ("passed", "7"), ("possible", "50"), ("points", "nan")]
)
def test_marks_beyond_the_possible_are_refused(
    column: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_in(tmp_path / "in" / "ann.ipynb")
    monkeypatch.setattr(grading, "judged", lambda notebook, exercise, *_: checks.Check(exercise, True, "well"))
    table = tmp_path / "grades.csv"
    grading.grade_folder(tmp_path / "in", table, fence=fences.NONE)
    rows = rows_of(table)
    rows[0][column] = value
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, grading.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assert main(["grade", str(tmp_path / "in"), "--csv", str(table)]) == 2
    assert "possible" in capsys.readouterr().err
    table.write_text("name,salary\nann,3\n")
    assert main(["grade", str(tmp_path / "in"), "--csv", str(table)]) == 2
    assert table.read_text() == "name,salary\nann,3\n"  # another table is not written over


def test_a_message_that_is_no_text_gets_into_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_in(tmp_path / "gil.ipynb")
    monkeypatch.setattr(grading, "judged", lambda notebook, exercise, *_: checks.Check(exercise, False, "lone \ud800"))
    assert grading.grade_folder(tmp_path, tmp_path / "grades.csv", fence=fences.NONE) == 1
    assert "lone ?" in (tmp_path / "grades.csv").read_text(encoding="utf-8")


@given(st.text(max_size=30))
def test_no_cell_of_the_table_is_a_formula(text: str) -> None:
    assert grading._safe(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")


def test_an_empty_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "grades.csv")]) == 2
    assert "holds no .ipynb" in capsys.readouterr().err


def test_points_are_those_of_the_course() -> None:
    assert all(set(notebook.points) <= set(notebook.exercises) for notebook in contents.notebooks())
    assert all(set(notebook.lent) <= set(notebook.exercises) for notebook in contents.notebooks())
    assert all(notebook.worth(name) > 0 for notebook in contents.notebooks() for name in notebook.exercises)


# --- the pipe ---


def pair() -> tuple[Peer, Peer]:
    (a, b), (c, d) = os.pipe(), os.pipe()
    return Peer(a, d, most=2**20), Peer(c, b, trusting=True)


NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
)
VALUES = st.recursive(NUMBERS, lambda x: st.lists(x) | st.tuples(x, x) | st.dictionaries(st.text(), x), max_leaves=8)


@given(VALUES)
@settings(max_examples=60)
def test_plain_values_cross_the_pipe_as_they_are(value) -> None:
    judge, student = pair()
    raw: list[bytes] = []
    assert judge._decode(student._encode(value, raw), raw, None) == value
    for peer in (judge, student):
        os.close(peer.reads)
        os.close(peer.writes)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3)[:, ::-1],
        np.float32(2.5),
        np.array(["a", "bc"]),
        np.array(3.0),
        np.zeros((0, 3)),
        torch.arange(6.0).reshape(2, 3).T,
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.zeros(0, 2),
        torch.tensor([True, False]),
    ],
    ids=str,
)
def test_arrays_and_tensors_cross_with_type_and_shape(value) -> None:
    judge, student = pair()
    raw: list[bytes] = []
    found = judge._decode(student._encode(value, raw), raw, None)
    assert type(found) is type(value)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert (found == value).all()


BAD = [
    b"",
    b"\xff" * 8,
    b"\x00\x00\x00\x02\x00\x00\x00\x00[]",
    b"\x00\x00\x00\x05\x00\x00\x00\x00[1,2]",
    b"\x00\x00\x00\x04\x00\x00\x00\x01" + b"\xff" * 8 + b"[{}]",
    b"\x00\x00\x00\x14\x00\x00\x00\x00" + b'[{"do":"call"},null]',
    b"\x00\x00\xff\xff\x00\x00\x00\x00" + b"[" * 0x7FFF,
]


@given(st.one_of(st.sampled_from(BAD), st.binary(max_size=60)))
def test_whatever_is_sent_the_judge_ends_the_exercise(data: bytes) -> None:
    (a, b), (c, d) = os.pipe(), os.pipe()
    judge = Peer(a, d, most=2**16)
    try:
        os.write(b, data)
        os.close(b)
        with pytest.raises(Ended):
            judge._answer([])
    finally:
        for each in (a, c, d):
            os.close(each)


@pytest.mark.parametrize(
    "body",
    [["k", 0], ["c", 0, "print"], ["o", "Table", []], ["a", "O", [1], 0], ["T", "load", [1], 0, None], ["T", "float32", [99], 0, None],
     ["r", "os", None], ["a", "<f8", [-1, 7], 0], ["i", "zz"], ["?"], [], 3],
)  # fmt: skip
def test_the_judge_reads_plain_values_alone(body) -> None:
    judge, _ = pair()
    with pytest.raises(TypeError):
        judge._decode(body, [b"12345678"], None)


def test_a_gradient_crosses_the_pipe() -> None:
    source = "import torch\ndef my_entropy(x):\n    return (x ** 3).sum()"
    cells = [("exercise:binary_entropy", source)]
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with grading.tempfile.TemporaryDirectory() as made:
        work = Path(made) / "work"
        work.mkdir()
        with grading._started(Path(made), work, Limits(), fences.NONE) as (_, peer):
            names = peer.call(0, "my_entropy", "binary_entropy", cells, {})
            value = grading._Proxy(peer, names)(x * 2)
            (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == 8 + 64
    assert gradient.tolist() == [24.0, 96.0]  # 3 (2x)^2 * 2
