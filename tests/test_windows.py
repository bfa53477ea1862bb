"""What fails on Windows is not in the code: read from the syntax trees of all that users run, with what guards it.

A guard is an `if` that asks for the system or for the name itself, or a `try` that expects the name to be missing.
Nothing here runs on Windows: that is what the workflow `tests` is for.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from project import ROOT
from torch.utils.data import DataLoader

from manas_lite.data import open_split, scene_loader
from tools.course import __main__ as course

POSIX = ("tools/course/fences.py", "tools/course/grading.py", "tools/course/worker.py")
POSIX += ("scripts/demo_time.py", "scripts/mutants.py", "scripts/torture.py")
"""Programs for lecturers and authors that need processes as Linux and macOS have them."""
FOLDERS = ("manas_lite", "manas_course", "tools", "scripts", "data_scripts")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in SOURCES if path.relative_to(ROOT).as_posix() not in POSIX]

MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
MISSING = {
    "os": """fork forkpty getpgid getuid geteuid getgid getloadavg killpg mkfifo nice openpty register_at_fork
        sched_getaffinity sched_setaffinity setgid setpgid setpriority setsid setuid statvfs sysconf wait wait4
        WNOHANG O_NOFOLLOW O_DIRECTORY O_CLOEXEC uname chown lchown""".split(),  # noqa: SIM905
    "signal": """SIGALRM SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 SIGSTOP SIGTSTP SIGCONT SIGCHLD SIGXCPU alarm
        setitimer""".split(),  # noqa: SIM905
}
ASKS = re.compile(r"os\.name|sys\.platform|platform\.system|hasattr\(|getattr\(|is not None|LINUX|POSIX|WINDOWS")
PATH = re.compile(r"/(?:tmp|dev|proc|sys|usr|etc|var|home)(?:/|$)")
OPENS = {"open", "io.open", "os.fdopen", "tempfile.NamedTemporaryFile", "tempfile.TemporaryFile"}
ARCHIVES = {"tarfile", "zipfile", "gzip", "wave"}
MODE = re.compile(r"[rwxa][bt+]*")


def findings(text: str) -> Iterator[str]:
    """Yield what would fail on Windows, with its line."""
    tree = ast.parse(text)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        found, errors = None, "ImportError|ModuleNotFoundError|AttributeError"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found = next((f"module {name}" for name in names if name.split(".")[0] in MODULES), None)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            known = node.attr in MISSING.get(node.value.id, ())
            found = f"{node.value.id}.{node.attr}" if known else None
        elif is_text(node) and id(node) not in documents and PATH.match(node.value):
            found, errors = f"path {node.value!r}", "OSError"
        if found and not guarded(node, parents, errors):
            yield f"line {node.lineno}: {found}"
        if isinstance(node, ast.Call) and (wrong := call(node)):
            yield f"line {node.lineno}: {wrong}"


def guarded(node: ast.AST, parents: dict[ast.AST, ast.AST], errors: str) -> bool:
    """Return whether a node is reached only where it is known to work, or where its failure is expected."""
    while node in parents:
        inner, node = node, parents[node]
        caught = ""
        if isinstance(node, ast.If | ast.IfExp) and inner is not node.test and ASKS.search(ast.unparse(node.test)):
            return True
        if isinstance(node, ast.BoolOp) and any(ASKS.search(ast.unparse(value)) for value in node.values):
            return True
        if isinstance(node, ast.Try) and inner in node.body:
            caught = " ".join(ast.unparse(handler.type) for handler in node.handlers if handler.type)
        elif isinstance(node, ast.With) and inner in node.body:
            caught = " ".join(ast.unparse(item) for item in node.items if "suppress" in ast.unparse(item))
        if re.search(errors, caught):
            return True
        if isinstance(node, ast.FunctionDef):
            before = [each for each in node.body if each.lineno < inner.lineno and isinstance(each, ast.If)]
            leaves = [each for each in before if isinstance(each.body[-1], ast.Return | ast.Raise)]
            if any(ASKS.search(ast.unparse(each.test)) for each in leaves):
                return True
    return False


def call(node: ast.Call) -> str | None:
    """Return what is wrong with a call, or None."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    given = {keyword.arg for keyword in node.keywords}
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if ast.unparse(node.func) in OPENS and not name.endswith("TemporaryFile"):
        arguments = arguments[1:]  # without the file's own name
    inside = [each.value for argument in arguments for each in ast.walk(argument) if is_text(each)]
    modes = [value for value in inside if MODE.fullmatch(value)]
    if ast.unparse(node.func) in OPENS or (name == "open" and modes and owner not in ARCHIVES):
        temporary = name.endswith("TemporaryFile")  # these are binary unless told otherwise
        binary = all("b" in mode for mode in modes) if modes else temporary
        if not binary and "encoding" not in given:
            return f"{name}() without an encoding"
    if name == "read_text" and not node.args and "encoding" not in given:
        return "read_text() without an encoding"
    if name == "write_text" and len(node.args) < 2 and "encoding" not in given:
        return "write_text() without an encoding"
    if owner == "subprocess" and {"text", "universal_newlines"} & given and "encoding" not in given:
        return f"subprocess.{name}() reads text without an encoding"
    if name in {"rename", "renames"}:
        return f"{owner}.{name}() fails where the target exists: replace"
    if "preexec_fn" in given:
        return "preexec_fn"
    if name in {"get_context", "set_start_method"} and {"fork", "forkserver"} & set(inside):
        return f"{name}() of a way to start processes that Windows lacks"
    return None


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_windows_lacks_is_used_unguarded(path: Path) -> None:
    assert list(findings(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os\nos.fork()", 1),
        ("import os\nif os.name == 'posix':\n    os.fork()", 0),
        ("import os\nif hasattr(os, 'fork'):\n    os.fork()", 0),
        ("import os\nif os.fork():\n    pass", 1),
        ("import signal\nsignal.alarm(3)\nsignal.SIGTERM", 1),
        ("import signal\nkill = signal.SIGKILL if hasattr(signal, 'SIGKILL') else signal.SIGTERM", 0),
        ("import fcntl", 1),
        ("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None", 0),
        ("try:\n    import fcntl\nexcept OSError:\n    pass", 1),
        ("def f():\n    import sys\n    if sys.platform == 'win32':\n        return\n    import resource", 0),
        ("def f():\n    import resource\n    import sys\n    if sys.platform == 'win32':\n        return", 1),
        ("open('x')", 1),
        ("open('x', 'rb')", 0),
        ("open('x', 'ab' if old else 'wb')", 0),
        ("open('x', 'a' if old else 'wb')", 1),
        ("open('x', 'w', encoding='utf-8')", 0),
        ("path.open('w')", 1),
        ("tarfile.open('x', 'w')", 0),
        ("Image.open('photo.png')", 0),
        ("path.read_text()", 1),
        ("path.write_text('a', 'utf-8')", 0),
        ("import tempfile\ntempfile.TemporaryFile()", 0),
        ("import tempfile\ntempfile.TemporaryFile('w+')", 1),
        ("import subprocess\nsubprocess.run(['x'], text=True)", 1),
        ("import subprocess\nsubprocess.run(['x'], preexec_fn=f)", 1),
        ("import os\nos.rename(a, b)", 1),
        ("import os\nos.replace(a, b)", 0),
        ("open('/tmp/x', 'rb')", 1),
        ("with suppress(OSError):\n    open('/proc/cpuinfo', 'rb')", 0),
        ("def f():\n    '/tmp is told of here'", 0),
        ("multiprocessing.get_context('fork')", 1),
        ("multiprocessing.get_context('spawn')", 0),
    ],
)
def test_the_reading_finds_what_it_should(text: str, found: int) -> None:
    assert len(list(findings(text))) == found, list(findings(text))


