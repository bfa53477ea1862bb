"""The search space: its sizes, its candidates, its presets, and how many architectures it holds."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from manas_lite.networks.attention import edge_count
from manas_lite.networks.modules import MODULES, PUBLISHED_MODULES, STEMS
from manas_lite.networks.ops import NORMS, OPERATIONS, PUBLISHED_OPERATIONS
from manas_lite.runs.settings import LATER, check, from_preset, must_be, parse, to_dict

MOST_BRANCHES, MOST_PLACES, MOST_WEIGHTS = 12, 10_000, 1e9
"""What a space may hold at most: more than that, no machine trains. Places are searched modules and edges; weights are
those of a 3x3 convolution for each branch of each module."""


@dataclass(frozen=True)
class SearchSpace:
    """Everything that fixes the supernet but the weights. Sizes follow method sections 1-2.

    Raises ValueError for a value of another type, an unknown name, or sizes that do not fit together.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Width of each branch. Branch i works at 1/2^i of the trunk's resolution."""
    modules_per_cell: int = 4
    """Searched modules in each cell. There is a cell on 2, 3, .. len(channels) branches."""
    groups: int = 2
    """K, the channel groups of an attention block, with K(K+1)/2 searched edges."""
    attention: bool = True
    """False leaves the attention blocks out, for an ablation."""
    operations: tuple[str, ...] = PUBLISHED_OPERATIONS
    """Candidate operations of an edge, by name; see `ops.operation` for your own."""
    allow_none: bool = False
    """Whether `none` may win an edge when the supernet is discretised."""
    stem: str = "bottleneck"
    """`bottleneck` (published, full resolution) or `unshuffle` (2x2 pixels to channels: half resolution)."""
    norm: str = "batch"
    """Normalisation after each convolution: `batch`, `group` or `none`."""
    residual: bool = False
    """Predict the rain layer (output = input - network) instead of the clean image."""
    modules: tuple[str, ...] = field(default=PUBLISHED_MODULES, metadata=LATER)
    """Candidate modules of a cell, by name; see `modules.searched_module` for your own."""
    head: int = field(default=1, metadata=LATER)
    """Side of the last convolution's kernel, in pixels: 1 (published), or 3, by which the outputs of a network at half
    resolution read their neighbours."""

    def __post_init__(self) -> None:
        check(self)
        if len(self.channels) < 2:
            raise ValueError(f"channels={self.channels}: a multi-scale network needs at least two branches")
        must_be(self, "at least", 1, "modules_per_cell", "groups")
        self._check_sizes()
        if self.head not in (1, 3):
            raise ValueError(f"head is {self.head}: the last convolution has a kernel of 1 or 3 pixels")
        for width in self.channels:
            if width < 1 or width % self.groups:
                raise ValueError(f"channels={self.channels}: each must be a positive multiple of groups={self.groups}")
        _check_names("stem", (self.stem,), STEMS)
        _check_names("norm", (self.norm,), NORMS)
        for name, registry in (("operations", OPERATIONS), ("modules", MODULES)):
            _check_names(
                name,
                getattr(self, name),
                registry,
                "; import the file that registers one of your own first (on the command line: --import FILE)",
            )
        if not self.choices:
            raise ValueError("operations must hold one besides `none`, or allow_none must be set")
        if not self.modules:
            raise ValueError("modules must hold at least one name")

    def _check_sizes(self) -> None:
        """Refuse sizes that no machine can hold, by counting alone: nothing of that size is made."""
        if len(self.channels) > MOST_BRANCHES:
            raise ValueError(f"channels names {len(self.channels)} branches: at most {MOST_BRANCHES} can be held")
        blocks = sum(self.cells) * self.attention
        places = self.modules_per_cell * len(self.cells) + blocks * edge_count(self.groups)
        if places > MOST_PLACES:
            made = f"modules_per_cell={self.modules_per_cell} and groups={self.groups} make {places:,} searched places"
            raise ValueError(f"{made}: at most {MOST_PLACES:,} can be held")
        weights = 9 * self.modules_per_cell * sum(width**2 for n in self.cells for width in self.channels[:n])
        if weights > MOST_WEIGHTS:
            made = f"channels={self.channels} make {weights:,} weights or more"
            raise ValueError(f"{made}: at most {MOST_WEIGHTS:,.0f} can be held")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "SearchSpace":
        """Return the space called `smoke`, `teach`, `lite` or `paper`, with `changes` to its fields."""
        return from_preset(PRESETS, name, changes)

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of branches of each cell: 2, 3, .. B."""
        return tuple(range(2, len(self.channels) + 1))

    @property
    def module_branches(self) -> tuple[int, ...]:
        """Number of branches of each searched module: one entry per row of alpha."""
        return tuple(branches for branches in self.cells for _ in range(self.modules_per_cell))

    @property
    def block_branch(self) -> tuple[int, ...]:
        """The branch that each attention block works on, cell by cell; 0 is the widest in pixels."""
        return tuple(i for branches in self.cells for i in range(branches)) if self.attention else ()

    @property
    def edges_per_block(self) -> int:
        """Searched edges of an attention block: K(K+1)/2."""
        return edge_count(self.groups)

    @property
    def edge_branch(self) -> tuple[int, ...]:
        """The branch that each searched edge works on: one entry per row of beta."""
        return tuple(i for i in self.block_branch for _ in range(self.edges_per_block))

    def by_cell(self, modules: Sequence[Any], edges: Sequence[Any]) -> tuple[list[list], list[list[list]]]:
        """Group what belongs to the rows of alpha and of beta: for each cell its modules, and its blocks of edges.

        Rows of beta stand cell by cell, in a cell branch by branch (one block each), in a block edge by edge.
        """
        module, edge = iter(modules), iter(edges)
        blocks = [range(branches if self.attention else 0) for branches in self.cells]
        by_block = [[list(islice(edge, self.edges_per_block)) for _ in cell] for cell in blocks]
        return [list(islice(module, self.modules_per_cell)) for _ in self.cells], by_block

    @property
    def choices(self) -> tuple[str, ...]:
        """The operations that may win an edge."""
        return tuple(name for name in self.operations if self.allow_none or name != "none")

    @property
    def scale(self) -> int:
        """How many pixels of the image, in each direction, make one pixel of branch 0."""
        return STEMS[self.stem].scale

    @property
    def multiple(self) -> int:
        """What the height and width of an image are padded to multiples of, in pixels."""
        return self.scale * 2 ** (len(self.channels) - 1)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "SearchSpace":
        """Return the space that a genotype's file holds; ValueError names an unknown, missing or wrong field."""
        needed = [f.name for f in fields(cls) if f.metadata != LATER]
        if isinstance(document, Mapping) and (missing := [name for name in needed if name not in document]):
            raise ValueError(f"space: without {', '.join(missing)}")
        return parse(cls, document, where="space")

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the space: the same on every machine and in every version."""
        return hashlib.sha256(json.dumps(to_dict(self)).encode()).hexdigest()[:12]

    def count(self) -> int:
        """Return the number of architectures, (candidate modules)^modules * choices^edges.

        Example:
        >>> SearchSpace().count() == 2**12 * 8**27
        True
        """
        return len(self.modules) ** len(self.module_branches) * len(self.choices) ** len(self.edge_branch)


def _check_names(field: str, names: tuple[str, ...], known: Collection[str], advice: str = "") -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {field} {name!r}: choose among {', '.join(known)}{advice}")
    if len(set(names)) != len(names):
        raise ValueError(f"{field}={names}: a name stands there twice")


PRESETS: dict[str, SearchSpace] = {
    # Full size, as released: the published sizes are checked on it.
    "paper": SearchSpace(),
    # This kit's scaled spaces. Measured choices: no normalisation, rain-layer prediction, half resolution; in `lite`
    # depth at that resolution before width and branches below it: the trials are in results/models/trials.csv.
    "lite": SearchSpace((32, 24), 14, stem="unshuffle", norm="none", residual=True, head=3),
    "teach": SearchSpace((16, 24, 32), 2, stem="unshuffle", norm="none", residual=True),
    "smoke": SearchSpace((8, 12), 2, stem="unshuffle", norm="none", residual=True),
}
