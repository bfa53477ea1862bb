"""Discretisation by perturbation: which choice hurts most when it is taken away? (`Genotype.from_logits` is argmax.)"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import SuperNet


@torch.no_grad()
def perturbation(supernet: SuperNet, loss: Callable[[SuperNet], Tensor]) -> tuple[Genotype, Tensor, Tensor]:
    """Keep in each row the candidate whose removal hurts most.

    A candidate is removed by giving its row's weight to the others in proportion, one row at a time. Rows are decided
    independently: the fine-tuning between decisions is left out. Weights are taken by softmax, without Gumbel noise,
    and the supernet's logits and relaxation are restored exactly. `loss` is a scalar on held-out batches.

    Returns:
        The genotype, and the losses after removal, in the shapes of alpha and beta.

    Source: Wang et al., ICLR 2021, arXiv 2108.04392.
    """
    scores = []
    relaxation = supernet.relaxation
    for logits in (supernet.alpha, supernet.beta):
        before = logits.detach().clone()
        score = torch.empty_like(before)
        try:  # plain softmax: neither the last step's noise nor one-hot weights may decide
            supernet.relaxation = replace(relaxation, kind="softmax", hard=False)
            for row in range(len(before)):
                for k in range(before.shape[1]):
                    logits.copy_(before)
                    logits[row, k] = -torch.inf
                    score[row, k] = loss(supernet)
        finally:
            logits.copy_(before)
            supernet.relaxation = relaxation
        scores.append(score)
    alpha, beta = scores
    return Genotype.from_logits(supernet.space, alpha, beta), alpha, beta
