"""manas_lite: multi-scale attentive neural architecture search for image deraining.

    space = SearchSpace.preset("teach")
    found = search(space, "photos", "teach")          # -> SearchResult
    result = retrain(found.genotype, "photos", "teach")
    evaluate(result.net, open_split("photos").test).means("heavy")
    derain("rainy.jpg", result.net)

The names below are the stable ones. Each is loaded when it is first used, so that `import manas_lite` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from manas_lite import bilevel, data, draw, losses, metrics, rain
    from manas_lite.data import open_split
    from manas_lite.networks.genotype import Genotype
    from manas_lite.networks.nets import DerainNet, SuperNet
    from manas_lite.networks.space import SearchSpace
    from manas_lite.photos.inference import derain
    from manas_lite.photos.zoo import load
    from manas_lite.training.evaluation import EvaluationResult, evaluate
    from manas_lite.training.retraining import RetrainResult, retrain
    from manas_lite.training.schedules import RetrainSettings, SearchSettings
    from manas_lite.training.searching import SearchResult, search

_HOMES = {  # modules of this package, and the stable names that they hold
    "data": ("open_split",),
    "networks.genotype": ("Genotype",),
    "networks.nets": ("DerainNet", "SuperNet"),
    "networks.space": ("SearchSpace",),
    "photos.inference": ("derain",),
    "photos.zoo": ("load",),
    "training.evaluation": ("EvaluationResult", "evaluate"),
    "training.retraining": ("RetrainResult", "retrain"),
    "training.schedules": ("RetrainSettings", "SearchSettings"),
    "training.searching": ("SearchResult", "search"),
}

__all__ = [
    "DerainNet",
    "EvaluationResult",
    "Genotype",
    "RetrainResult",
    "RetrainSettings",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "SuperNet",
    "bilevel",
    "data",
    "derain",
    "draw",
    "evaluate",
    "load",
    "losses",
    "metrics",
    "open_split",
    "rain",
    "retrain",
    "search",
]


def __getattr__(name: str) -> Any:  # PEP 562: called for names that are not here yet
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), None)
    value = import_module(f"{__name__}.{home or name}")
    globals()[name] = value = getattr(value, name) if home else value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
