"""Pictures of architectures, searches and results: every function returns a matplotlib Figure.

    figure = draw.architecture(genotype)
    draw.save(figure, "genotype.png", also=("svg",))

Colours are Okabe and Ito's, told apart by colour-blind readers, and little is said by colour alone. No state
of pyplot is used: a figure shows itself as the last value of a notebook cell, and is freed when it is
dropped.
"""

from manas_lite.draw.benchmarks import agreements, best_so_far, clouds, front, table_map
from manas_lite.draw.comparisons import comparison, scene
from manas_lite.draw.curves import search_curves, training_curves
from manas_lite.draw.network import architecture, mixture
from manas_lite.draw.style import save

__all__ = [
    "agreements",
    "architecture",
    "best_so_far",
    "clouds",
    "comparison",
    "front",
    "mixture",
    "save",
    "scene",
    "search_curves",
    "table_map",
    "training_curves",
]
