"""Splits: three lists of scenes with no background in common, saved as JSON with a hash."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manas_lite.data.scenes import Scene
from manas_lite.runs.checkpoint import write_atomic
from manas_lite.runs.documents import about, document, read_json
from manas_lite.runs.settings import parse, to_dict

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class _Saved:
    version: int
    sha256: str
    root: str
    parts: dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Training, validation and test scenes; no scene name and no clean picture may stand in two parts."""

    train: tuple[Scene, ...]
    val: tuple[Scene, ...]
    test: tuple[Scene, ...]

    def __post_init__(self) -> None:
        home: dict[object, str] = {}
        for part in PARTS:
            scenes = tuple(getattr(self, part))
            object.__setattr__(self, part, scenes)
            for scene in scenes:
                for key in (scene.name, scene.clean):
                    if home.setdefault(key, part) != part:
                        raise ValueError(
                            f"background {str(key)!r} is in {home[key]} and in {part}; the parts of a split "
                            "must not share one: split by scene (split_scenes), never by rainy picture"
                        )

    @property
    def sha256(self) -> str:
        """Hash of who is where: of names, labels and paths relative to the common folder, not of pixels."""
        return hashlib.sha256(_canonical(self._parts()).encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the split as JSON, with its hash, and return the path."""
        path = Path(path)
        content = {"version": 1, "sha256": self.sha256, "root": str(self._root()), "parts": self._parts()}
        write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> "Split":
        """Return a saved split; `root` is the data's folder where it has moved since.

        Raises:
            ValueError: the file is no split, or its contents no longer have the hash that it states.
        """
        saved = document(_Saved, read_json(Path(path)), f"{path}: is not a split saved by Split.save")
        base = Path(saved.root if root is None else root)
        with about(path):
            found = hashlib.sha256(_canonical(saved.parts).encode()).hexdigest()
            if found != saved.sha256:
                raise ValueError(f"was changed after it was saved (sha256 {found}, stated {saved.sha256})")
            return parse(cls, _with_paths(saved.parts, lambda path: str(base / path)))

    def _root(self) -> Path:
        folders = {str(file.absolute().parent) for part in PARTS for s in getattr(self, part) for file in s.files()}
        return Path(os.path.commonpath(folders)) if folders else Path()

    def _parts(self) -> dict[str, Any]:
        root = self._root()
        return _with_paths(to_dict(self), lambda path: Path(path).absolute().relative_to(root).as_posix())


def split_scenes(
    scenes: Iterable[Scene],
    seed: int,
    val: float = 0.1,
    test: float = 0.1,
    backgrounds: Mapping[str, str] | None = None,
) -> Split:
    """Divide scenes at random by background.

    The order is that of a hash of (seed, name): it does not depend on how the scenes were listed, and a scene
    added later leaves the order of the others as it is. Scenes of one name stay together.

    Args:
        seed: draws the order.
        val, test: shares of the backgrounds, in [0, 1); one above 0 gets at least one background.
        backgrounds: scene name -> name of its background, for scenes that must stay together under several names.

    Raises:
        ValueError: a share is out of range, or no background is left to train on.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"val and test are shares that leave something to train on, got {val} and {test}")
    groups: dict[str, list[Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.name, str(scene.clean), *map(str, scene.rainy))):
        groups.setdefault((backgrounds or {}).get(scene.name, scene.name), []).append(scene)
    names = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).digest())
    n_test, n_val = (max(1, round(share * len(names))) if share else 0 for share in (test, val))
    if len(names) <= n_test + n_val:
        raise ValueError(
            f"{len(names)} background(s) cannot be split into training, {n_val} for validation and "
            f"{n_test} for test; add scenes, or set val=0 or test=0"
        )
    # A chunk of backgrounds per part, in the order test, val, train.
    chunks = names[:n_test], names[n_test : n_test + n_val], names[n_test + n_val :]
    test_scenes, val_scenes, train_scenes = ([s for name in chunk for s in groups[name]] for chunk in chunks)
    return Split(tuple(train_scenes), tuple(val_scenes), tuple(test_scenes))


def _canonical(parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _with_paths(node: Any, change: Callable[[str], str]) -> Any:
    """Return a split as JSON holds it, or a piece of it, with another text for each path of a picture."""
    if isinstance(node, list):
        return [_with_paths(item, change) for item in node]
    if isinstance(node, dict):
        paths = {key: change(item) for key, item in node.items() if key == "path" and isinstance(item, str)}
        return {key: _with_paths(item, change) for key, item in node.items()} | paths
    return node
