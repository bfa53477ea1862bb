"""manas_lite: multi-scale attentive neural architecture search for image deraining.

space = SearchSpace.preset("teach")
found = search(space, "photos", "teach")          # -> SearchResult
result = retrain(found.genotype, "photos", "teach")
evaluate(result.net, open_split("photos").test).means("heavy")
derain("rainy.jpg", result.net)
"""

from . import bilevel, data, draw, losses, metrics, rain
from .backbone import DerainNet, SuperNet
from .data import open_split
from .evaluation import EvaluationResult, evaluate
from .genotype import Genotype
from .inference import derain
from .schedules import RetrainSettings, SearchSettings
from .searching import SearchResult, search
from .space import SearchSpace
from .training import RetrainResult, retrain
from .zoo import load

__version__ = "0.1.0"

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
