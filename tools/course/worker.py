"""The process that a student's code runs in: one for each exercise. It holds no checker, no answer and no verdict.

It takes the cells of a hand-in and runs those statements that the asked function needs, wherever they stand. Then it
calls the function whenever the judge asks for it. What the function returns, prints, raises and changes goes back.

This file imports nothing of the kit, because the kit cannot be seen here.
"""

import ast
import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import linecache
import os
import random
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tools.course.wire import Ended, Peer

__all__ = ["main"]

KIT = ("manas_lite", "manas_course", "tools")
PRINTED = 10_000  # characters of printed text that a call sends back
OTHER_LANGUAGES = {"bash", "sh", "script", "html", "javascript", "js", "latex", "markdown", "svg", "perl", "ruby"}


def main() -> None:
    """Answer the judge over what were standard input and output; see `Student` for what it may ask."""
    reads, writes = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    given = json.loads(sys.argv[1])
    work = os.getcwd()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
        del sys.modules[name]
    sys.argv = [""]
    _limit(given)
    peer = Peer(reads, writes, trusting=True)
    student = Student(work)
    peer.offer(student.load)
    peer.offer(student.attempt)
    if given["guarded"]:
        _guard([work, *given["visible"]], given["hidden"])
    # Last of all: a file beside the hand-in may have the name of a module that the lines above import.
    sys.path[:] = [work, *(path for path in sys.path if path not in given["hidden"])]
    with contextlib.suppress(Ended):
        peer.serve()


class Student:
    """A student's function, and the cells that it comes from.

    Args:
        work: the folder that the code runs in.
    """

    def __init__(self, work: str) -> None:
        self.work = work
        self.module = types.ModuleType("__main__")
        self.scope = self.module.__dict__
        self.scope["get_ipython"] = lambda: Shell(self.scope)
        self.function: Any = None
        self.troubles: list[tuple[int, BaseException]] = []

    def load(self, name: str, exercise: str, cells: Sequence[Sequence[Any]], lent: Mapping[str, Any]) -> list[str]:
        """Run what a function needs, and return the names of its arguments.

        Args:
            name: the function's name.
            exercise: the exercise's name.
            cells: kind and source of each cell, in order. A kind is "exercise:NAME", "check:NAME" or nothing.
            lent: the parts of the kit that the exercise may use, by their full names.
        """
        sys.modules["__main__"] = self.module
        sys.meta_path.insert(0, Kit(lent))
        statements = list(self._statements(cells))
        own = [s.cell for s in statements if s.kind == f"exercise:{exercise}"]
        checked = [number for number, (kind, _) in enumerate(cells) if kind == f"check:{exercise}"]
        end = checked[-1] if checked else own[-1] if own else len(cells)
        chosen = needed(statements, name, end)
        if not any(name in s.binds for s in chosen):
            chosen = [s for s in statements if s.cell in own]
        for statement in chosen:
            self._run(statement)
        if name not in self.scope:
            told = [error for cell, error in self.troubles if cell in own] or [error for _, error in self.troubles]
            if told:
                raise LookupError(f"the cell raised {type(told[0]).__name__}: {told[0]}")
            if not any(kind == f"exercise:{exercise}" for kind, _ in cells):
                raise LookupError("the cell is missing, or lost its tag")
            raise LookupError(f"name {name!r} is not defined")
        self.function = self.scope[name]
        if not callable(self.function):
            raise LookupError(f"{name} is a {type(self.function).__name__}, not a function")
        code = getattr(self.function, "__code__", None)
        return list(code.co_varnames[: code.co_argcount]) if code else []

    def attempt(self, seed: int, *args: Any) -> list[Any]:
        """Call the function; return its answer, what it printed, and those arguments that it changed, by place.

        Args:
            seed: what the generators that all code shares begin with.
            *args: the function's arguments.
        """
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the generator that a student may use)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)
        before = [_state(value) for value in args]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                answer = self.function(*args)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            error.line = self._line(error)  # type: ignore[union-attr]
            if isinstance(error, NameError) and self.troubles:
                earlier = self.troubles[0][1]
                error.args = (f"{error}; a cell that it needs raised {type(earlier).__name__}: {earlier}",)
            raise
        changed = [[k, value] for k, value in enumerate(args) if _state(value) != before[k]]
        return [answer, said.getvalue()[:PRINTED], changed]

    def _statements(self, cells: Sequence[Sequence[Any]]) -> Iterator["Statement"]:
        for number, (kind, source) in enumerate(cells):
            file = f"<cell {number}>"
            try:
                text = _python(source)
                linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
                body = list(_flat(ast.parse(text, file).body))
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                self.troubles.append((number, error))
                body = []
            if not body and kind.startswith("exercise:"):
                body = [ast.Pass()]  # the cell is there, if empty
            for node in body:
                yield Statement(number, kind, node)

    def _run(self, statement: "Statement") -> None:
        tree = ast.fix_missing_locations(ast.Module([statement.node], []))
        try:
            exec(compile(tree, f"<cell {statement.cell}>", "exec"), self.scope)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            self.troubles.append((statement.cell, error))

    @staticmethod
    def _line(error: BaseException) -> str:
        """Return the last line of the student's own code that an error came through."""
        line, trace = "", error.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file.startswith("<cell "):
                line = linecache.getline(file, trace.tb_lineno).strip()
            trace = trace.tb_next
        return line


