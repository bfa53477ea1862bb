"""Which file belongs to which: pairing rainy and clean files by their names, and reading roles off names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

_RAINY = r"rainy[-_ ]?images?|rainy?|inputs?|in|lq|degraded|leftimg8bit[-_]rain"
_CLEAN = (
    r"no[-_ ]?rain|non[-_ ]?rain|clean|clear|targets?|gts?|ground[-_ ]?truth|labels?|hq|original|reference"
    r"|leftimg8bit"
)
_PARTS = {
    "train": r"train[a-z]*",
    "val": r"(?:val(?:id(?:ation)?)?|dev)(?:set|data|list)?",
    "test": r"test[a-z]*|(?:eval(?:uation)?|holdout)(?:set|data|list)?",
}
_PART = "|".join(_PARTS.values())
_FOLDER = re.compile(rf"^(?:(?P<clean>{_CLEAN})|(?P<rainy>{_RAINY}))(?:[-_ ]?(?P<part>{_PART}))?$")
_WORD = rf"(?:{_CLEAN}|{_RAINY}|images?|img|im)"
_PREFIX = re.compile(rf"^{_WORD}(?:[-_ ]+|(?=\d))")
_SUFFIX = re.compile(rf"(?:[-_ ]+|(?<=\d)){_WORD}$")
_SCALE = re.compile(r"(?<=\d)x\d$")  # norain-12x2.png
_LEVEL = re.compile(r"(?:^|[-_ ])(light|medium|heavy)$")
_PART_WORD = re.compile("|".join(rf"(?P<{part}>{words})" for part, words in _PARTS.items()))


def role_of(folder: str, stated: str | None = None) -> tuple[str, str] | None:
    """Return ("rainy" or "clean", the part in its name or "") for a folder name, or None where it says neither.

    Where the user states it, `stated` is "RAINY:CLEAN", the names of the rainy and of the clean folders.

    Example:
        >>> role_of("rain"), role_of("label_val"), role_of("Rain100L")
        (('rainy', ''), ('clean', 'val'), None)
    """
    if stated and ":" in stated:
        kinds = dict(zip(stated.lower().split(":"), ("rainy", "clean"), strict=True))
        return (kinds[folder.lower()], "") if folder.lower() in kinds else None
    found = _FOLDER.match(folder.lower())
    if not found:
        return None
    return ("clean" if found["clean"] else "rainy"), (found["part"] or "")


def stem_role(stem: str, stated: str | None = None) -> str | None:
    """Return "rainy" or "clean" for a file name without ending, by its first or last word, or None; see `role_of`."""
    words = re.split(r"[-_ ]|(?<=\D)(?=\d)|(?<=\d)(?=\D)", stem.lower())
    for word in (words[0], words[-1], "-".join(words[:2])):
        role = role_of(word, stated)
        if role:
            return role[0]
    return None


def role_beside(name: str, other: str) -> str | None:
    """Return "rainy" or "clean" for a path beside another one, by the words that it has alone, or None.

    Example:
        >>> role_beside("rain_pics", "sunny_pics"), role_beside("a/gt", "a/data"), role_beside("A", "B")
        ('rainy', 'clean', None)
    """
    own, others = (set(re.split(r"[^a-z0-9]+", path.lower())) for path in (name, other))
    roles = {("rainy", "") if level_of(word) else role_of(word) for word in own - others} - {None}
    return roles.pop()[0] if len(roles) == 1 else None  # type: ignore[index]


def part_of(folders: Iterable[str]) -> str | None:
    """Return "train", "val" or "test" from the first word in the names of folders that says so.

    Example:
        >>> part_of(["DID-MDN-training", "Rain_Heavy"]), part_of(["evalSet"]), part_of(["contest", "Valencia"])
        ('train', 'test', None)
    """
    words = (word for folder in folders for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", folder))
    found = (_PART_WORD.fullmatch(word.lower()) for word in words)
    return next((match.lastgroup for match in found if match), None)


def level_of(folder: str) -> str | None:
    """Return "light", "medium" or "heavy" from a folder name such as Rain_Heavy, or None."""
    found = _LEVEL.search(folder.lower())
    return found[1] if found else None


def file_key(stem: str) -> str:
    """Return what is left of a name without words for rain, clean or image, scale marks and leading zeros.

    Example:
        >>> [file_key(s) for s in ("norain-001", "rain-1", "norain-12x2", "im_0001", "5gt", "IMG_20")]
        ['1', '1', '12', '1', '5', '20']
    """
    key = stem.lower()
    for pattern in (_PREFIX, _SUFFIX, _SCALE):
        shorter = pattern.sub("", key)
        key = shorter or key
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), key)


def match_names(rainy: Sequence[str], clean: Sequence[str]) -> dict[str, str]:
    """Map each rainy file to its clean one, both named by relative POSIX paths; a name without a twin is left out.

    Tried in order: the same path, the same key (`file_key`) in the same folder, the same key in any folder,
    the longest beginning of the key that ends before a separator (`7_12` is the twelfth rain over `7`), the same
    numbers in any folder. A key that two clean files share decides nothing. Names only propose: whether two pictures
    show one scene is asked of the pictures (`manas_lite.data.pairing`).
    """
    exact = {_without_ending(name): name for name in clean}
    local = _unique((_split(name), name) for name in clean)
    anywhere = _unique((_split(name)[1], name) for name in clean)
    numbered = _unique((_numbers(name), name) for name in clean if _numbers(name))
    pairs = {}
    for name in rainy:
        folder, key = _split(name)
        ends = [len(key), *(match.start() for match in reversed([*re.finditer(r"[-_ ]", key)]))]
        by_key = [local.get((folder, key[:end])) or anywhere.get(key[:end]) for end in ends]
        twins = [exact.get(_without_ending(name)), *by_key, numbered.get(_numbers(name))]
        if twin := next(filter(None, twins), None):
            pairs[name] = twin
    return pairs


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key under which 2 comes before 10."""
    pieces = re.split(r"(\d+)", name)
    return tuple((0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in pieces if p)


def _unique(items: Iterable[tuple[Any, str]]) -> dict[Any, str | None]:
    """Return a dictionary in which a key given twice leads nowhere."""
    found: dict[Any, str | None] = {}
    for key, name in items:
        found[key] = None if key in found else name
    return found


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return str(path.parent), file_key(path.stem)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", PurePosixPath(name).stem)))


def _without_ending(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
