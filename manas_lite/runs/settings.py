"""Strict settings: frozen dataclasses, one per concern, read from mappings without guessing.

An unknown key, a missing one or a value of another type is an error. It says where the value stands, what was expected
and which valid key is nearest. Nothing is dropped, and nothing is converted silently but int to float and list to
tuple. A dataclass may give the old names of renamed fields in a class attribute `RENAMED`, from old to new: they are
still read, with a FutureWarning.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import operator
import os
import textwrap
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union

T = TypeVar("T")

_RELATIONS = {"at least": operator.ge, "at most": operator.le, "above": operator.gt}

LATER = {"later": True}
"""Metadata of a field that came after files with its dataclass were written. `to_dict` leaves it out where it has its
default, so that older files, and the ids made from them, stay what they were."""


def register(registry: dict[str, Any], name: str) -> Callable[[T], T]:
    """Return a decorator that enters a class or function into a registry, under a name that settings can then take.

    The same one under the same name replaces the older one, so that a notebook's cell can be run again.

    Raises:
        ValueError: the name is taken by another one, or cannot be part of a setting.
    """

    def enter(entry: T) -> T:
        if not name or {".", "+", ",", " "} & set(name):  # torch forbids the dot too, in parts of a network
            raise ValueError(f"{name!r} cannot name a candidate: use letters, digits and _")
        held, new = (str(getattr(each, "__qualname__", each)) for each in (registry.get(name, entry), entry))
        if held != new:
            raise ValueError(f"{name!r} is registered already, for {held}: choose another name")
        registry[name] = entry
        return entry

    return enter


def parse(cls: type[T], mapping: Mapping[str, Any], *, where: str = "", text: bool = False) -> T:
    """Make a settings dataclass from a mapping (JSON, YAML, a notebook's parameters).

    Args:
        cls: a dataclass. Its fields may be bool, int, float, str, Path, Literal, tuples, lists, dicts by str, other
            dataclasses, and unions of those with None.
        mapping: field name -> value. Fields that are left out take their defaults. Nested settings are mappings too.
        where: prefix of the names in error messages, such as "search".
        text: read values that are strings as the field's type: "1e-3" (which YAML takes for a string), "true",
            "32,64", "none".

    Raises:
        ValueError: for unknown or missing keys and wrong types; also the dataclass's own ValueErrors.

    Example:
    >>> @dataclasses.dataclass(frozen=True)
    ... class Sgd:
    ...     rate: float = 0.1
    ...     momentum: float = 0.9
    >>> parse(Sgd, {"rate": 1})
    Sgd(rate=1.0, momentum=0.9)
    >>> parse(Sgd, {"momentom": 0.5})
    Traceback (most recent call last):
    ValueError: unknown setting 'momentom': did you mean 'momentum'? Valid: rate, momentum
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where or cls.__name__.lstrip('_')}: expected a mapping of settings, got {_shown(mapping)}")
    hints, fields = _fields(cls)
    mapping = {_current(cls, key, where): value for key, value in mapping.items()}
    needed = [name for name, field in fields.items() if default_of(field) is dataclasses.MISSING]
    if missing := [repr(dotted(where, name)) for name in needed if name not in mapping]:
        raise ValueError(f"missing setting {', '.join(missing)}: it has no default")
    values = {key: _convert(hints[key], value, dotted(where, key), text) for key, value in mapping.items()}
    with _named(where):
        return cls(**values)


def override(settings: T, assignments: Iterable[str]) -> T:
    """Return new settings with some values replaced, from texts as after `--set`: `["sgd.rate=1e-3", "seed=2"]`.

    Each value is read as the type of the field that it is for. Dots lead into nested settings and into dicts.

    Raises:
        ValueError: for an unknown name, a value of another type, or a text without "=".
    """
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"cannot read {assignment!r}: write key=value, such as seed=1")
        settings = _replaced(settings, key.strip().split("."), value.strip(), where="")
    return settings


def check(settings: Any) -> None:
    """Raise ValueError where a field of a settings dataclass holds a value of another type than it states.

    A dataclass calls this in `__post_init__`. Settings made in Python are then as strict as those read by `parse`.
    """
    hints, fields = _fields(type(settings))
    for name in fields:
        value = _convert(hints[name], getattr(settings, name), name, text=False)
        object.__setattr__(settings, name, value)  # an int given for a float is the float


