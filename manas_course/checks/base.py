"""What every checker shares: how a student's function is called, how its answers are read, and how mistakes are named.

A checker is a table of cases and a list of misconceptions:

    @checker
    def padding(attempt, rng):
        cases = {f"side {side}": (side, 8) for side in (8, 13, int(rng.integers(500)))}
        wrong = [Wrong("what is left over is added again", lambda side, multiple: side % multiple)]
        compare(attempt, cases, lambda side, multiple: -side % multiple, wrong, read=whole)

`checker` calls it for several fixed seeds and one fresh seed. `compare` names the misconception that explains every
wrong answer.
"""

import contextlib
import inspect
import io
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CHECK",
    "Attempt",
    "Check",
    "Misconception",
    "Wrong",
    "array",
    "checker",
    "compare",
    "described",
    "expect",
    "listed",
    "number",
    "same",
    "tensor",
    "whole",
]

CHECK = "application/vnd.manas-lite.check+json"


@dataclass(frozen=True)
class Check:
    """The outcome of one exercise, as a notebook shows it."""

    exercise: str
    """Name of the exercise."""
    passed: bool
    """Whether the answer is right."""
    message: str
    """What was found."""
    hint: str = ""
    """Where to look."""
    named: bool = False
    """Whether the message names the mistake. False for "another value" and for errors that the code raised."""

    def __str__(self) -> str:
        lines = [f"{'PASSED' if self.passed else 'NOT YET'}  {self.exercise}: {self.message}"]
        return "\n".join(lines + ([f"Hint: {self.hint}"] if self.hint else []))

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, Any]:
        return {"text/plain": str(self), CHECK: asdict(self)}


class Misconception(Exception):
    """What a checker found wrong, a hint, and whether the mistake was recognised."""

    def __init__(self, message: str, hint: str = "", named: bool = True) -> None:
        super().__init__(message)
        self.message, self.hint, self.named = message, hint, named


class Wrong(NamedTuple):
    """A misconception: how it is told, what it answers to the arguments of a case, and a hint."""

    message: str
    """What the student is told."""
    answer: Callable[..., Any]
    """A function with the arguments of the exercise. It returns what somebody with this misconception returns."""
    hint: str = ""
    """Where to look."""


def expect(condition: Any, message: str, hint: str = "", named: bool = True) -> None:
    """Raise a Misconception unless the condition holds."""
    if not bool(condition):
        raise Misconception(message, hint, named)


