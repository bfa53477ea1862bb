"""A machine: device, precision and threads; several processes; how much memory a step takes.

May import `networks`, `losses`, `bilevel`, `metrics` and `runs`.
"""
