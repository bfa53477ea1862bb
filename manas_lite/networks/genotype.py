"""Genotype: one architecture of a search space, frozen, hashable, and kept as JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from manas_lite.networks.costs import measure_costs
from manas_lite.networks.space import SearchSpace
from manas_lite.runs.documents import LARGEST_JSON, about, decode, read_bytes
from manas_lite.runs.settings import check, parse, to_dict

FORMAT, VERSION = "manas_lite.genotype", 1


@dataclass(frozen=True)
class Genotype:
    """The choices of one architecture, in a space.

    Raises ValueError for another number of choices than the space has places, or a name that it does not know.
    """

    space: SearchSpace
    """The space that the choices were made in."""
    modules: tuple[str, ...]
    """The chosen module at each place, cell by cell: one per row of alpha."""
    edges: tuple[str, ...]
    """The chosen operation on each edge: one per row of beta. Cell by cell, branch by branch, and within a block
    (k=0, j=0), (k=1, j=0), (k=1, j=1), ... `none` may be written by hand whatever the space allows to win."""

    def __post_init__(self) -> None:
        check(self)
        modules = "modules", self.modules, len(self.space.module_branches), self.space.modules
        edges = "edges", self.edges, len(self.space.edge_branch), self.space.operations
        for field, names, count, known in (modules, edges):
            if len(names) != count:
                raise ValueError(f"the space has {count} searched {field}, the genotype {len(names)}")
            for name in names:
                if name not in known:
                    raise ValueError(f"{name!r} is none of the space's {field}: {', '.join(known)}")

    @classmethod
    def from_logits(cls, space: SearchSpace, alpha: Tensor, beta: Tensor) -> "Genotype":
        """Return the choices of the largest logit in each row (method section 3).

        The logits are alpha (modules, candidate modules) and beta (edges, operations). `none` can win only where the
        space allows it.
        """
        banned = torch.tensor([name not in space.choices for name in space.operations], device=beta.device)
        modules = tuple(space.modules[k] for k in alpha.argmax(1).tolist())
        edges = tuple(space.operations[k] for k in beta.masked_fill(banned, -torch.inf).argmax(1).tolist())
        return cls(space, modules, edges)

    @classmethod
    def random(cls, space: SearchSpace, seed: int) -> "Genotype":
        """Draw an architecture uniformly from the space (without `none` unless the space allows it)."""
        rng = np.random.default_rng(seed)
        modules = rng.choice(list(space.modules), len(space.module_branches))
        edges = rng.choice(list(space.choices), len(space.edge_branch))
        return cls(space, tuple(modules.tolist()), tuple(edges.tolist()))

    @classmethod
    def hand_made(cls, space: SearchSpace, edge: str = "SE") -> "Genotype":
        """Return what one would build by hand: in each cell parallel modules and a fusion last, as in HRNet, and SE."""
        return cls._repeated(space, ["parallel"] * (space.modules_per_cell - 1) + ["fusion"], edge)

    @classmethod
    def all_parallel(cls, space: SearchSpace, edge: str = "SE") -> "Genotype":
        """Return parallel modules everywhere; edges as in `hand_made`, so that arms differ in their modules alone."""
        return cls._repeated(space, ["parallel"], edge)

    @classmethod
    def all_fusion(cls, space: SearchSpace, edge: str = "SE") -> "Genotype":
        """Return fusion modules everywhere; edges as in `hand_made`."""
        return cls._repeated(space, ["fusion"], edge)

    @classmethod
    def no_attention(cls, space: SearchSpace) -> "Genotype":
        """Return the modules of `hand_made` without any attention block."""
        return cls.hand_made(replace(space, attention=False))

    @classmethod
    def _repeated(cls, space: SearchSpace, pattern: list[str], edge: str) -> "Genotype":
        modules = pattern * (len(space.module_branches) // len(pattern))
        return cls(space, tuple(modules), (edge,) * len(space.edge_branch))

    def cost(self, unit: str = "parameters", size: tuple[int, int] = (256, 256)) -> float:
        """Return the derived network's parameters, or its FLOPs (a multiply-add is two) on one image of `size`."""
        return measure_costs(self.space, unit, size).of(self.modules, self.edges)

    def to_json(self) -> str:
        """Return canonical JSON: equal genotypes give equal texts."""
        return json.dumps({"format": FORMAT, "version": VERSION, **to_dict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Genotype":
        """Read `to_json`'s text; ValueError where it is something else or of a later version."""
        document = decode(text, "not a genotype: the text is not JSON")
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise ValueError(f"not a genotype: expected JSON with format {FORMAT!r}")
        if type(version := document.get("version")) is not int or version != VERSION:
            later = "a later one was written by a later manas_lite, so update it"
            raise ValueError(f"genotype version {version}: this package reads version {VERSION}; {later}")
        choices = {name: value for name, value in document.items() if name not in ("format", "version")}
        if "space" in choices:
            choices["space"] = SearchSpace.from_dict(choices["space"])
        return parse(cls, choices, where="genotype")

    @classmethod
    def load(cls, path: str | Path) -> "Genotype":
        """Read a genotype.json file; ValueError names a file that holds something else."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no genotype at {path}: search() writes genotype.json in its run directory")
        with about(path):
            return cls.from_json(read_bytes(path, LARGEST_JSON))

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the architecture: the same on every machine and in every version."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
