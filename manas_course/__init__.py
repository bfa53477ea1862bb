"""What the notebooks import: exercise checkers, widgets, ablation arms and their comparison, background runs.

| module | concept |
|---|---|
| `checks` | the exercises' checkers |
| `ablation` | one arm: settings -> search, retraining, scores; `differences`: what arms are worth |
| `renamed` | old names of settings, for one release |
| `jobs` | a search or a retraining in a process of its own |
| `mirrors` | real sets, by name or web address: fetched, checked, unpacked |
| `support` | what notebooks call themselves: `versions`, `runtime`, `keep_runs`, `find_run`, `record_results`, ... |
| `widgets`, `illustrations`, `toy` | interactive pictures, still pictures, and the two-number bilevel problem |
| `diagrams` | drawings of the course's ideas, for light and dark pages |
| `micro_bench` | a small space with every architecture trained: what a search and a ranking are worth |
| `downstream` | boxes, detector, scores, segmenter, NIQE and PIQE of derained pictures |

It builds on `manas_lite`, which never imports it. What authors and lecturers run stands in `tools/course`.
"""

from manas_course import checks
from manas_course.mirrors import fetched, local, receipts
from manas_course.support import (
    background,
    find_run,
    headless,
    keep_runs,
    record_results,
    runs_folder,
    runtime,
    shipped,
    upload_button,
    uploaded,
    versions,
)

__all__ = [
    "background",
    "checks",
    "fetched",
    "find_run",
    "headless",
    "keep_runs",
    "local",
    "receipts",
    "record_results",
    "runs_folder",
    "runtime",
    "shipped",
    "upload_button",
    "uploaded",
    "versions",
]