def test_programs_for_posix_are_imported_by_none_at_the_top() -> None:
    """So that no other command fails on Windows because of them."""
    names = {Path(name).stem for name in POSIX if name.startswith("tools/")}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            imported = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            assert not imported & names, f"{path.name}: {imported & names}"


def test_grading_on_windows_says_where_it_can_be_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(course.sys, "platform", "win32")
    assert course.main(["grade", str(tmp_path), "--csv", str(tmp_path / "marks.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Linux" in line
    assert "WSL" in line


# --- processes that are spawned, as Windows and macOS start them ---


def numbers(loader: DataLoader) -> list[list[float]]:
    return [[float(part.sum()) for part in batch] for batch in loader]


@pytest.mark.slow
def test_batches_are_the_same_from_spawned_workers(tmp_path: Path) -> None:
    """A spawned worker has nothing but what was pickled for it, and starts with an interpreter of its own."""
    rng = np.random.default_rng(0)
    for kind in ("rainy", "clean"):
        (tmp_path / kind).mkdir()
    for k in range(8):
        clean = rng.integers(0, 200, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(clean).save(tmp_path / "clean" / f"{k}.png")
        Image.fromarray(clean + np.uint8(20)).save(tmp_path / "rainy" / f"{k}.png")
    split = open_split(tmp_path)
    alone, spawned = (
        scene_loader(split.train, batch=2, patch=16, steps=3, seed=5, workers=workers) for workers in (0, 2)
    )
    spawned.multiprocessing_context = "spawn"
    assert numbers(alone) == numbers(spawned)
