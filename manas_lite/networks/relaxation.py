"""From architecture logits to mixture weights (method section 3): the one place where they are computed."""

from dataclasses import dataclass

import torch
from torch import Tensor

RELAXATIONS = ("softmax", "gumbel")


@dataclass(frozen=True)
class Relaxation:
    """How a row of logits becomes weights that sum to 1.

    Noise is an argument, drawn by `gumbel_noise` from a seeded generator, so that a forward pass is a pure function.
    """

    kind: str = "softmax"
    """`softmax` is DARTS's; `gumbel` adds Gumbel noise before the softmax (Jang et al., ICLR 2017)."""
    temperature: float = 1.0
    """What the logits are divided by."""
    hard: bool = False
    """Whether the forward pass is one-hot; the gradient is that of the soft weights (straight-through)."""
    sampled: bool = False
    """With `hard`, compute only the candidate whose weight is 1 (GDAS: Dong & Yang, CVPR 2019). The forward pass is
    the same and much cheaper; a gradient reaches a row through its chosen weight alone. Reading which one was chosen
    waits for the device."""

    def __post_init__(self) -> None:
        if self.kind not in RELAXATIONS:
            raise ValueError(f"unknown relaxation {self.kind!r}: choose one of {', '.join(RELAXATIONS)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: it must be above 0")

    def weights(self, logits: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return weights (n, k), each row summing to 1, of logits (n, k): n places with k candidates.

        `gumbel` adds noise (n, k); None (a forward pass outside search) adds nothing.
        """
        if self.kind == "gumbel" and noise is not None:
            logits = logits + noise
        soft = torch.softmax(logits / self.temperature, dim=-1)
        if not self.hard:
            return soft
        one_hot = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        return one_hot + soft - soft.detach()

    def chosen(self, row: Tensor) -> tuple[Tensor | None, ...]:
        """Return a row of weights (k,) as k scalars, with None for those that need no computing (see `sampled`)."""
        if not (self.sampled and self.hard):
            return row.unbind()
        best = int(row.detach().argmax())
        return tuple(w if k == best else None for k, w in enumerate(row.unbind()))


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw independent standard Gumbel noise of that shape, on the CPU: -log(-log u), u uniform on (0, 1)."""
    u = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return (-torch.log(-torch.log(u))).to(dtype)
