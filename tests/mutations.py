"""Wrong versions of right documents: of JSON values, of bytes, and of safetensors files with a description in JSON."""

import json
from random import Random
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, -1, 3.5, 10**9, 10**30, -(10**18), 1e308, float("nan"), float("-inf"), "", "x", "1",
    "½\n\x00",     "\ud800", "x" * 100_000, [], [[]], [None], {}, {"a": 1}, {"": {}}, [1] * 1000,
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """All paths in a JSON value, its own empty one first."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def deep(levels: int, inner: str = "", opened: str = "[", closed: str = "]") -> str:
    return opened * levels + inner + closed * levels


def mutated(value: Any, random: Random) -> Any:
    """A copy of a JSON value with one thing wrong: replaced, gone, renamed, added, doubled, wrapped or nested deep."""
    value = json.loads(json.dumps(value))
    *parents, key = random.choice([place for place in places(value) if place] or [(0,)])
    holder = value
    for parent in parents:
        holder = holder[parent]
    kind = random.randrange(8)
    if random.random() < 0.03 or not isinstance(holder, dict | list):
        return random.choice(ODD)
    if kind <= 2:
        holder[key] = random.choice(ODD)
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, dict):
        holder[random.choice(["x", "", f"module.{key}", f"{key}/x", "a\nb"])] = holder.pop(key)
    elif kind == 5 and isinstance(holder, dict):
        holder[random.choice(["x", "format", "state", "a/b/c"])] = random.choice(ODD)
    elif kind == 6:
        holder[key] = random.choice([[holder[key]], {"a": holder[key]}, [holder[key]] * 2, str(holder[key])])
    else:
        nested: Any = holder[key]
        for _ in range(random.choice([3, 63, 64, 400])):
            nested = [nested]
        holder[key] = nested
    return value


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """Bytes with one thing wrong: cut, changed, doubled, or put among others."""
    at, kind = random.randrange(len(data) + 1), random.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at : at + random.randrange(50)] + data[at:]
    if kind == 3:
        return data[:at] + data[at + random.randrange(1, 50) :]
    return (
        data[:at]
        + random.choice([b"\xff\xfe", b"\0" * 9, b"\n", b"9" * 5000, b"[" * 50_000, b'"', b"1e999"])
        + data[at:]
    )


def mutated_text(value: Any, random: Random) -> bytes:
    """A JSON document with one thing wrong, in its values or its bytes; seldom with nesting that no parser follows."""
    if random.random() < 0.03:
        return random.choice(
            [deep(100_000), deep(50_000, "1", '{"a":', "}"), "[" * 1000, "", "\x00", "NaN", "null"]
        ).encode()
    if random.random() < 0.25:
        return mutated_bytes(json.dumps(value).encode(), random)
    return json.dumps(mutated(value, random)).encode("utf-8", "surrogatepass")


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def mutated_tensors(data: bytes, random: Random) -> bytes:
    """A safetensors file of this kit with one thing wrong: in its description, its tensors' header, or its bytes."""
    header, body = header_of(data)
    where = random.random()
    if where < 0.15:
        return mutated_bytes(data, random)
    if where < 0.35:
        return with_header(mutated(header, random), body)
    if where < 0.45:
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        name = random.choice([*tensors])
        entry = header.pop(name)
        kind = random.randrange(4)
        if kind == 0:
            entry["shape"] = random.choice([[*reversed(entry["shape"])], [*entry["shape"], 1], entry["shape"][1:]])
        elif kind == 1:
            entry["dtype"] = random.choice(["I32", "BF16", "F64", "BOOL", "F8_E8M0", "?"])
        elif kind == 2:
            return with_header({k.replace("/", "/module."): v for k, v in {**header, name: entry}.items()}, body)
        header[random.choice([name, name, f"{name}/x", name.rpartition("/")[0] or "net", "x/" * 2000])] = entry
        return with_header(header, body)
    stated = json.loads(header["__metadata__"]["manas_lite"])
    text = json.dumps(mutated(stated, random)) if where < 0.97 else deep(50_000)
    header["__metadata__"]["manas_lite"] = text
    return with_header(header, body)
