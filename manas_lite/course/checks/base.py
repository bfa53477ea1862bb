"""What a checker is: it calls a student's function on random inputs and says what went wrong, never the answer."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["CHECK", "Check", "Misconception", "checker", "expect"]

CHECK = "application/vnd.manas-lite.check+json"


@dataclass(frozen=True)
class Check:
    """The outcome of one exercise. `message` says what was found, `hint` where to look."""

    exercise: str
    passed: bool
    message: str
    hint: str = ""

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


Body = Callable[[Any, np.random.Generator], None]


def checker(body: Body) -> Callable[..., Check]:
    """A checker from `body(attempt, rng)`, which raises a Misconception where the attempt is wrong.

    The checker is called as `check(attempt)`; it draws new inputs each time, or those of `seed`. It returns a Check
    and raises nothing: exercises block nothing.
    """
    name = body.__name__

    @functools.wraps(body)
    def check(attempt: Any, seed: int | None = None) -> Check:
        try:
            body(attempt, np.random.default_rng(seed))
        except NotImplementedError:
            return Check(
                name, False, "the blank is not filled in yet", "write your lines over `raise NotImplementedError`"
            )
        except Misconception as found:
            return Check(name, False, found.message, found.hint)
        except (Exception, SystemExit) as error:  # sys.exit() would end the grading of everyone else's
            return Check(
                name, False, f"your code raised {type(error).__name__}: {error}", "read the types in the docstring"
            )
        return Check(name, True, "correct on random inputs")

    return check
