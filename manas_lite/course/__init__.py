"""The course: a registry of notebooks, a strict runner for them, and the few helpers that they import.

    python -m manas_lite.course --help

| module | concept |
|---|---|
| `registry` | which notebooks there are, where they lie, their presets |
| `sources` | one text source a notebook -> the student's and the solution version |
| `parameters` | the parameters cell, read and checked |
| `runner` | one notebook executed strictly; `reports`: its facts as an HTML page |
| `sweeps` | a grid of runs, resumable; `distributed_sweeps`: the same on a cluster; `estimates`: cost beforehand |
| `ablation` | one arm: switches -> search, retraining, scores; `differences`: what arms are worth |
| `slides` | slides made from executed copies |
| `grading` | tagged cells of handed-in notebooks, checked |
| `checks` | the exercises' checkers |
| `mirrors` | `data` as a web address: fetched, checked, unpacked |
| `support` | what notebooks themselves call: `versions`, `runs_folder`, `find_run`, `record_results`, `background` |
"""

from . import checks
from .mirrors import local
from .support import (
    background,
    find_run,
    headless,
    record_results,
    runs_folder,
    shipped,
    upload_button,
    uploaded,
    versions,
)

__all__ = [
    "background",
    "checks",
    "find_run",
    "headless",
    "local",
    "record_results",
    "runs_folder",
    "shipped",
    "upload_button",
    "uploaded",
    "versions",
]
