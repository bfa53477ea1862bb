"""The exercises' checkers: random inputs, the misconception named, never the answer.

    checks.psnr_y(my_function)      # -> a Check, shown by the notebook; nothing is raised

Grouped by what they are about: `basics`, `images`, `spaces`, `searches`, `evidence`, `rankings`,
`downstream`.
"""

from manas_lite.course.checks.base import Check
from manas_lite.course.checks.basics import (
    holm,
    mean_and_deviation,
    padding,
    pairing,
    pareto_front,
    psnr_rgb,
    strength,
    tile_starts,
)
from manas_lite.course.checks.downstream import box_iou, consistent, mean_iou
from manas_lite.course.checks.evidence import mutants, nested_bootstrap
from manas_lite.course.checks.images import psnr_y, screen_blend, split_by_scene
from manas_lite.course.checks.rankings import random_search, rank_agreement
from manas_lite.course.checks.searches import darts_step, derive, internal_loss
from manas_lite.course.checks.spaces import binary_entropy, count_space, expected_cost, gated_edge

__all__ = [
    "Check",
    "binary_entropy",
    "box_iou",
    "consistent",
    "count_space",
    "darts_step",
    "derive",
    "expected_cost",
    "gated_edge",
    "holm",
    "internal_loss",
    "mean_and_deviation",
    "mean_iou",
    "mutants",
    "nested_bootstrap",
    "padding",
    "pairing",
    "pareto_front",
    "psnr_rgb",
    "psnr_y",
    "random_search",
    "rank_agreement",
    "screen_blend",
    "split_by_scene",
    "strength",
    "tile_starts",
]
