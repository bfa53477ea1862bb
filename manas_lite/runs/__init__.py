"""A run on disk: settings read strictly, checkpoints, the run directory, the environment, progress.

May import no other room: everything here works without a network.
"""
