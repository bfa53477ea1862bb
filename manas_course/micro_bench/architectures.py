"""The small space of the table: 2^4 patterns of modules times eight gates, with the same gate on all six edges."""

import itertools
from typing import NamedTuple

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import SearchSpace

# The candidates are named, so that the table does not depend on what others register.
SPACE = SearchSpace(
    channels=(12, 16),
    operations=PUBLISHED_OPERATIONS,
    stem="unshuffle",
    norm="none",
    residual=True,
    modules=PUBLISHED_MODULES,
)
LETTERS = {name[0]: name for name in PUBLISHED_MODULES}  # p(arallel), f(usion)
PATTERNS = tuple("".join(letters) for letters in itertools.product(LETTERS, repeat=len(SPACE.module_branches)))
GATES = SPACE.choices


class Architecture(NamedTuple):
    """One architecture of the table."""

    modules: str
    """One letter per module, p(arallel) or f(usion), in slot order."""
    gate: str
    """The one operation that stands on all edges."""

    @classmethod
    def of(cls, genotype: Genotype) -> "Architecture":
        """Return a genotype's architecture; raise ValueError where its edges hold more than one operation."""
        gates = sorted(set(genotype.edges))
        if len(gates) != 1:
            raise ValueError(f"the table ties all edges to one gate, this genotype holds {len(gates)} operations")
        return cls("".join(name[0] for name in genotype.modules), gates[0])


ARCHITECTURES = tuple(Architecture(pattern, gate) for pattern in PATTERNS for gate in GATES)


def genotype_of(modules: str, gate: str) -> Genotype:
    """Return an architecture's genotype; raise ValueError for another letter, length or gate.

    Example:
        >>> genotype_of("pffp", "SE").modules
        ('parallel', 'fusion', 'fusion', 'parallel')
    """
    if set(modules) - set(LETTERS):
        raise ValueError(f"modules={modules!r}: expected one letter per module, {' or '.join(LETTERS)}")
    return Genotype(SPACE, tuple(LETTERS[letter] for letter in modules), (gate,) * len(SPACE.edge_branch))
