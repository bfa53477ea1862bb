"""Pictures of architectures, searches and results: every function returns a matplotlib Figure.

    figure = draw.architecture(genotype)
    draw.save(figure, "genotype.png", also=("svg",))

Colours are Okabe and Ito's, told apart by colour-blind readers, and little is said by colour alone. No state of pyplot
is used: a figure shows itself as the last value of a notebook cell, and is freed when it is dropped.

* `style`: the one style, the colours, and saving. It imports `runs`.
* `lanes`: architectures and relaxed networks. It imports `style` and `networks`.
* `curves`: runs over time. It imports `style` and `networks`.
* `comparisons`: photographs side by side. It imports `style`, `metrics` and `rain`.
* `sheets`: contact sheets. It imports Pillow alone.

The names below are loaded when they are first used, so that deraining a folder does not wait for matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manas_lite.draw.comparisons import comparison, scene
    from manas_lite.draw.curves import search_curves, training_curves
    from manas_lite.draw.lanes import architecture, mixture
    from manas_lite.draw.style import save

_HOMES = {
    "architecture": "lanes",
    "comparison": "comparisons",
    "mixture": "lanes",
    "save": "style",
    "scene": "comparisons",
    "search_curves": "curves",
    "training_curves": "curves",
}

__all__ = ["architecture", "comparison", "mixture", "save", "scene", "search_curves", "training_curves"]


def __getattr__(name: str) -> Any:  # PEP 562: called for names that are not here yet
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