# --- which statements a function needs ---


class Statement:
    """A statement of a cell, with the names that it defines, those of objects that it changes, and those that it uses.

    Args:
        cell: the number of its cell.
        kind: the cell's kind, as `Student.load` takes it.
        node: the statement.
    """

    def __init__(self, cell: int, kind: str, node: ast.stmt) -> None:
        self.cell, self.kind, self.node = cell, kind, node
        self.binds, self.touches = set(_bound(node)), set(_touched(node))
        self.imports = isinstance(node, ast.Import | ast.ImportFrom)
        self.uses = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - {"get_ipython"}


def needed(statements: Sequence[Statement], name: str, end: int) -> list[Statement]:
    """Return the statements that a function needs, in their order.

    A name means what is defined above the exercise's check, as in a notebook that is run from top to bottom. What is
    defined below alone counts too, because cells may be run in any order. All other statements are left out: a hand-in
    need not train its networks again, and a line that fails does no harm where nothing depends on it.

    Args:
        statements: all statements of a notebook.
        name: the function's name.
        end: the number of the cell that the check stands in.
    """
    chosen: set[int] = {k for k, s in enumerate(statements) if "*" in s.binds or _writes_file(s.node)}
    modules = {each for s in statements if s.imports for each in s.binds}  # `np.save(...)` changes no name
    wanted, known = [name], set[str]()
    for k in chosen:
        wanted += statements[k].uses
    while wanted:
        each = wanted.pop()
        if each in known:
            continue
        known.add(each)
        found = [k for k, s in enumerate(statements) if each in s.binds or each in s.touches - modules]
        above = [k for k in found if statements[k].cell <= end]
        for k in above or found:
            if k not in chosen:
                chosen.add(k)
                wanted += statements[k].uses
    return [statements[k] for k in sorted(chosen)]


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement defines or changes, outside the functions and classes in it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
        return
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return  # their names are their own
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield from _root(node)
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    for child in ast.iter_child_nodes(node):
        yield from _bound(child)


def _touched(node: ast.AST) -> Iterator[str]:
    """Yield the name of an object that a line such as `cache.update(...)` may change."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        yield call.func.value.id


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


# --- magics ---


def _python(source: str) -> str:
    """Return a cell's source, magics and lines for the shell turned into calls of `get_ipython()`, as IPython does."""
    if not re.search(r"^\s*[%!?]|=\s*[%!]|\?\s*$", source, re.MULTILINE):
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, those under a magic such as `%%time` and behind `%time` in its place."""
    for node in body:
        kind, *texts = _magic(node)
        python = texts[1] if kind == "run_line_magic" and texts[0] == "time" else ""
        if kind == "run_cell_magic" and texts[0] not in OTHER_LANGUAGES and not _writes_file(node):
            python = texts[2]
        try:
            inner = ast.parse(_python(python)).body
        except SyntaxError:
            inner = []
        yield from _flat(inner) if inner else [node]


def _magic(node: ast.AST) -> list[str]:
    """Return the method of `get_ipython()` that a statement calls, and its texts; an empty text for another one."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return [""]
    home = call.func.value
    if not (isinstance(home, ast.Call) and isinstance(home.func, ast.Name) and home.func.id == "get_ipython"):
        return [""]
    return [call.func.attr, *(str(each.value) for each in call.args if isinstance(each, ast.Constant))]


def _writes_file(node: ast.AST) -> bool:
    return _magic(node)[:2] in (["run_cell_magic", "writefile"], ["run_cell_magic", "file"])