def must_be(settings: Any, relation: str, limit: float, *names: str) -> None:
    """Raise ValueError at the first of the named settings that is a number on the wrong side of a limit.

    Args:
        relation: `at least`, `at most` or `above`.
        names: fields that hold a number, or None, which always passes.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not _RELATIONS[relation](value, limit):
            raise ValueError(f"{name} is {value}: it must be {relation} {limit:g}")


def from_preset(presets: Mapping[str, T], name: str, changes: Mapping[str, Any]) -> T:
    """Return the settings called `name` with some fields replaced.

    Raises:
        ValueError: for an unknown preset, and for an unknown field, with the nearest one.
    """
    if name not in presets:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(presets)}")
    settings = presets[name]
    changes = {_current(type(settings), key): value for key, value in changes.items()}
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as nested dicts, lists, texts, numbers and None: what JSON holds and `parse` reads back."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        raise ValueError(f"expected a settings dataclass, got {_shown(settings)}")
    values = {field: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.init}
    return {f.name: plain(v) for f, v in values.items() if not (f.metadata == LATER and v == default_of(f))}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: tensors, arrays, numpy numbers, paths and dataclasses in their plain form.

    JSON has no NaN and no infinities: they become "NaN", "Infinity" and "-Infinity", which `float()` reads back.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if hasattr(value, "tolist"):  # a tensor, an array or a number of NumPy's
        return plain(value.tolist())
    raise TypeError(f"cannot write {type(value).__name__} {value!r} as JSON")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a dataclass field; `dataclasses.MISSING` where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


class Described(NamedTuple):
    """One setting as a help text shows it."""

    name: str
    kind: str
    default: Any
    text: str


def describe(settings: Any, where: str = "") -> list[Described]:
    """List every setting of a dataclass, its value as the default, with the docstring that stands under its field.

    Nested names are dotted, and `where` is the prefix of all.
    """
    hints, fields = _fields(type(settings))
    texts = _field_docstrings(type(settings))
    rows = []
    for name in fields:
        value, place = getattr(settings, name), dotted(where, name)
        if dataclasses.is_dataclass(value):
            rows += describe(value, place)
        else:
            rows.append(Described(place, _name(hints[name]), value, texts.get(name, "")))
    return rows


def _field_docstrings(cls: type) -> dict[str, str]:
    """Return the text under each field of a dataclass. Python keeps no such text, so it is read from the source."""
    texts = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                texts[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return texts


def completed(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings with those that they lack, nested ones too, taken from `defaults`.

    A setting that did not exist when a file was written had its default in effect.
    """
    full = {**defaults, **stored}
    for key, value in stored.items():
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            full[key] = completed(value, defaults[key])
    return full


class Difference(NamedTuple):
    """One field in which two settings differ; `absent` stands for a field that one of them lacks."""

    field: str
    here: Any
    there: Any

    def __str__(self) -> str:
        return f"{self.field} {self.here} here, {self.there} there"


ABSENT = "absent"


def difference(here: Any, there: Any) -> list[Difference]:
    """List the fields in which two settings, dataclasses or the dicts made from them, differ; nested ones are dotted.

    Example:
    >>> [str(d) for d in difference({"sgd": {"rate": 0.01}}, {"sgd": {"rate": 0.1}})]
    ['sgd.rate 0.01 here, 0.1 there']
    """
    return list(_differences("", plain(here), plain(there)))


# --- reading one value ---


