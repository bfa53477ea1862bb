"""Who pulls at the architecture: the images, the price on cost, or the entropy; and how hard the price may pull.

Adam divides the scale of a gradient away. A price whose sign never changes then moves the logits at full rate, however
small it is, while the images' gradient, whose sign changes from batch to batch, hardly moves them. So the size of one
step's gradients says little: what counts is the mean over steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DECAY = 0.95
"""Of the running mean of the images' gradient: it looks back over some twenty steps."""

GROUPS = ("alpha", "beta")
PRICE = "complexity"


@dataclass(frozen=True)
class BalanceState:
    """What a checkpoint keeps of `Balance`."""

    steps: int
    """Steps so far."""
    mean: list[list[list[float]]]
    """The running means of the images' gradients by alpha and by beta."""


class Balance:
    """Splits architecture gradients by who causes them, and sets the price's pull against the images'.

    Args:
        arch: alpha and beta.
        price_share: size of the price's gradient as a share of the running mean of the images' gradient, for alpha and
            for beta on their own; None leaves the gradients as they are.
    """

    def __init__(self, arch: Sequence[Tensor], price_share: float | None) -> None:
        self.arch, self.price_share = arch, price_share
        self.mean = [torch.zeros_like(parameter) for parameter in arch]
        self.steps = 0

    def __call__(
        self, gradients: Sequence[Tensor], terms: Mapping[str, tuple[float, Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the gradients to step along, and the sizes of their parts for the log.

        Args:
            gradients: of the whole architecture loss, by alpha and by beta.
            terms: the terms of the architecture alone, each with its weight, as graphs of alpha and beta.
        """
        parts = {name: self._gradient(weight * value) for name, (weight, value) in terms.items()}
        image = [total - sum(part[k] for part in parts.values()) for k, total in enumerate(gradients)]
        self.steps += 1
        for mean, gradient in zip(self.mean, image, strict=True):
            mean.lerp_(gradient, 1 - DECAY)
        sizes = {
            f"{group}_{name}_pull": torch.linalg.vector_norm(part[k])
            for name, part in {"image": image, **parts}.items()
            for k, group in enumerate(GROUPS)
        }
        if self.price_share is not None and PRICE in parts:
            for total, price, mean in zip(gradients, parts[PRICE], self.mean, strict=True):
                pull = torch.linalg.vector_norm(mean) / (1 - DECAY**self.steps)  # the mean began at 0
                size = torch.linalg.vector_norm(price).clamp_min(torch.finfo(price.dtype).tiny)
                total += (self.price_share * pull / size - 1) * price
        return list(gradients), sizes

    def _gradient(self, term: Tensor) -> list[Tensor]:
        if not term.requires_grad:
            return [torch.zeros_like(parameter) for parameter in self.arch]
        return list(torch.autograd.grad(term, self.arch, retain_graph=True, materialize_grads=True))

    def dump(self) -> BalanceState:
        """Return the state as plain values, for a checkpoint."""
        return BalanceState(self.steps, [mean.tolist() for mean in self.mean])

    def load(self, steps: int, means: Sequence[Tensor]) -> None:
        """Take over the state of `dump`: the steps, and the running means in the shapes of alpha and beta."""
        self.steps = steps
        for mean, values in zip(self.mean, means, strict=True):
            mean.copy_(values)
