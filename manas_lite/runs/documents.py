"""Documents on disk, read by one strict reader: JSON files, lines of a log, headers of weights.

A document is checked before anything is made of it: its size, its depth, its version, then its fields and their types.
A dataclass states the fields. Whatever is wrong is told in one line, which begins with the file and the place in it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from manas_lite.runs.settings import parse

T = TypeVar("T")

LARGEST, LARGEST_LIST, LARGEST_MANIFEST, LARGEST_JSON = 256 * 2**20, 64 * 2**20, 16 * 2**20, 4 * 2**20
"""The most bytes of a table of pairs, of JSON that lists files, of a run's description, and of other JSON.

Read, it takes 30 times as much."""

DEEPEST = 64
"""The most levels of lists and objects in a document. This kit writes fewer than 20."""

LONGEST = 800
"""The most characters of a message, about ten lines of a terminal."""


@contextmanager
def about(place: object, kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Let a ValueError be one line that begins with `place`, of the class `kind`."""
    try:
        yield
    except ValueError as error:
        raise kind(one_line(f"{place}: {error}")) from None


def one_line(message: str) -> str:
    """Return a message as one line, without its middle where it is too long: it may quote a document."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def first_few(items: Sequence[str]) -> str:
    """Return the first five items as one text, and the number of the others."""
    return "; ".join(items[:5]) + (f"; and {len(items) - 5} more" if len(items) > 5 else "")


def read_bytes(path: str | Path, most: int = LARGEST) -> bytes:
    """Return a file's contents; ValueError where it is no regular file (a pipe, a device) or has over `most` bytes."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is no regular file but a pipe or a device: name a file")
    if path.is_file() and (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size:,} bytes, and at most {most:,} are read: it is no file of this kind")
    return path.read_bytes()


def decode(data: bytes | str, fault: str, most: int = LARGEST_JSON) -> Any:
    """Return what a JSON text holds.

    Args:
        data: the text, in UTF-8 where it is bytes.
        fault: what the message begins with where the text is no JSON, such as "card.json is no JSON".
        most: the length from which the text is refused unread.

    Raises:
        ValueError: for another text, two values of one name, or lists and objects nested deeper than `DEEPEST`.
    """
    if len(data) > most:
        raise ValueError(f"{fault} that can be read: it has {len(data):,} bytes, and at most {most:,} are read")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError(f"{fault} that can be read: it is nested too deep") from None
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise ValueError(f"{fault} ({error})") from None
    level, depth = [value], 0
    while level := [item for node in level if isinstance(node, dict | list) for item in _items(node)]:
        if (depth := depth + 1) > DEEPEST:
            raise ValueError(f"{fault} that can be read: it is nested deeper than {DEEPEST} levels")
    return value


def _items(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if isinstance(node, dict) else node


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError where it names something twice, since one of the two would be lost."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]!r} stands there twice")
    return found


def read_json(path: str | Path, most: int = LARGEST_LIST) -> Any:
    """Return what a JSON file holds; ValueError names a file that is none, or that has over `most` bytes."""
    data = read_bytes(path, most)
    try:
        return decode(data, f"{Path(path)} is no JSON", most)
    except ValueError as error:
        raise ValueError(f"{error}: restore it, or delete it to start again") from None


def document(
    kind: type[T], value: Any, place: object, *, newest: int | None = None, more: bool = False, error: Any = ValueError
) -> T:
    """Return a decoded document as the dataclass that states its fields.

    Args:
        place: the file, and the place in it, for messages.
        newest: the latest version that can be read, for documents that state theirs in `format`.
        more: let the document hold other fields too; they are not checked.
        error: the class of the error.

    Raises:
        ValueError: of the class `error`, for another structure, a field of another type, or a later version.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    stated = value.get("format") if isinstance(value, Mapping) else None
    if newest is not None and type(stated) is int and stated > newest:
        raise error(
            f"{place} has format {stated}, this version reads up to {newest}: update manas_lite, since a later "
            "manas_lite wrote it"
        )
    if newest is not None and type(stated) is int and stated < 1:
        raise error(f"{place} has format {stated}, and the first is 1: it is damaged")
    with about(place, error):
        if more and isinstance(value, Mapping):
            value = {name: item for name, item in value.items() if name in known}
        return parse(kind, value)