def same(a: Any, b: Any, near: float = 1e-6) -> bool:
    """Return whether two answers are the same: numbers, arrays and tensors up to `near`, anything else exactly."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    a, b = (_plain(x) for x in (a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=near, equal_nan=True))
    return type(a) is type(b) and bool(a == b)


def _plain(value: Any) -> Any:
    """Return numbers of every library as an array, tuples as lists, and anything else as it is."""
    if torch.is_tensor(value):
        return value.detach().cpu().double().numpy()
    if isinstance(value, np.ndarray | np.generic | float | int) and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value, dtype=float)
    return list(value) if isinstance(value, tuple) else value


# --- calling ---


class Attempt:
    """A student's function. Each call gets fresh copies; what the function does to them, prints or raises is told.

    Args:
        function: what the student wrote.
        may_write: whether the function may write into its arguments. Where it does, a right answer comes with a note.
    """

    def __init__(self, function: Any, may_write: bool = False) -> None:
        expect(callable(function), f"this is {described(function)}, not a function", "hand over the name, without ()")
        self.function, self.may_write = function, may_write
        self.notes: list[str] = []
        self.printed: list[str] = []

    def __call__(self, *args: Any, lets: tuple[type[Exception], ...] = ()) -> Any:
        """Return what the function returns; raise a Misconception where it raises, or changes an argument.

        Args:
            *args: the arguments. Tensors that require a gradient are copied such that the gradient reaches them.
            lets: kinds of exception that are an answer, and are handed on as they are.
        """
        given = [_copied(value) for value in args]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                result = self.function(*given)
        except (Exception, SystemExit) as error:  # sys.exit() would end the grading of all other exercises
            if isinstance(error, (Misconception, NotImplementedError, *lets)):
                raise
            hint = "call it yourself, with arguments as its docstring states them"
            raise Misconception(_told(error, self.function), hint, named=False) from None
        finally:
            self.printed += said.getvalue().splitlines()
        if result is None and said.getvalue() and not lets:
            raise Misconception("your function prints its answer, and returns None", "write `return` instead of print")
        changed = [k for k, (now, was) in enumerate(zip(given, args, strict=True)) if not _equal(now, was)]
        if changed:
            name = self.name(changed[0])
            if not self.may_write:
                hint = (
                    "whoever calls it may need the argument again: work on a copy (`.copy()`, `.clone()`, `list(...)`)"
                )
                raise Misconception(f"your function changes its argument `{name}`", hint)
            self.note(f"it writes into `{name}`, so the caller loses what was there: a copy would be kinder")
        return result

    def name(self, place: int) -> str:
        """Return the name of an argument, as the student wrote it."""
        try:
            return list(inspect.signature(self.function).parameters)[place]
        except (TypeError, ValueError, IndexError):
            return f"number {place + 1}"

    def note(self, text: str) -> None:
        """Keep a remark that a right answer is shown with, once."""
        if text not in self.notes:
            self.notes.append(text)


def _copied(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(_copied(item) for item in value)
    return value


def _equal(now: Any, was: Any) -> bool:
    """Return whether an argument is after the call what it was before, its type and shape included."""
    if torch.is_tensor(was):
        return now.dtype == was.dtype and now.shape == was.shape and _equal(now.detach().numpy(), was.detach().numpy())
    if isinstance(was, np.ndarray):
        return now.dtype == was.dtype and np.array_equal(now, was, equal_nan=was.dtype.kind == "f")
    if isinstance(was, list | tuple) and not hasattr(was, "_fields"):
        return len(now) == len(was) and all(map(_equal, now, was))
    if isinstance(was, dict):
        return list(now) == list(was) and all(_equal(now[key], was[key]) for key in was)
    return now is was


def _told(error: BaseException, function: Any) -> str:
    """Return one line on an error: its type, its message, and the line of the student's code that it comes from."""
    line = f"your code raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    home = getattr(getattr(function, "__code__", None), "co_filename", None)
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == home and frame.line]
    return f"{line} (in `{theirs[-1].line}`)" if theirs else line


def described(value: Any) -> str:
    """Return what a value is, in words: its kind, shape and type."""
    if value is None:
        return "None"
    if torch.is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple | list | dict | set):
        return f"a {type(value).__name__} of {len(value)}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


# --- reading answers: each reader returns the answer in one form, or says what is wrong with its form ---


def _returned(found: Any, asked: str, fits: bool, hint: str = "") -> None:
    if found is None:
        raise Misconception(f"your function returns None, {asked} is asked for", "is the last line a `return`?")
    expect(fits, f"your function returns {described(found)}, {asked} is asked for", hint)


def number(found: Any, like: Any = None) -> float:
    """Return a number that may be Python's, NumPy's or a tensor's, also as an array of one element."""
    values = np.asarray(
        found.detach().cpu() if torch.is_tensor(found) else found, dtype=None if _numeric(found) else object
    )
    _returned(
        found, "one number", values.size == 1 and values.dtype.kind in "biuf", "which axis is left to sum or average?"
    )
    return float(values.reshape(-1)[0])


def _numeric(found: Any) -> bool:
    return torch.is_tensor(found) or isinstance(found, np.ndarray | np.generic | int | float)


def whole(found: Any, like: Any = None) -> int:
    """Return a whole number, of any size where it is Python's."""
    if isinstance(found, int):
        return int(found)
    value = number(found)
    expect(
        value == round(value) if np.isfinite(value) else False,
        f"{value:g} is no whole number",
        "`//` divides whole numbers",
    )
    return int(np.asarray(found).reshape(-1)[0])


def array(found: Any, like: np.ndarray) -> np.ndarray:
    """Return an array or a tensor as an array of the shape of `like`, and of bytes where `like` is one of bytes."""
    asked = f"an array of shape {like.shape}" + (" and type uint8" if like.dtype == np.uint8 else "")
    _returned(found, asked, torch.is_tensor(found) or isinstance(found, np.ndarray))
    values = found.detach().cpu().numpy() if torch.is_tensor(found) else found
    fits = (
        values.shape == like.shape and values.dtype.kind in "biuf" and (like.dtype, values.dtype).count(np.uint8) != 1
    )
    _returned(found, asked, fits, "look at the shapes and types in the docstring")
    return values


