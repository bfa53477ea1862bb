"""The exercises' checkers: random inputs, the misconception named, never the answer.

    checks.psnr_y(my_function)      # returns a Check, shown by the notebook; nothing is raised

| module | its exercises are about |
|---|---|
| `base` | nothing: it holds what every checker shares |
| `imaging` | pictures: rain, PSNR, blending, sizes |
| `scenery` | scenes: splits and batches |
| `spaces` | search spaces and their relaxation |
| `gradients` | searching, deriving and training |
| `statistics` | numbers of several runs |
| `rankings` | searching a table, and rank agreement |
| `budgets` | what fits, scores without training, a predictor, packing |
| `faults` | tests that find faults |
| `detections` | boxes, detections and classes |
"""

from manas_course.checks.base import Check as Check
from manas_course.checks.budgets import *  # noqa: F403
from manas_course.checks.detections import *  # noqa: F403
from manas_course.checks.faults import *  # noqa: F403
from manas_course.checks.gradients import *  # noqa: F403
from manas_course.checks.imaging import *  # noqa: F403
from manas_course.checks.rankings import *  # noqa: F403
from manas_course.checks.scenery import *  # noqa: F403
from manas_course.checks.spaces import *  # noqa: F403
from manas_course.checks.statistics import *  # noqa: F403
