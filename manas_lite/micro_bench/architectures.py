"""The small space of the table: 2^4 module patterns times eight gates, the same gate on all six edges."""

import itertools
from typing import NamedTuple

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.space import SearchSpace

__all__ = ["ARCHITECTURES", "GATES", "PATTERNS", "SPACE", "Architecture", "genotype_of"]

SPACE = SearchSpace(channels=(12, 16), modules_per_cell=4, stem="unshuffle", norm="none", residual=True)
LETTERS = {name[0]: name for name in PUBLISHED_MODULES}  # p(arallel), f(usion)
PATTERNS = tuple("".join(letters) for letters in itertools.product(LETTERS, repeat=len(SPACE.module_branches)))
GATES = SPACE.choices


class Architecture(NamedTuple):
    """One architecture of the table. modules: a letter a module, p(arallel) or f(usion), in slot order; gate: the one
    operation that stands on all of its edges."""

    modules: str
    gate: str

    @classmethod
    def of(cls, genotype: Genotype) -> "Architecture":
        """From a genotype; ValueError where its edges hold more than one operation."""
        gates = sorted(set(genotype.edges))
        if len(gates) != 1:
            raise ValueError(f"the table ties all edges to one gate, this genotype holds {len(gates)} operations")
        return cls("".join(name[0] for name in genotype.modules), gates[0])


ARCHITECTURES = tuple(Architecture(pattern, gate) for pattern in PATTERNS for gate in GATES)


def genotype_of(modules: str, gate: str) -> Genotype:
    """The genotype of an architecture: `genotype_of("pffp", "SE")`. ValueError for another letter, length or gate."""
    unknown = set(modules) - set(LETTERS)
    if unknown:
        raise ValueError(f"modules={modules!r}: a letter a module, {' or '.join(LETTERS)}")
    return Genotype(SPACE, tuple(LETTERS[letter] for letter in modules), (gate,) * len(SPACE.edge_branch))
