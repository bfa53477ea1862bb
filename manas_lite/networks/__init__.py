"""What can be found: candidate operations and modules, the search space, genotypes, the supernet and derived networks.

ops -> modules -> attention -> space -> backbone -> costs -> genotype -> nets -> discretize

May import `losses`, `metrics`, `runs`. Knows nothing of pictures, data or training.
"""