def _convert(kind: Any, value: Any, where: str, text: bool) -> Any:
    """Return `value` as the type `kind`, or raise a ValueError that names the place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(kind, arguments, value, where, text)
    if origin is Literal:
        for choice in arguments:
            if (type(value) is type(choice) and value == choice) or (text and value == str(choice)):
                return choice
        raise ValueError(f"{where}: unknown choice {value!r}: {nearest(value, map(str, arguments))}")
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else parse(kind, value, where=where, text=text)
    if text and isinstance(value, str):
        value = _from_text(kind, origin, value, where)
    if origin in (tuple, list):
        return _convert_sequence(kind, origin, arguments, value, where, text)
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _wrong(where, kind, value)
        return {key: _convert(arguments[1], item, dotted(where, key), text) for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, got {value}")
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    # bool is a subclass of int, but True is no count
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(where, kind, value)


def _convert_union(kind: Any, options: tuple[Any, ...], value: Any, where: str, text: bool) -> Any:
    if type(None) in options:
        if value is None or (text and isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        options = tuple(option for option in options if option is not type(None))
    if isinstance(value, Mapping):  # of several dataclasses, it is the one that has all of these fields
        having = [kind for kind in options if dataclasses.is_dataclass(kind) and {*value} <= {*_fields(kind)[1]}]
        options = tuple(having) or options
    for option in options:
        try:
            return _convert(option, value, where, text)
        except _WrongTypeError as error:
            if error.where != where:  # inside a nested value: nearer to the mistake than this union is
                raise
    raise _wrong(where, kind, value)


def _convert_sequence(
    kind: Any, origin: Any, arguments: tuple[Any, ...], value: Any, where: str, text: bool
) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, kind, value)
    kinds = arguments
    if origin is list or arguments[1:] == (...,):
        kinds = (arguments[0],) * len(value)
    elif len(value) != len(arguments):
        raise ValueError(f"{where}: expected {len(arguments)} values, {_name(kind)}, got {len(value)}: {value}")
    return origin(_convert(k, v, f"{where}[{i}]", text) for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


_SWITCHES = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_READERS: dict[Any, Callable[[str], Any]] = {bool: lambda text: _SWITCHES[text.lower()], int: int, float: float}


def _from_text(kind: Any, origin: Any, value: str, where: str) -> Any:
    """Return the value that a text of a command line writes; other kinds keep it for the check that follows."""
    if origin in (tuple, list):
        return [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    try:
        return _READERS[kind](value) if kind in _READERS else value
    except (ValueError, KeyError):
        raise _wrong(where, kind, value) from None


def _replaced(settings: Any, path: list[str], value: str, where: str) -> Any:
    hints, _ = _fields(type(settings))
    name, *rest = path
    name = _current(type(settings), name, where)
    current, place = getattr(settings, name), dotted(where, name)
    if rest and isinstance(current, dict):
        key = ".".join(rest)
        new = {**current, key: _convert(typing.get_args(hints[name])[1], value, dotted(place, key), text=True)}
    elif rest:
        if not dataclasses.is_dataclass(current):
            raise ValueError(f"{place}: it holds no settings of its own, so {'.'.join(path)!r} names nothing")
        new = _replaced(current, rest, value, place)
    elif dataclasses.is_dataclass(current):
        inner = ", ".join(dotted(place, key) for key in _fields(type(current))[1])
        raise ValueError(f"{place}: a group of settings cannot be set from text; set one of {inner}")
    else:
        new = _convert(hints[name], value, place, text=True)
    with _named(where):
        return dataclasses.replace(settings, **{name: new})


# --- small helpers ---


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Let a ValueError say which settings it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


_hints: Callable[[Any], dict[str, Any]] = cache(typing.get_type_hints)  # looked up for every line of a log


def _fields(cls: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    return _hints(cls), {field.name: field for field in dataclasses.fields(cls) if field.init}


def _current(cls: type, key: Any, where: str = "") -> str:
    """Return a field's name as it is now; ValueError for a name that the dataclass never had."""
    renamed = getattr(cls, "RENAMED", {})
    if key in renamed:
        warnings.warn(
            f"the setting {dotted(where, key)!r} is now called {renamed[key]!r}; the next release drops the old name",
            FutureWarning,
            stacklevel=3,
        )
        return renamed[key]
    _, fields = _fields(cls)
    if key not in fields:
        raise ValueError(f"unknown setting {dotted(where, key)!r}: {nearest(key, fields)}")
    return key


def _differences(where: str, here: Any, there: Any) -> Iterator[Difference]:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in {**here, **there}:
            yield from _differences(dotted(where, key), here.get(key, ABSENT), there.get(key, ABSENT))
    elif here != there or isinstance(here, bool) != isinstance(there, bool):
        yield Difference(where, here, there)


def dotted(where: str, key: object) -> str:
    """Return the name of a part of what stands at the place `where`, which is empty for the whole."""
    return f"{where}.{key}" if where else str(key)


def nearest(key: object, valid: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, and all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}Valid: {', '.join(valid) or 'none'}"


def _name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    origin = typing.get_origin(kind)
    if origin is Literal:
        return "|".join(map(str, typing.get_args(kind)))
    if origin in (Union, types.UnionType):
        return " or ".join(_name(option) for option in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and origin is None else str(kind).replace("typing.", "")


def _shown(value: Any) -> str:
    text = repr(value)
    return "None" if value is None else f"{type(value).__name__} {text if len(text) <= 120 else text[:120] + '...'}"


class _WrongTypeError(ValueError):
    """A value of another type at the place `where`."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


def _wrong(where: str, kind: Any, value: Any) -> _WrongTypeError:
    return _WrongTypeError(where, f"{where}: expected {_name(kind)}, got {_shown(value)}")