class Shell:
    """What stands in for IPython: `%%writefile` writes, other magics and the shell do nothing.

    Args:
        scope: the notebook's names.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self.user_ns = scope

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        """Write the file of `%%writefile`."""
        if name in ("writefile", "file"):
            with open(line.split()[-1], "a" if "-a" in line.split() else "w", encoding="utf-8") as file:
                file.write(cell)

    def run_line_magic(self, *_: Any) -> list[str]:
        """Do nothing."""
        return []

    system = getoutput = run_line_magic


# --- the kit, as far as it is lent ---


class Kit(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """What stands in for the kit's packages: modules whose parts can be named, and raise an error when they are used.

    Args:
        lent: what an exercise may use, by its full name.
    """

    def __init__(self, lent: Mapping[str, Any]) -> None:
        self.lent = lent

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return a module for every name below the kit's packages."""
        if name.partition(".")[0] in KIT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return an empty module, whose parts are made when they are named."""
        lent = self.lent

        class Module(types.ModuleType):
            def __getattr__(self, part: str) -> Any:
                if part.startswith("__"):
                    raise AttributeError(part)
                full = f"{self.__name__}.{part}"
                return lent[full] if full in lent else Closed(full, lent)

        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: the module is made."""


class Closed:
    """A part of the kit that an exercise may not use.

    Args:
        name: its full name.
        lent: what may be used.
    """

    def __init__(self, name: str, lent: Mapping[str, Any]) -> None:
        self.__dict__.update(_name=name, _lent=lent)

    def __getattr__(self, part: str) -> Any:
        if part.startswith("__"):
            raise AttributeError(part)
        full = f"{self._name}.{part}"
        return self._lent[full] if full in self._lent else Closed(full, self._lent)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{self._name} is the kit's own: the point of this exercise is to write it yourself")


# --- limits ---


def _limit(given: Mapping[str, Any]) -> None:
    import resource

    seconds = given["seconds"]
    wanted = {
        "RLIMIT_CPU": (seconds, seconds + 2),
        "RLIMIT_DATA": (given["bytes"], given["bytes"]),
        "RLIMIT_FSIZE": (given["file_bytes"], given["file_bytes"]),
        "RLIMIT_CORE": (0, 0),
    }
    if given["processes"]:
        wanted["RLIMIT_NPROC"] = (given["processes"], given["processes"])
    for name, (soft, hard) in wanted.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):  # a system without it, or with a lower one
            resource.setrlimit(getattr(resource, name), (soft, hard))


def _guard(visible: Sequence[str], hidden: Sequence[str]) -> None:
    """Refuse what a student's code has no need of: files elsewhere, the network, other programs.

    Python tells of each before it happens. That is a fence, not a wall: code that calls the system past Python gets
    over it. The wall is the sandbox that the process is started in, where there is one.
    """
    roots = {os.path.realpath(path): True for path in visible} | {os.path.realpath(path): False for path in hidden}
    roots |= {os.path.realpath(os.devnull): True, "/dev/urandom": True}
    order = [(root, root.rstrip(os.sep) + os.sep, roots[root]) for root in sorted(roots, key=len, reverse=True)]
    real, decoded = os.path.realpath, os.fsdecode
    programs = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn"}
    programs |= {"subprocess.Popen"}
    outside = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "os.kill", "os.killpg"}
    changes = "listdir scandir remove rename rmdir chmod symlink link truncate mkdir chdir"
    files = {"open", "shutil.rmtree", *(f"os.{name}" for name in changes.split())}
    asking = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal asking
        if event in programs:
            raise PermissionError("grading starts no other program")
        if event in outside:
            raise PermissionError("grading has no network and sends no signals")
        if event not in files or asking:
            return
        asking = True  # finding out where a path leads may look at folders
        try:
            for path in args[:2] if event in ("os.rename", "os.symlink", "os.link") else args[:1]:
                if isinstance(path, str | bytes | os.PathLike):
                    place = real(decoded(path))
                    if not next((yes for root, below, yes in order if place == root or place.startswith(below)), False):
                        raise PermissionError(f"grading opens no file outside the work folder: {decoded(path)}")
        finally:
            asking = False

    sys.addaudithook(hook)


def _state(value: Any) -> Any:
    """Return what an argument is made of, to see whether a call has changed it."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        plain = value.detach()
        return "tensor", str(plain.dtype), tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, list | tuple):
        return [_state(each) for each in value]
    if isinstance(value, dict):
        return [(_state(key), _state(each)) for key, each in value.items()]
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    return value if isinstance(value, str | int | float | bool | None) else id(value)
