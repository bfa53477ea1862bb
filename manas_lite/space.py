"""The search space: its sizes, its presets and how many architectures it holds (costs.py: what each costs).

space = SearchSpace.preset("lite")
space.count()                     # architectures
space.costs("flops").edges        # (edges, operations), looked up by operation name
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from .attention import edge_count
from .modules import MODULES, STEMS
from .ops import NORMS, OPERATIONS

if TYPE_CHECKING:
    from .costs import Costs


@dataclass(frozen=True)
class SearchSpace:
    """Everything that fixes the supernet but the weights. Sizes follow method sections 1-2.

    channels: width of each branch; branch i works at 1/2^i of the trunk's resolution.
    modules_per_cell: searched modules in each cell; there is a cell on 2, 3, .. len(channels) branches.
    groups: K, channel groups of an attention block, with K(K+1)/2 searched edges.
    attention: False leaves the attention blocks out (an ablation).
    operations: candidate operations of an edge, by name.
    allow_none: whether `none` may win an edge when the supernet is discretised.
    stem: `bottleneck` (published, full resolution) or `unshuffle` (2x2 pixels to channels: half resolution).
    norm: `batch`, `group` or `none`.
    residual: predict the rain layer (output = input - network) instead of the clean image.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    modules_per_cell: int = 4
    groups: int = 2
    attention: bool = True
    operations: tuple[str, ...] = tuple(OPERATIONS)
    allow_none: bool = False
    stem: str = "bottleneck"
    norm: str = "batch"
    residual: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):  # the fields' types are those of their defaults
            value, default = getattr(self, item.name), item.default
            if isinstance(default, tuple) and isinstance(value, list):
                value = tuple(value)  # JSON hands lists over; the space must stay hashable
                object.__setattr__(self, item.name, value)
            parts, kinds = (value, default) if isinstance(default, tuple) else ((value,), (default,))
            kind = type(kinds[0])
            if not isinstance(parts, tuple) or any(type(part) is not kind for part in parts):
                expected = f"a tuple of {kind.__name__}" if isinstance(default, tuple) else kind.__name__
                raise ValueError(f"{item.name}={value!r}: expected {expected}")
        if len(self.channels) < 2:
            raise ValueError(f"channels={self.channels}: a multi-scale network needs at least two branches")
        if self.modules_per_cell < 1 or self.groups < 1:
            raise ValueError("modules_per_cell and groups must be at least 1")
        for width in self.channels:
            if width < 1 or width % self.groups:
                raise ValueError(f"channels={self.channels}: each must be a positive multiple of groups={self.groups}")
        known: dict[str, Collection[str]] = {"operations": OPERATIONS, "stem": STEMS, "norm": NORMS}
        for field, choices in known.items():
            value = getattr(self, field)
            for name in value if isinstance(value, tuple) else (value,):
                if name not in choices:
                    raise ValueError(f"unknown {field} {name!r}: choose among {', '.join(choices)}")
        if len(set(self.operations)) != len(self.operations):
            raise ValueError(f"operations={self.operations}: a name stands there twice")
        if not self.choices:
            raise ValueError("operations must hold one besides `none`, or allow_none must be set")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "SearchSpace":
        """The space called `smoke`, `teach`, `lite` or `paper`, with `changes` to its fields.

        >>> SearchSpace.preset("paper").channels
        (32, 64, 128, 256)
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        unknown = set(changes) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}: a space has {[f.name for f in fields(cls)]}")
        return replace(PRESETS[name], **changes)

    @property
    def cells(self) -> tuple[int, ...]:
        """Branches of each cell: 2, 3, .. B."""
        return tuple(range(2, len(self.channels) + 1))

    @property
    def module_branches(self) -> tuple[int, ...]:
        """Branches of each searched module: one entry a row of alpha."""
        return tuple(branches for branches in self.cells for _ in range(self.modules_per_cell))

    @property
    def block_branch(self) -> tuple[int, ...]:
        """The branch of each attention block, cell by cell."""
        return tuple(i for branches in self.cells for i in range(branches)) if self.attention else ()

    @property
    def edges_per_block(self) -> int:
        return edge_count(self.groups)

    @property
    def edge_branch(self) -> tuple[int, ...]:
        """The branch of each searched edge: one entry a row of beta."""
        return tuple(i for i in self.block_branch for _ in range(self.edges_per_block))

    @property
    def choices(self) -> tuple[str, ...]:
        """Operations that may win an edge."""
        return tuple(name for name in self.operations if self.allow_none or name != "none")

    @property
    def scale(self) -> int:
        """Pixels of the image per pixel of branch 0."""
        return STEMS[self.stem].scale

    @property
    def multiple(self) -> int:
        """Height and width are padded to multiples of this many pixels."""
        return self.scale * 2 ** (len(self.channels) - 1)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the space: the same on every machine."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    def count(self) -> int:
        """The number of architectures: 2^modules x choices^edges.

        >>> SearchSpace().count() == 2**12 * 8**27
        True
        """
        return len(MODULES) ** len(self.module_branches) * len(self.choices) ** len(self.edge_branch)

    def costs(self, unit: str = "parameters", size: tuple[int, int] = (256, 256)) -> "Costs":
        """What every choice costs, by name, measured on the modules themselves.

        unit: `parameters`, or `flops` of one image of `size` (height, width), a multiply-add counted as two.
        """
        from .costs import measure  # it builds the network of this space

        return measure(self, unit, tuple(size))


PRESETS: dict[str, SearchSpace] = {
    # Full size, as released: what the published sizes are checked on.
    "paper": SearchSpace(),
    # This kit's scaled spaces. Measured choices: no normalisation, rain-layer prediction, half resolution; in `lite`
    # depth at that resolution before width and branches below it: the trials are in results/models/trials.csv.
    "lite": SearchSpace((32, 24), 10, stem="unshuffle", norm="none", residual=True),
    "teach": SearchSpace((16, 24, 32), 2, stem="unshuffle", norm="none", residual=True),
    "smoke": SearchSpace((8, 12), 2, stem="unshuffle", norm="none", residual=True),
}
