"""DARTS's quadratic toy: one weight, one architecture number, and an answer known by hand.

    L_train(w, a) = w^2 - 2 a w + a^2        L_val(w, a) = a w - 2 a + 1

The best weight for an a is w*(a) = a, so the true objective is L_val(a, a) = a^2 - 2 a + 1, smallest at a = 1. First
order, which ignores that w follows a, ends at a = 2 (Liu et al., ICLR 2019, arXiv 1806.09055, figure 2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manas_lite.bilevel import Order, hypergradient, virtual_sgd

__all__ = ["START", "Path", "descend", "train_loss", "val_loss"]

START = (-2.0, 2.0)  # (w, a)


def train_loss(w: Sequence[Tensor], a: Sequence[Tensor]) -> Tensor:
    """Return L_train of one weight and one architecture number."""
    return w[0] ** 2 - 2 * a[0] * w[0] + a[0] ** 2


def val_loss(w: Sequence[Tensor], a: Sequence[Tensor]) -> Tensor:
    """Return L_val of one weight and one architecture number."""
    return a[0] * w[0] - 2 * a[0] + 1


@dataclass(frozen=True)
class Path:
    """Where a descent went."""

    label: str
    """Its name in a legend."""
    points: np.ndarray
    """(w, a) before the first step and after each, (steps + 1, 2)."""

    @property
    def end(self) -> tuple[float, float]:
        """The last (w, a)."""
        return float(self.points[-1, 0]), float(self.points[-1, 1])


def descend(
    order: Order = "first",
    *,
    xi: float = 0.5,
    rate: float = 0.1,
    steps: int = 150,
    label: str | None = None,
    gradient: Callable[[float, float], float] | None = None,
) -> Path:
    """Descend in a and w alternately from START, both with plain steps; return the path.

    Args:
        order: how dL_val/da is taken.
        xi: size of the virtual step.
        rate: size of the plain steps.
        steps: how many.
        label: name in a legend (default: `order`).
        gradient: another function (w, a) -> dL_val/da, for trying one's own.
    """
    w, a = (torch.tensor(value, dtype=torch.float64) for value in START)
    points = [START]
    for _ in range(steps):
        if gradient is None:
            step = None if order == "first" else virtual_sgd(torch.optim.SGD([w.clone().requires_grad_()], lr=xi))
            slope = hypergradient(order, train_loss, val_loss, [w], [a], step=step).gradients[0]
        else:
            slope = torch.tensor(gradient(float(w), float(a)), dtype=torch.float64)
        a = a - rate * slope
        w = w - rate * (2 * w - 2 * a)
        points.append((float(w), float(a)))
    return Path(label or order, np.array(points))
