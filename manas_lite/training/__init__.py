"""What happens to a network: settings and presets, the loop, search, retraining, evaluation, the demo.

May import every room but the course, downstream tasks and the micro benchmark.
"""
