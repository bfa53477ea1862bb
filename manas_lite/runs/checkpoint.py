"""Checkpoints: one safetensors file each, tensors and JSON together, replaced atomically; never a pickle.

`write` and `read` keep nested dicts of tensors and a `meta` that JSON can hold. `dump` and `restore` turn anything with
a `state_dict` (networks, optimisers, gradient scalers) into such a pair and back, exactly.
"""

import contextlib
import hashlib
import json
import operator
import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from manas_lite.runs.documents import LARGEST_LIST, LARGEST_MANIFEST, about, decode, document, one_line, read_bytes
from manas_lite.runs.settings import dotted

FORMAT = 1
LARGEST = 32 * 2**30
"""The most bytes of a checkpoint that is read."""

LEFTOVER = ".*.manas_lite.tmp"
"""What the temporary files of `write_atomic` are called: a pattern."""

HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""This machine, in the names of temporary files: a number of a process says nothing on another one."""

_HEADER = "manas_lite"  # the one entry of safetensors' own metadata, a JSON text


@dataclass(frozen=True)
class _Header:
    """What a file says of itself beside its tensors."""

    format: int
    identity: str | None
    meta: dict[str, Any]
    empty: list[str]


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or belongs to something else."""


class Stateful(Protocol):
    """Anything that torch can save and load."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


# --- files ---


def write(
    path: str | Path, tensors: Mapping[str, Any], meta: Mapping[str, Any], *, identity: str | None = None
) -> None:
    """Write a checkpoint, atomically: a process killed or a disk filled meanwhile leaves the file from before.

    Args:
        tensors: nested dicts of tensors, on any device. Keys are strings without `/`.
        meta: what JSON can hold (tuples come back as lists), kept in the file's header.
        identity: what the checkpoint belongs to, such as a genotype's id; `read` can ask for it.

    Raises:
        OSError: for a full disk, or where there is no such folder.
        ValueError, TypeError: for what cannot be kept.
    """
    flat, empty = _flatten(tensors)
    header = json.dumps({"format": FORMAT, "identity": identity, "meta": meta, "empty": empty})
    write_atomic(path, safetensors.torch.save(flat, metadata={_HEADER: header}))


def read(path: str | Path, *, identity: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint as (tensors, meta): the nested dicts that were written, tensors on the CPU.

    Args:
        identity: what the checkpoint must belong to; None takes any.

    Raises:
        FileNotFoundError: where there is no such file.
        CheckpointError: for a file that is truncated, was written by something else (a pickle, a web page) or by a
            later version, or belongs to another identity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with about(path, CheckpointError):
        data = read_bytes(path, LARGEST)
    try:
        flat = safetensors.torch.load(data)
        header_bytes = data[8 : 8 + int.from_bytes(data[:8], "little")]
        names = decode(header_bytes, "the header", LARGEST_LIST).get("__metadata__") or {}
        stated = decode(names[_HEADER], "its description is no JSON", LARGEST_MANIFEST) if _HEADER in names else None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(one_line(f"{path} {_diagnosis(data, error)}")) from None
    if _HEADER not in names:
        raise CheckpointError(f"{path} is a safetensors file, but not written by manas_lite: it has no description")
    header = document(_Header, stated, path, newest=FORMAT, error=CheckpointError)
    if identity is not None and header.identity != identity:
        text = f"{path} belongs to {header.identity or 'nothing named'}, expected {identity}: load it with the genotype"
        raise CheckpointError(one_line(f"{text} or space it was made with, or use another run directory"))
    nested: dict[str, Any] = {}
    with about(path, CheckpointError):
        for name, value in [*flat.items(), *((name, {}) for name in header.empty)]:
            _put(nested, name.split("/"), value)
    return nested, header.meta


def write_atomic(path: str | Path, data: bytes | memoryview) -> None:
    """Replace a file in one step: a temporary file beside it, synced, then renamed over it.

    Whatever goes wrong, the file from before is still there and whole. An OSError says so.
    """
    path = Path(path)
    # Short whatever the file's name is, since names have a largest length.
    name = f"{zlib.crc32(path.name.encode(errors='replace')):08x}"
    temporary = path.with_name(f".{name}.{HOST}.{os.getpid()}.manas_lite.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = "the file from before is kept" if path.exists() else "nothing was written"
        raise OSError(
            error.errno, f"could not write {len(data):,} bytes ({error.strerror}); {kept}", str(path)
        ) from None
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of `write_atomic` in a folder that killed processes of this machine have left.

    Those of a living process, or of another machine, stay.
    """
    for path in folder.glob(f".*.{HOST}.[0-9]*.manas_lite.tmp"):
        if os.name == "posix":  # elsewhere nothing asks whether a process lives without harming it
            try:
                os.kill(int(path.name.split(".")[3]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except OSError:  # it lives, and is somebody else's
                pass


def write_whole(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take part of it at a time; the next part says why."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _diagnosis(data: bytes, error: Exception) -> str:
    """Tell from its first bytes what a file is that safetensors cannot read, and what to do.

    This is only for such files: a good one starts with the length of its header, which can look like anything.
    """
    if not data:
        return "is empty: restore it from a copy, or delete it to start again"
    if data.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return (
            "is a pickle (.pt, .pth) and is not opened, since loading one can run any code: "
            "this kit reads only its own safetensors files"
        )
    if data[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a checkpoint: the download failed; fetch the file again"
    return f"is truncated or damaged ({error}): restore it from a copy, or delete it to start again"


def _flatten(tensors: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Turn nested dicts into {"a/b": tensor}, and the paths of the empty dicts, which that form would lose."""
    flat: dict[str, Tensor] = {}
    empty: list[str] = []

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if not isinstance(key, str) or not key or "/" in key:
                raise ValueError(f"tensor name {key!r} under {prefix!r}: expected text without '/'")
            if isinstance(value, Tensor):
                # a copy of its own: safetensors refuses tensors that share memory
                flat[prefix + key] = value.detach().to("cpu", copy=True).contiguous()
            elif isinstance(value, Mapping):
                if not value:
                    empty.append(prefix + key)
                walk(value, f"{prefix}{key}/")
            else:
                raise TypeError(f"{prefix}{key} is {type(value).__name__}: expected a tensor or a dict of them")

    walk(tensors, "")
    return flat, empty


def _put(nested: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, key = path
    for parent in parents:
        nested = nested.setdefault(parent, {})
        if not isinstance(nested, dict):
            break
    if not isinstance(nested, dict) or key in nested:
        raise CheckpointError(f"two things in it have the name {'/'.join(path)[:200]!r}")
    nested[key] = value


# --- states of networks and optimisers ---


def dump(holder: Stateful) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state of a network, an optimiser or a scaler as (tensors, what JSON can hold), for `write`.

    Of optimisers, the shapes of the parameters are kept too: their state goes by position, so that another order of
    parameters would be read without a word.
    """
    tensors: dict[str, Any] = {}
    rest = {"class": type(holder).__name__, "state": _split(holder.state_dict(), tensors, ())}
    if isinstance(holder, torch.optim.Optimizer):
        rest["shapes"] = _shapes(holder)
    return tensors, rest


def restore(holder: Stateful, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
    """Give `holder` the state that `dump` took from another of its kind; CheckpointError where it does not fit."""
    name, kept = type(holder).__name__, rest.get("class")
    if kept != name:
        raise CheckpointError(f"the checkpoint holds the state of {kept}, not of {name}")
    if isinstance(holder, torch.optim.Optimizer) and rest.get("shapes") != _shapes(holder):
        raise CheckpointError(f"the checkpoint's {name} had other parameters, or the same in another order")
    groups: list[dict[str, Any]] = []
    try:
        state, own = _join(rest.get("state"), tensors, ()), holder.state_dict()
        if isinstance(holder, torch.optim.Optimizer):
            groups = _groups(own["param_groups"], state["param_groups"])
            own, state = _likely(holder, state["state"]), state["state"]
        check_state(own, state)
        holder.load_state_dict({"state": state, "param_groups": groups} if groups else state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint's state does not fit this {name}: {error}") from error
    if isinstance(holder, torch.optim.Optimizer):
        _lay_as_parameters(holder)


def check_state(own: Any, found: Any, place: str = "") -> None:
    """Raise CheckpointError at the first place where a state is built otherwise than `own`, and say how it differs.

    Args:
        own: a state that fits: tensors (on any device, also `meta`), numbers, texts and None, in dicts and lists.
        found: the state to check: the same names, shapes, types of numbers, and kinds of values.
        place: where in the whole both stand.
    """
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        if odd := [name for name in [*own, *found] if name not in own or name not in found]:
            lacking = "the file lacks" if odd[0] in own else "only the file has"
            first = f"the first name that differs is {dotted(place, odd[0])!r}, which {lacking}"
            raise CheckpointError(f"{_wrapped(own, found)}{first}")
        for name in own:
            check_state(own[name], found[name], dotted(place, name))
    elif type(own) is type(found) and isinstance(own, list | tuple) and len(own) == len(found):
        for number, pair in enumerate(zip(own, found, strict=True)):
            check_state(*pair, dotted(place, number))
    elif (expected := _form(own)) != (there := _form(found)):
        raise CheckpointError(f"size mismatch for {place or 'it all'}: {there} in the file, {expected} expected")


def _form(value: Any) -> str:
    """Return what `check_state` compares of a value."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}".replace("torch.", "")
    if isinstance(value, list | tuple | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    return "a number" if type(value) in (int, float) else type(value).__name__


def _wrapped(own: Mapping[Any, Any], found: Mapping[Any, Any]) -> str:
    """Say that all names have one word before them, as a wrapper such as DataParallel puts it there."""
    first = next(map(str, own), "")
    for prefix in {name.removesuffix(first) for name in map(str, found) if name.endswith(first)} - {""}:
        if {f"{prefix}{name}" for name in own} == set(found):
            return (
                f"every name begins with {prefix!r}, which a wrapper such as DataParallel or torch.compile adds: save "
                "the network inside the wrapper; "
            )
    return ""


def _groups(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an optimiser's own groups with the rates of the saved ones: all other options follow from the settings."""
    for my, their in zip(mine, theirs, strict=True):
        if my["params"] != their["params"] or type(their["lr"]) not in (float, int, Tensor):
            raise CheckpointError("its groups number their parameters otherwise, or have no rate")
        if not 0 <= float(their["lr"]) < 1e35:
            raise CheckpointError(f"a rate is {float(their['lr'])}")
    return [{**my, "lr": their["lr"]} for my, their in zip(mine, theirs, strict=True)]


def _likely(optimizer: torch.optim.Optimizer, states: dict[Any, Any]) -> dict[Any, Any]:
    """Return what the state of every parameter must be built like: a new optimiser has none before its first step.

    All parameters have the same: numbers, or tensors of the shape of the parameter. They are told apart by a parameter
    of one dimension or more.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    told = [key for key in states if key in range(len(parameters))]
    first = max(told, key=lambda key: parameters[key].dim(), default=None)
    entry = states[first].items() if told else ()
    return {
        key: {name: parameters[key] if isinstance(value, Tensor) and value.dim() else value for name, value in entry}
        for key in told
    }


def _lay_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameters, as in a run that was not cut.

    Norms over them are sums in the order of memory, which would otherwise differ in the last bit.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[list[int]]]:
    return [[list(p.shape) for p in group["params"]] for group in optimizer.param_groups]


# A state keeps its containers exactly: JSON alone would turn tuples into lists and the integer keys of an
# optimiser's state into text. A tensor is [] and is found in `tensors` under its path; a container is
# [kind, items].


def _split(value: Any, tensors: dict[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, Tensor):
        _put(tensors, path, value)
        return []
    if isinstance(value, Mapping):
        kind = "int" if value and all(type(key) is int for key in value) else "dict"
        return [kind, {key: _split(item, tensors, (*path, str(key))) for key, item in value.items()}]
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [_split(item, tensors, (*path, str(i))) for i, item in enumerate(value)]]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"state {'.'.join(path)} is {type(value).__name__}: expected a tensor, number, text or container")


def _join(node: Any, tensors: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    match node:
        case []:
            try:
                return reduce(operator.getitem, path, tensors)
            except (KeyError, TypeError, IndexError):
                raise CheckpointError(f"the tensor {'/'.join(path)!r} is missing") from None
        case ["int" | "dict" as kind, dict(items)]:
            pairs = {key: _join(item, tensors, (*path, key)) for key, item in items.items()}
            return {int(key): item for key, item in pairs.items()} if kind == "int" else pairs
        case ["list" | "tuple" as kind, list(items)]:
            joined = [_join(item, tensors, (*path, str(i))) for i, item in enumerate(items)]
            return tuple(joined) if kind == "tuple" else joined
        case list() | dict():
            raise CheckpointError(f"{'.'.join(path) or 'it'} is no [kind, items]")
    return node
