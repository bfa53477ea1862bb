"""The parameters cell: literals with a comment each, read without running it, and strictly set.

papermill only warns about unknown names, hands YAML's `1e-3` over as a string, and keeps derived defaults. Here an
unknown name is an error that names the nearest, and every value is cast to the type of its default or refused.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from manas_lite.runs.settings import parse

__all__ = ["Parameter", "cast", "read"]

SIMPLE = (bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One line of the cell: `name = default  # comment`."""

    name: str
    default: Any
    comment: str


def read(source: str) -> tuple[Parameter, ...]:
    """The parameters that a cell's source defines. ValueError for a line that is no commented literal."""
    lines = source.splitlines()
    found = []
    for statement in ast.parse(source).body:
        line = lines[statement.lineno - 1]
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"the parameters cell holds {line!r}: only `name = literal  # comment` may stand there")
        name = statement.targets[0].id
        try:
            default = ast.literal_eval(statement.value)
        except ValueError:
            raise ValueError(f"parameter {name} is no literal: {line!r}; derive it in the next cell") from None
        comment = re.search(r"#\s*(\S.*)$", lines[(statement.end_lineno or statement.lineno) - 1])
        if comment is None:
            raise ValueError(f"parameter {name} has no comment on its line: say what it does, and its unit")
        _kind(default, name)
        found.append(Parameter(name, default, comment[1]))
    return tuple(found)


def cast(parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` as values of the parameters' types; ValueError for an unknown name or a value of another type.

    >>> cast((Parameter("rate", 0.1, "learning rate"),), {"rate": "1e-3"})
    {'rate': 0.001}
    """
    fields = []
    for parameter in parameters:
        default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
        fields.append((parameter.name, _kind(default, parameter.name), dataclasses.field(default=default)))
    settings: Any = parse(dataclasses.make_dataclass("Parameters", fields), given, text=True)
    return {name: _plain(getattr(settings, name)) for name in given}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _kind(default: Any, name: str) -> Any:
    if isinstance(default, SIMPLE):
        return type(default)
    if isinstance(default, list | tuple) and default and all(type(item) is type(default[0]) for item in default):
        return tuple[_kind(default[0], name), ...]  # type: ignore[misc]
    raise ValueError(f"parameter {name} = {default!r}: a default is a number, text, switch, or a list of one of these")
