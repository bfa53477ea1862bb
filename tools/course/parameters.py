"""The parameters cell: literals with a comment each, read without running it, and strictly set.

papermill only warns about unknown names, hands YAML's `1e-3` over as a string, and keeps derived defaults. Here an
unknown name is an error that names the nearest, and every value is cast to the type of its default or refused.
"""

import ast
import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from manas_course import ablation, renamed
from manas_lite.runs.settings import parse

__all__ = ["SETTINGS", "Parameter", "arm_of", "cast", "gathered", "read"]

SIMPLE = (bool, int, float, str)

SETTINGS = "settings"
"""A list parameter of this name, which may be empty, takes every setting that has no parameter of its own."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One line of the cell: `name = default  # comment`."""

    name: str
    """Its name."""

    default: Any
    """Its value in the notebook: a number, text, switch, or a list of one of these."""

    comment: str
    """What it does."""


def read(source: str) -> tuple[Parameter, ...]:
    """Return the parameters that a cell's source defines; ValueError for a line that is no commented literal."""
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
    """Return `given` as values of the parameters' types; ValueError for an unknown name or a value of another type.

    Example:
    >>> cast((Parameter("rate", 0.1, "learning rate"),), {"rate": "1e-3"})
    {'rate': 0.001}
    """
    fields = []
    for parameter in parameters:
        default = tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
        fields.append((parameter.name, _kind(default, parameter.name), dataclasses.field(default=default)))
    settings: Any = parse(dataclasses.make_dataclass("Parameters", fields), given, text=True)
    return {name: _plain(getattr(settings, name)) for name in given}


def gathered(
    parameters: tuple[Parameter, ...], given: Mapping[str, Any], standing: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `given` with every setting that is no parameter, dotted ones too, moved into the parameter `settings`.

    A notebook without that parameter gets `given` as it is.

    Args:
        parameters: what the notebook defines.
        given: a value, or its text, per name; old names are replaced, with a DeprecationWarning.
        standing: what a preset sets.

    Raises:
        ValueError: for a name that is neither a parameter nor a setting, with the nearest one.
    """
    defaults = {parameter.name: parameter.default for parameter in parameters}
    if SETTINGS not in defaults:
        return dict(given)
    given = renamed.current(given, {**vars(ablation.Arm().plan.loss), **defaults, **standing})
    others = {name: value for name, value in given.items() if name not in defaults}
    for name in others:
        if name.removeprefix("loss.").partition(".")[0] not in ablation.SETTINGS:
            near = difflib.get_close_matches(name, {*defaults, *ablation.SETTINGS}, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown parameter or setting {name!r}: did you mean {near!r}?")
    kept = {name: value for name, value in given.items() if name in defaults}
    if others:
        listed = cast(parameters, {SETTINGS: kept.get(SETTINGS, standing.get(SETTINGS, []))})[SETTINGS]
        kept[SETTINGS] = [*listed, *ablation.texts(others)]
    return kept


def arm_of(values: Mapping[str, Any]) -> ablation.Arm:
    """Return the arm that a notebook's parameters describe; ValueError for a value that a setting does not take."""
    return ablation.Arm.of({name: value for name, value in values.items() if name in ablation.names()})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _kind(default: Any, name: str) -> Any:
    if isinstance(default, SIMPLE):
        return type(default)
    if name == SETTINGS and not default:
        return tuple[str, ...]
    if isinstance(default, list | tuple) and default and all(type(item) is type(default[0]) for item in default):
        return tuple[_kind(default[0], name), ...]  # type: ignore[misc]
    raise ValueError(f"parameter {name} = {default!r}: a default is a number, text, switch, or a list of one of these")
