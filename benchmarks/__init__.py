"""How fast the kit is, as ratios to a plain implementation of the same network: `python -m benchmarks`."""
