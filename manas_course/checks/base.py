"""What every checker shares: a student's function is called on random inputs, and mistakes are named."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["CHECK", "Check", "Misconception", "checker", "expect", "rule_out", "same"]

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

    def __str__(self) -> str:
        lines = [f"{'PASSED' if self.passed else 'NOT YET'}  {self.exercise}: {self.message}"]
        return "\n".join(lines + ([f"Hint: {self.hint}"] if self.hint else []))

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, Any]:
        return {"text/plain": str(self), CHECK: asdict(self)}


class Misconception(Exception):
    """What a checker recognised, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def expect(condition: Any, message: str, hint: str = "") -> None:
    """Raise a Misconception unless the condition holds."""
    if not bool(condition):
        raise Misconception(message, hint)


def same(a: Any, b: Any, near: float = 1e-6) -> bool:
    """Return whether two numbers, arrays or tensors differ by at most `near`, or two other values are equal."""
    if isinstance(a, str | Sequence):
        return a == b
    a, b = (x.detach() if torch.is_tensor(x) else x for x in (a, b))
    return bool(np.allclose(a, b, rtol=0, atol=near))


def rule_out(found: Any, wrong: Mapping[str, Any], true: Any, hint: str = "", near: float = 1e-6) -> None:
    """Raise a Misconception where an answer is a known wrong one.

    Args:
        found: the student's answer.
        wrong: what each misconception would have answered, by its message.
        true: the right answer. A wrong one that happens to be near it, by chance, tells nothing.
        hint: what the Misconception hints at.
        near: how far two numbers that count as one may lie apart.
    """
    for message, value in wrong.items():
        expect(same(value, true, 2 * near) or not same(found, value, near), message, hint)


def checker(body: Callable[[Any, np.random.Generator], None]) -> Callable[..., Check]:
    """Return a checker made from `body(attempt, rng)`, which raises a Misconception where the attempt is wrong.

    It is called as `check(attempt)`, and draws new inputs each time, or those of a `seed`. It returns a Check and
    raises nothing, so that exercises block nothing.
    """
    name = body.__name__

    @functools.wraps(body)
    def check(attempt: Any, seed: int | None = None) -> Check:
        try:
            body(attempt, np.random.default_rng(seed))
        except NotImplementedError:
            hint = "write your lines over `raise NotImplementedError`"
            return Check(name, False, "the blank is not filled in yet", hint)
        except Misconception as found:
            return Check(name, False, found.message, found.hint)
        except (Exception, SystemExit) as error:  # sys.exit() would end the grading of everyone else's
            message = f"your code raised {type(error).__name__}: {error}"
            return Check(name, False, message, "read the types in the docstring")
        return Check(name, True, "correct on random inputs")

    return check
