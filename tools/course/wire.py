"""What crosses the pipe between the judge and a student's process: calls, plain values and gradients.

A message is JSON, followed by the bytes of its arrays. The judge never unpickles anything, and it runs nothing that the
other end names: what it receives are numbers, texts, arrays, tensors, and lists and tables of them. Both ends are a
`Peer`. While one waits for the answer to its call, it answers the calls of the other, so that a student's function may
call a function that it was given (the derivatives of a loss, the scores of a table), which stays with the judge.

A tensor that requires a gradient keeps it: `backward` crosses the pipe as well.

This file imports nothing of the kit, because it also runs where the kit cannot be seen.
"""

import builtins
import collections
import json
import keyword
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Ended", "Peer"]

HEAD = struct.Struct(">II")
LENGTH = struct.Struct(">Q")
LISTS = {"l": list, "t": tuple, "s": set}
SAID = 2000  # characters of an error's message


class Ended(BaseException):
    """The other end is gone, out of its time, or sends what is no message. No checker catches this."""


class Peer:
    """One end of the pipe.

    Args:
        reads: file descriptor to read from.
        writes: file descriptor to write to.
        trusting: whether what comes may hold functions and pickled classes. Only the student's end trusts the judge.
        most: bytes that a message may have, and a hundredth of what all of them may have together; None for no limit.
    """

    def __init__(self, reads: int, writes: int, *, trusting: bool = False, most: int | None = None) -> None:
        self.reads, self.writes, self.trusting, self.most = reads, writes, trusting, most
        self.left = None if most is None else 100 * most
        self.deadline: float | None = None
        self.watch: Callable[[], None] = lambda: None  # called once a second while the other end is waited for
        self.watched = 0.0
        self.offered: list[Callable[..., Any]] = []  # functions that the other end may call, by number
        self.graphs: list[tuple[Any, list[Any]]] = []  # answers with a gradient, and the tensors they come from

    # --- calls ---

    def offer(self, function: Callable[..., Any]) -> int:
        """Return the number by which the other end may call a function."""
        self.offered.append(function)
        return len(self.offered) - 1

    def call(self, number: int, *args: Any, **kwargs: Any) -> Any:
        """Return what a function of the other end answers, or raise what it raises."""
        inputs: list[Any] = []
        self._send(self._packed({"do": "call", "of": number}, [list(args), kwargs], inputs=inputs))
        return self._answer(inputs)

    def serve(self) -> None:
        """Answer calls until the other end closes the pipe."""
        while True:
            self._serve(*self._receive())

    def _answer(self, inputs: list[Any]) -> Any:
        while True:
            head, body, raw = self._receive()
            if head["do"] == "return":
                return self._decode(body, raw, lambda tensor, number: _connected(self, tensor, number, inputs))
            if head["do"] == "raise":
                raise _error(head)
            self._serve(head, body, raw)

    def _serve(self, head: Mapping[str, Any], body: Any, raw: list[bytes]) -> None:
        try:
            leaves: list[Any] = []
            if head["do"] == "backward":
                value = self._backward(head["of"], self._decode(body, raw, None))
            elif head["do"] == "call" and 0 <= head["of"] < len(self.offered):
                args, kwargs = self._decode(body, raw, lambda tensor, _: _leaf(tensor, leaves))
                value = self.offered[head["of"]](*args, **kwargs)
            else:
                raise Ended("what is sent is no call")
            message = self._packed({"do": "return"}, value, leaves=leaves)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            line = getattr(error, "line", "")
            message = self._packed({"do": "raise", "kinds": names, "text": _text(error), "line": line}, None)
        self._send(message)

    def _backward(self, number: int, gradient: Any) -> Any:
        import torch

        output, inputs = self.graphs[number]
        if not inputs:
            return []
        return list(torch.autograd.grad(output, inputs, gradient, retain_graph=True, allow_unused=True))

    # --- bytes ---

    def _packed(self, head: dict[str, Any], value: Any, **gradients: list[Any]) -> bytes:
        """Return a message. `inputs` takes the tensors of a call whose gradient may be asked for later; `leaves` are
        those that an answer comes from."""
        raw: list[bytes] = []
        text = json.dumps([head, self._encode(value, raw, **gradients)]).encode()
        return b"".join([HEAD.pack(len(text), len(raw)), *(LENGTH.pack(len(each)) for each in raw), text, *raw])

    def _send(self, message: bytes) -> None:
        data = memoryview(message)
        try:
            while data:
                self._wait(write=True)
                data = data[os.write(self.writes, data[:4096] if self.deadline else data) :]  # 4096 never block
        except OSError:
            raise Ended("the pipe is closed") from None

    def _receive(self) -> tuple[dict[str, Any], Any, list[bytes]]:
        length, count = HEAD.unpack(self._read(HEAD.size))
        if self.most is not None and (length > self.most or count > 10_000):
            raise Ended("more is sent than an answer can need")
        sizes = [LENGTH.unpack(self._read(LENGTH.size))[0] for _ in range(count)]
        if self.most is not None and self.left is not None:
            self.left -= length + sum(sizes)
            if length + sum(sizes) > self.most or self.left < 0:
                raise Ended("more is sent than an answer can need")
        try:
            head, body = json.loads(self._read(length))
            if not (isinstance(head, dict) and isinstance(head["do"], str) and isinstance(head.get("of", 0), int)):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Ended("what is sent is no message") from None
        return head, body, [self._read(size) for size in sizes]

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait()
            try:
                part = os.read(self.reads, min(size - len(data), 1 << 20))
            except OSError:
                part = b""
            if not part:
                raise Ended("the pipe is closed")
            data += part
        return bytes(data)

    def _wait(self, write: bool = False) -> None:
        if self.deadline is None:
            return
        reads, writes = ([], [self.writes]) if write else ([self.reads], [])
        while True:
            now = time.monotonic()
            if now - self.watched >= 1:
                self.watched = now
                self.watch()
            if now >= self.deadline:
                raise Ended("out of time")
            if any(select.select(reads, writes, [], min(1, self.deadline - now))):
                return

    # --- values ---

    def _encode(
        self, value: Any, raw: list[bytes], inputs: list[Any] | None = None, leaves: list[Any] | None = None
    ) -> Any:
        def put(data: bytes) -> int:
            raw.append(data)
            return len(raw) - 1

        def encode(value: Any) -> Any:
            if value is None or isinstance(value, bool):
                return value
            if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufcUS":
                array = np.ascontiguousarray(value)
                kind = "a" if isinstance(value, np.ndarray) else "g"
                return [kind, array.dtype.str, list(np.shape(value)), put(array.tobytes())]
            if isinstance(value, str):
                return str(value)
            if isinstance(value, int):
                return ["i", hex(value)]
            if isinstance(value, float):
                return ["f", float(value).hex()]
            if isinstance(value, complex):
                return ["z", value.real, value.imag]
            if isinstance(value, bytes):
                return ["b", put(bytes(value))]
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return ["n", type(value).__name__, list(value._fields), [encode(each) for each in value]]
            for letter, listed in LISTS.items():
                if isinstance(value, listed):
                    return [letter, [encode(each) for each in value]]
            if isinstance(value, Mapping):
                return ["d", [[encode(key), encode(each)] for key, each in value.items()]]
            torch = sys.modules.get("torch")
            if torch is not None and isinstance(value, torch.Tensor):
                return self._tensor(value, put, inputs, leaves)
            if isinstance(value, np.random.Generator):
                state = value.bit_generator.state
                return ["r", state["bit_generator"], encode(state)]
            if not self.trusting:  # this is the judge, whose functions and objects stay here
                return self._handle(value, encode, put)
            if isinstance(value, Iterable) and not isinstance(value, type) and not callable(value):
                return ["l", [encode(each) for each in value]]  # map, zip, range, the keys of a table
            return ["x", type(value).__name__]

        return encode(value)

    def _tensor(
        self, value: Any, put: Callable[[bytes], int], inputs: list[Any] | None, leaves: list[Any] | None
    ) -> Any:
        import torch

        plain = value.detach().cpu().resolve_conj().resolve_neg()
        plain = (plain.to_dense() if plain.layout != torch.strided else plain).contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        number = None
        if value.requires_grad and leaves is not None:
            self.graphs.append((value, leaves))
            number = len(self.graphs) - 1
        elif value.requires_grad and inputs is not None:
            inputs.append(value)
            number = len(inputs) - 1
        return ["T", str(plain.dtype).removeprefix("torch."), list(plain.shape), put(data), number]

    def _handle(self, value: Any, encode: Callable[[Any], Any], put: Callable[[bytes], int]) -> Any:
        if isinstance(value, type):
            return ["k", put(_pickled(value))]
        if callable(value):
            return ["c", self.offer(value), getattr(value, "__name__", "function")]
        names = [name for name in dir(value) if not name.startswith("_")]
        parts = [[name, encode(getattr(value, name))] for name in names]
        return ["o", type(value).__name__, parts]

    def _decode(self, body: Any, raw: list[bytes], graded: Callable[[Any, int], Any] | None) -> Any:
        def decode(body: Any) -> Any:
            if body is None or isinstance(body, bool | str):
                return body
            mark, *rest = body
            if mark in LISTS:
                return LISTS[mark](decode(each) for each in rest[0])
            if mark == "d":
                return {decode(key): decode(value) for key, value in rest[0]}
            if mark == "i":
                return int(rest[0], 16)
            if mark == "f":
                return float.fromhex(rest[0])
            if mark == "z":
                return complex(*rest)
            if mark == "b":
                return raw[rest[0]]
            if mark in "ag":
                kind = np.dtype(rest[0])
                if kind.kind not in "biufcUS" or kind.hasobject:
                    raise TypeError(f"an array of {kind} cannot be sent")
                array = np.frombuffer(raw[rest[2]], kind).reshape(rest[1]).copy()
                return array if mark == "a" else array[()]
            if mark == "T":
                return self._tensor_of(rest, raw, graded)
            if mark == "n" and not self.trusting:
                return tuple(map(decode, rest[2]))
            if mark == "n":
                return collections.namedtuple(_name(rest[0]), rest[1])(*map(decode, rest[2]))
            if mark == "r":
                generator = np.random.Generator(_BITS[rest[0]]())
                generator.bit_generator.state = decode(rest[1])
                return generator
            if mark == "x":
                return type(_name(rest[0]), (), {})()  # of a kind that cannot be sent: a checker says which
            if self.trusting:
                return self._handled(mark, rest, raw, decode)
            raise TypeError("what is sent is no plain value")

        try:
            return decode(body)
        except (ValueError, TypeError, LookupError, RuntimeError, AttributeError, OverflowError, MemoryError) as error:
            if self.trusting:
                raise
            raise TypeError(f"the answer cannot be read: {_text(error)}") from None

    def _tensor_of(self, rest: list[Any], raw: list[bytes], graded: Callable[[Any, int], Any] | None) -> Any:
        import torch

        kind = getattr(torch, rest[0])
        if not isinstance(kind, torch.dtype):
            raise TypeError("no type of a tensor")
        data = bytearray(raw[rest[2]])
        tensor = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
        tensor = tensor.reshape([int(side) for side in rest[1]])
        return tensor if rest[3] is None or graded is None else graded(tensor, int(rest[3]))

    def _handled(self, mark: str, rest: list[Any], raw: list[bytes], decode: Callable[[Any], Any]) -> Any:
        if mark == "c":
            number, name = rest

            def function(*args: Any, **kwargs: Any) -> Any:
                return self.call(number, *args, **kwargs)

            function.__name__ = function.__qualname__ = name
            return function
        if mark == "o":
            name, parts = rest
            made = type(name, (), {})()
            for attribute, value in parts:
                setattr(made, attribute, decode(value))
            return made
        if mark == "k":
            import pickle

            return pickle.loads(raw[rest[0]])
        raise TypeError(f"unknown mark {mark!r}")