def tensor(found: Any, like: Tensor) -> Tensor:
    """Return a tensor, its gradient with it; its shape must be that of `like`."""
    asked = f"a tensor of shape {tuple(like.shape)}" if like.ndim else "a tensor with a single number (shape ())"
    if isinstance(found, float | np.ndarray | np.generic):
        message = f"your function returns {described(found)}, which no gradient gets through: {asked} is asked for"
        raise Misconception(message, "no `.item()`, `float()` or `.numpy()`")
    _returned(found, asked, torch.is_tensor(found))
    if like.ndim == 0 and found.numel() == 1:
        found = found.reshape(())
    _returned(found, asked, found.shape == like.shape and not found.is_complex(), "look at the shapes in the docstring")
    return found


def listed(found: Any, like: Sequence[Any]) -> list[Any]:
    """Return a list, tuple, array or tensor of one dimension as a list of Python's own values."""
    if torch.is_tensor(found) or isinstance(found, np.ndarray):
        found = found.tolist()
    fits = not isinstance(found, str | dict) and hasattr(found, "__iter__")
    _returned(found, "a list", fits)
    return [item.item() if isinstance(item, np.generic) else item for item in found]


# --- judging ---


def compare(
    attempt: Attempt,
    cases: Mapping[str, tuple[Any, ...]],
    true: Callable[..., Any],
    wrong: Sequence[Wrong] = (),
    *,
    read: Callable[[Any, Any], Any] = number,
    near: float = 1e-6,
    also: Sequence[Wrong] = (),
    hint: str = "",
) -> None:
    """Call an attempt on every case, and raise a Misconception unless all answers are right.

    A misconception is named where it explains every answer that is wrong. Among several, the one that also gives the
    answers that happen to be right is named.

    Where an argument is a tensor that requires a gradient, so must the answer, and its gradient must be the true one.

    Args:
        attempt: the student's function.
        cases: the arguments of each call, by what the student is told of it.
        true: the right function.
        wrong: the known misconceptions.
        read: makes the answer comparable, or says what is wrong with its form.
        near: how far an answer may lie from the right one.
        also: other answers that count as right. Their message becomes a note.
        hint: what to say where no misconception explains the answers.
    """
    found, truths, trouble = [], [], None
    for args in cases.values():
        right = true(*map(_copied, args))
        try:
            found.append(read(attempt(*args), right))
        except Misconception as error:  # an answer that was wrong earlier is told first
            trouble = error
            break
        truths.append(right)
    labels, arguments = list(cases)[: len(found)], list(cases.values())[: len(found)]
    off = [k for k in range(len(found)) if not same(found[k], truths[k], near)]
    agree = {}
    for known in [*also, *wrong] if off else []:

        def met(k: int, known: Wrong = known) -> bool:
            with np.errstate(all="ignore"):
                return same(found[k], known.answer(*map(_copied, arguments[k])), near)

        if all(map(met, off)):
            agree[known] = sum(map(met, range(len(found))))
    if agree:
        known = max(agree, key=lambda each: agree[each])
        if known not in also:
            raise Misconception(f"{labels[off[0]]}: {known.message}", known.hint)
        attempt.note(known.message)
    elif off:
        shown = f"{found[off[0]]:.5g}" if isinstance(found[off[0]], float) else "your function"
        says = f"{shown}, expected another number" if isinstance(found[off[0]], float) else "expected another answer"
        raise Misconception(f"{labels[off[0]]}: {says}", hint, named=False)
    if trouble:
        raise trouble
    for label, answer, right, args in zip(labels, found, truths, arguments, strict=True):
        _same_gradients(attempt, label, answer, true, args) if torch.is_tensor(right) else None


