"""Tools for those who write, run and grade the course: python -m tools.course --help

| module | concept |
|---|---|
| `contents` | which notebooks there are, where they lie, their presets |
| `sources` | one text source per notebook -> the student's version and the solution |
| `parameters` | the parameters cell, read and checked; settings without a parameter of their own |
| `runner` | one notebook executed strictly; `reports`: its facts as an HTML page |
| `sweeps` | a grid of runs, resumable; `estimates`: its cost beforehand; `cards`: times on a card that is not here |
| `sweep_reports` | the table of comparisons of a sweep |
| `distributed_sweeps` | a sweep on a cluster |
| `stamping` | the student's notebooks made from their sources |
| `slides` | slides made from executed copies |
| `grading` | handed-in notebooks, checked |
| `wire`, `worker`, `fences` | the pipe to a student's process, that process, and the walls round it |
| `exports` | the exercises as an assignment of otter-grader or nbgrader |
"""
