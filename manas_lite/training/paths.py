"""Weight sharing without gradients: a supernet trained by sampled paths, and evolution over the weights it shares.

Each weight step trains one path: one candidate per place, drawn uniformly (single-path one-shot: Guo et al., ECCV
2020). No candidate is then favoured because it was ahead early. The fair variant goes through all candidates of a place
before one comes again (FairNAS: Chu et al., ICCV 2021). An architecture is scored by the loss of its path with the
weights as they are, and evolution looks for the best.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import SuperNet
from manas_lite.networks.relaxation import Relaxation
from manas_lite.networks.space import SearchSpace

PATHS = Relaxation("gumbel", hard=True, sampled=True)
"""One-hot weights, of which only the candidate in front is computed."""

FAR = -1e4
"""The logit of what is not on a path."""

Choices = list[np.ndarray]  # for modules and for edges: the index of a candidate per place


def draw_path(space: SearchSpace, seed: int, step: int, *, fair: bool) -> Choices:
    """Return the candidates that a step trains, a function of (seed, step); those that may not win are never drawn.

    Within each round of as many steps as a place has candidates, `fair` takes each of them once.
    """
    kinds = (len(space.module_branches), len(space.modules)), (len(space.edge_branch), len(space.choices))
    allowed = np.arange(len(space.modules)), np.array([space.operations.index(name) for name in space.choices])
    choices = []
    for stream, ((places, count), names) in enumerate(zip(kinds, allowed, strict=True)):
        round_, position = divmod(step, count) if fair else (step, 0)
        generator = np.random.default_rng((seed, stream, round_))
        orders = generator.permuted(np.tile(np.arange(count), (places, 1)), axis=1)  # (places, count)
        choices.append(names[orders[:, position]] if places else np.zeros(0, int))
    return choices


def choices_of(genotype: Genotype) -> Choices:
    """Return a genotype's choices as indices."""
    places = (genotype.space.modules, genotype.modules), (genotype.space.operations, genotype.edges)
    return [np.array([names.index(name) for name in chosen], int) for names, chosen in places]


@torch.no_grad()
def walk(net: SuperNet, choices: Choices) -> None:
    """Put a supernet on a path: its logits say which, and only the path is computed."""
    net.relaxation = PATHS
    for logits, chosen in zip(net.arch_parameters(), choices, strict=True):
        logits.fill_(FAR)
        logits[torch.arange(len(chosen)), torch.as_tensor(chosen)] = 0.0


@contextmanager
def on_path(net: SuperNet, genotype: Genotype) -> Iterator[SuperNet]:
    """Let a supernet be a genotype's network within a `with` block, with the weights that it shares."""
    before, relaxation = [logits.detach().clone() for logits in net.arch_parameters()], net.relaxation
    try:
        walk(net, choices_of(genotype))
        yield net
    finally:
        with torch.no_grad():
            for logits, values in zip(net.arch_parameters(), before, strict=True):
                logits.copy_(values)
        net.relaxation = relaxation


def evolve(
    score: Callable[[Genotype], float],
    draw: Callable[[Tensor, Tensor], Genotype],
    space: SearchSpace,
    *,
    evaluations: int,
    population: int = 20,
    mutation: float = 0.1,
    seed: int = 0,
) -> list[tuple[float, Genotype]]:
    """Search architectures by regularised evolution; return all that were scored, the best (lowest) first.

    Args:
        score: what is to be small, such as a validation loss. Each architecture is scored once.
        draw: makes an architecture of logits, (modules, candidates) and (edges, operations): `Genotype.from_logits`, or
            `best_within` a budget. Every architecture is made by it, so that all of them keep to the budget.
        space, seed: where architectures are drawn from, and the seed of everything that is drawn.
        evaluations: how many architectures are scored, fewer where the space holds no more.
        population: how many of the latest are parents. The first so many are random.
        mutation: share of the places that a child draws anew.

    Source: Real et al., AAAI 2019 (ageing evolution).
    """
    generator = np.random.default_rng(seed)
    shapes = (len(space.module_branches), len(space.modules)), (len(space.edge_branch), len(space.operations))
    scored: dict[Genotype, float] = {}
    alive: list[Genotype] = []
    for _ in range(20 * evaluations):  # in a small space most children are known already
        if len(scored) >= min(evaluations, space.count()):
            break
        logits = [generator.gumbel(size=shape) for shape in shapes]
        if len(alive) >= population:
            rivals = [alive[k] for k in generator.choice(len(alive), max(2, population // 4), replace=False)]
            parent = min(rivals, key=scored.__getitem__)
            for values, chosen in zip(logits, choices_of(parent), strict=True):
                kept = generator.random(len(chosen)) >= mutation
                values[kept, chosen[kept]] += 100.0  # far above any Gumbel draw
        child = draw(*(torch.from_numpy(values) for values in logits))
        if child not in scored:
            scored[child] = score(child)
        if child not in alive[-population:]:
            alive = [*alive, child][-population:]
    return sorted(((value, genotype) for genotype, value in scored.items()), key=lambda pair: pair[0])