_BITS = {name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")}


def _leaf(tensor: Any, leaves: list[Any]) -> Any:
    """Return a copy of a tensor that may be written into, and keep the leaf whose gradient is asked for."""
    leaves.append(tensor.requires_grad_())
    return tensor.clone()


def _connected(peer: Peer, value: Any, number: int, inputs: list[Any]) -> Any:
    """Return a tensor whose `backward` asks the other end for the gradients of `inputs`."""
    import torch

    class Remote(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, *inputs: Any) -> Any:
            return value

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            peer._send(peer._packed({"do": "backward", "of": number}, gradients[0]))
            found = peer._answer([])
            if not isinstance(found, list) or len(found) != len(inputs):
                raise TypeError("the gradients cannot be read")
            return tuple(found)

    return Remote.apply(*inputs) if inputs else value.requires_grad_()


def _pickled(kind: type) -> bytes:
    """Return a class as bytes that hold its code, so that they can be read where its module cannot be seen."""
    import cloudpickle

    kit = [sys.modules[name] for name in ("manas_lite", "manas_course") if name in sys.modules]
    for package in kit:
        cloudpickle.register_pickle_by_value(package)
    try:
        return cloudpickle.dumps(kind)
    finally:
        for package in kit:
            cloudpickle.unregister_pickle_by_value(package)


def _error(head: Mapping[str, Any]) -> BaseException:
    """Return an error of the other end: one of Python's own kinds, with the name that it had there."""
    names = [_name(name) for name in head.get("kinds", []) if isinstance(name, str)] or ["Exception"]
    base: type[BaseException] = Exception
    for name in names:
        known = getattr(builtins, name, None)
        if isinstance(known, type) and (issubclass(known, Exception) or known is SystemExit):
            base = known
            break
    text, line = str(head.get("text", ""))[:SAID], str(head.get("line", ""))[:200]
    said = f"{text} (in `{line}`)" if line else text
    if base.__name__ == names[0]:
        with_text = base.__new__(base, said)
        with_text.args = (said,)
        return with_text
    kind = type(names[0], (base,), {"__init__": lambda self, text: None, "__str__": lambda self: said})
    return kind(said)


def _name(text: str) -> str:
    return text if text.isidentifier() and not keyword.iskeyword(text) and len(text) < 60 else "Other"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:SAID]
    except Exception:
        return type(error).__name__
