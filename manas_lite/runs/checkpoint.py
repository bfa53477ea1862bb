"""Checkpoints: one safetensors file each, tensors and JSON together, replaced atomically; never a pickle.

`write` and `read` keep nested dicts of tensors and a `meta` that JSON can hold. `dump` and `restore` turn anything with
a `state_dict` (networks, optimisers, gradient scalers) into such a pair and back, exactly.
"""

import contextlib
import hashlib
import json
import operator
import os
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 1
_HEADER = "manas_lite"  # the one entry of safetensors' own metadata, a JSON text


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
        path: the file; its folder must exist.
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
        path: the file.
        identity: what the checkpoint must belong to; None takes any.

    Raises:
        FileNotFoundError: where there is no such file.
        CheckpointError: for a file that is truncated, was written by something else (a pickle, a web page) or by a
            later version, or belongs to another identity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    data = path.read_bytes()
    try:
        flat = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} {_diagnosis(data, error)}") from None
    names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if _HEADER not in names:
        raise CheckpointError(f"{path} is a safetensors file, but not written by manas_lite: it has no description")
    header = json.loads(names[_HEADER])
    if header["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {header['format']}, this version reads up to {FORMAT}: update manas_lite"
        )
    if identity is not None and header["identity"] != identity:
        raise CheckpointError(
            f"{path} belongs to {header['identity'] or 'nothing named'}, expected {identity}: "
            "load it with the genotype or space it was made with, or use another run directory"
        )
    return _unflatten(flat, header["empty"]), header["meta"]


def write_atomic(path: str | Path, data: bytes) -> None:
    """Replace a file in one step: a temporary file beside it, synced, then renamed over it.

    Whatever goes wrong, the file from before is still there and whole. An OSError says so.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def _unflatten(flat: Mapping[str, Tensor], empty: list[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in [*flat.items(), *((name, {}) for name in empty)]:
        _put(nested, name.split("/"), value)
    return nested


def _put(nested: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, key = path
    for parent in parents:
        nested = nested.setdefault(parent, {})
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
    name = type(holder).__name__
    if rest["class"] != name:
        raise CheckpointError(f"the checkpoint holds the state of {rest['class']}, not of {name}")
    if isinstance(holder, torch.optim.Optimizer) and rest["shapes"] != _shapes(holder):
        raise CheckpointError(f"the checkpoint's {name} had other parameters, or the same in another order")
    try:
        holder.load_state_dict(_join(rest["state"], tensors, ()))
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint's state does not fit this {name}: {error}") from error
    if isinstance(holder, torch.optim.Optimizer):
        _lay_as_parameters(holder)


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
    if not isinstance(node, list):
        return node
    if not node:
        return reduce(operator.getitem, path, tensors)
    kind, items = node
    if isinstance(items, dict):
        return {int(key) if kind == "int" else key: _join(item, tensors, (*path, key)) for key, item in items.items()}
    convert = tuple if kind == "tuple" else list
    return convert(_join(item, tensors, (*path, str(i))) for i, item in enumerate(items))