def _same_gradients(
    attempt: Attempt, label: str, answer: Tensor, true: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Raise a Misconception unless an answer has the gradients that the right one has."""
    inputs = {attempt.name(k): each for k, each in enumerate(args) if torch.is_tensor(each) and each.requires_grad}
    right = true(*args)
    if not inputs or not right.requires_grad:
        return
    cut = "no `.detach()`, `.data`, `.item()`, `torch.no_grad()` or argmax on the way"
    expect(
        answer.requires_grad, f"{label}: no gradient reaches `{next(iter(inputs))}`: nothing can be learnt from it", cut
    )
    direction = torch.cos(torch.arange(right.numel(), dtype=right.dtype)).reshape(right.shape)  # one without symmetry
    theirs, ours = (
        torch.autograd.grad((value.to(right.dtype) * direction).sum(), list(inputs.values()), allow_unused=True)
        for value in (answer, right)
    )
    floor = 1e-6 * (1 + float(right.detach().abs().sum()))  # what float32 errs by where gradients cancel
    for name, got, wanted in zip(inputs, theirs, ours, strict=True):
        expect(got is not None, f"{label}: no gradient reaches `{name}`: nothing can be learnt from it", cut)
        expect(
            got.isfinite().all(), f"{label}: the gradient of `{name}` is not finite", "which part is 0 times infinity?"
        )
        scale = float(wanted.abs().max())
        lost = ((got == 0) & (wanted.abs() > 1e-3 * scale + floor)).any()
        expect(
            not lost, f"{label}: a part of `{name}` gets no gradient", "every part must take part, not the best alone"
        )
        near = bool(((got - wanted).abs() <= 1e-3 * scale + floor).all())
        expect(near, f"{label}: the value is right, and the gradient of `{name}` is another one", cut)


# --- checkers ---

Body = Callable[[Any, np.random.Generator], None]
_BODIES: dict[str, Body] = {}  # kept away from the checkers, on which a student may look for the answer


def checker(body: Body | None = None, *, rounds: int = 3, fresh: bool = True, may_write: bool = False) -> Any:
    """Return a checker made from `body(attempt, rng)`, which raises a Misconception where the attempt is wrong.

    It is called as `check(attempt)`. It returns a Check and raises nothing, so that exercises block nothing.

    The body runs for several seeds that never change, so that luck decides no verdict. Then it runs for one fresh
    seed, so that no answer can be learnt by heart. Python's, NumPy's and torch's own generators are fixed meanwhile.

    Args:
        body: the checker's function. Its name is that of the exercise.
        rounds: how many fixed seeds.
        fresh: whether a round with a fresh seed follows.
        may_write: whether the student's function may write into its arguments.
    """
    if body is None:
        return lambda given: checker(given, rounds=rounds, fresh=fresh, may_write=may_write)
    name = body.__name__
    _BODIES[name] = body

    def check(attempt: Any, seed: int | None = None) -> Check:
        try:
            student = Attempt(attempt, may_write)
            try:
                for each in [*range(rounds), *([seed] if fresh else [])]:
                    with _fixed_chance():
                        _BODIES[name](student, np.random.default_rng(each))
            finally:
                _show(student.printed)
        except NotImplementedError:
            return Check(
                name, False, "the blank is not filled in yet", "write your lines over `raise NotImplementedError`"
            )
        except Misconception as found:
            return Check(name, False, " ".join(found.message.split())[:400], found.hint, found.named)
        except Exception as error:  # an answer of a form that the checker does not know
            what = f"the answer cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            return Check(name, False, what, "look at what the docstring says of the answer")
        notes = [*student.notes, *(["it prints: take that out once all is well"] if student.printed else [])]
        return Check(name, True, "; ".join(["correct on fixed and on random inputs", *notes]))

    check.__name__, check.__qualname__, check.__module__, check.__doc__ = name, name, body.__module__, body.__doc__
    return check


def _show(printed: list[str], most: int = 10) -> None:
    """Print the first lines that a student's function printed: it may have been called a thousand times."""
    for line in printed[:most]:
        print(line)
    if len(printed) > most:
        print(f"... and {len(printed) - most} more lines")


@contextlib.contextmanager
def _fixed_chance() -> Iterator[None]:
    """Fix the generators that all code shares, and use one thread: it is the quickest for small tensors."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.get_num_threads()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.default_generator.manual_seed(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
        torch.set_num_threads(before[3])
