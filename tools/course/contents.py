"""Which notebooks there are, where they lie, and their presets."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from manas_lite.runs.settings import parse

__all__ = ["Notebook", "Repository", "find", "folder", "notebooks", "preset", "presets", "repository"]

TABLE = "course.yaml"


@dataclass(frozen=True)
class Notebook:
    """One notebook as course.yaml describes it."""

    number: str
    """Its number, such as "03"."""

    name: str
    """Its name, such as "bilevel_search"."""

    title: str
    """Its first line."""

    purpose: str
    """One sentence on what it is for."""

    learn: tuple[str, ...]
    """What one can do afterwards."""

    before: str
    """What to know first."""

    next: str
    """The number of the notebook to go on with."""

    exercises: tuple[str, ...] = ()
    """Names of its checkers."""

    points: dict[str, float] = field(default_factory=dict)
    """What an exercise is worth; 1 where nothing is said."""

    lent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Parts of the kit, by their full names, that the answer to an exercise may use when it is graded."""

    trains: bool = False
    """Whether a run that took no training step has failed."""

    picture: dict[str, str] = field(default_factory=dict)
    """The picture that readers of the notebook file see: its text `alt`, and what it is made `of`.

    That is a file of figures/, or the number (from 1) of a picture that a run shows.
    """

    def worth(self, exercise: str) -> float:
        """Return the points of an exercise."""
        return self.points.get(exercise, 1.0)

    @property
    def stem(self) -> str:
        """Number and name, such as "03_bilevel_search"."""
        return f"{self.number}_{self.name}"

    @property
    def path(self) -> Path:
        """The student's notebook: what badges and JupyterLab open."""
        return folder() / f"{self.stem}.ipynb"

    @property
    def picture_path(self) -> Path:
        """The file of its picture, beside other figures of the clone."""
        return folder().parent / "figures" / "notebooks" / f"{self.stem}.webp"

    @cached_property
    def source(self) -> str:
        """The text that both versions are made from."""
        return (folder() / "sources" / f"{self.stem}.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Repository:
    """Where the project lives: stated once, in course.yaml, and empty until its owner fills it in.

    Whoever registered a name that the notebooks point to could run code in students' sessions. So nothing points
    anywhere before the owner has said where.
    """

    address: str
    """OWNER/NAME at GitHub, or nothing."""

    ref: str
    """The tag that badges open and whose release the set-up cell installs."""

    wheel: str
    """File name of the wheel of that release."""

    sha256: str
    """Its hash, which pip checks."""

    @property
    def url(self) -> str:
        """Return the address of the project's page, or nothing."""
        return self.address and f"https://github.com/{self.address}"

    def badge(self, notebook: Notebook) -> str:
        """Return the Open-in-Colab badge, in Markdown; nothing while there is no address."""
        if not self.address:
            return ""
        target = (
            f"https://colab.research.google.com/github/{self.address}/blob/{self.ref}/notebooks/{notebook.path.name}"
        )
        return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"

    @property
    def requirement(self) -> str:
        """What pip installs where the package is missing; nothing while there is no address."""
        release = f"{self.url}/releases/download/{self.ref}/{self.wheel}#sha256={self.sha256}"
        return f"manas_lite @ {release}" if self.address else ""


def folder() -> Path:
    """Return the folder of the notebooks, `notebooks/` of this clone."""
    return Path(__file__).resolve().parents[2] / "notebooks"


def notebooks() -> tuple[Notebook, ...]:
    """Return all notebooks, in order."""
    entries = _table()["notebooks"]
    return tuple(parse(Notebook, {"number": number, **entries[number]}, where=number) for number in sorted(entries))


def find(name: str) -> Notebook:
    """Return a notebook by number ("03", "3"), name, or file name; ValueError names the nearest."""
    wanted = Path(name).stem
    wanted = wanted.zfill(2) if wanted.isdecimal() else wanted
    known = notebooks()
    for notebook in known:
        if wanted in (notebook.number, notebook.name, notebook.stem):
            return notebook
    names = [notebook.stem for notebook in known]
    near = difflib.get_close_matches(wanted, [*names, *(n.name for n in known)], n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no notebook {name!r}: {hint}There are {', '.join(names)}")


def repository() -> Repository:
    """Return where the project lives."""
    return Repository(**_table()["repository"])


def presets() -> tuple[str, ...]:
    """Return the names of the presets: the files of `notebooks/params`."""
    order = ("smoke", "teach", "gpu", "paper")
    names = {path.stem for path in (folder() / "params").glob("*.yaml")}
    return tuple(sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)))


def preset(name: str, notebook: Notebook) -> Mapping[str, Any]:
    """Return the parameters that a preset sets in a notebook: those under its number."""
    path = folder() / "params" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(presets())}")
    table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return table.get(notebook.number, {})


def _table() -> dict[str, Any]:
    return yaml.safe_load((folder() / TABLE).read_text(encoding="utf-8"))
