"""The four loss terms (method section 4): external, internal, architecture regularisation, model complexity.

Notation: a scene has R rainy versions, the network's outputs are T_1 .. T_R, its one clean image is Y.
Every term is a batched function of tensors that returns a scalar, an average over scenes. The published
sums are for R = 3; they are scaled by 3/R and by 3/(number of pairs), so that another R changes the data
and not the scale of the loss.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from manas_lite.metrics import structural_similarity

ExternalKind = Literal["mse+ssim", "mse", "ssim", "l1", "l1+ssim", "charbonnier", "charbonnier+ssim"]
CostUnit = Literal["parameters", "flops"]

PUBLISHED_RAINS = 3  # the sums of the paper run over three rainy versions, and so over three pairs
CHARBONNIER_EPSILON = 1e-3


class Costs(Protocol):
    """What `complexity` reads: the cost of every choice, rows as those of the logits, columns by operation."""

    @property
    def modules(self) -> Tensor: ...  # (n_modules, 2): parallel, fusion

    @property
    def edges(self) -> Tensor: ...  # (n_edges, n_operations)

    @property
    def fixed(self) -> float: ...  # what every network of the space has

    @property
    def largest(self) -> float: ...  # the dearest network of the space


# --- image terms ---


def external(
    outputs: Tensor, clean: Tensor, *, kind: ExternalKind = "mse+ssim", tv: float = 1e-4, ssim: float = 1.0
) -> Tensor:
    """Distance of every output to the clean image, and a little smoothness.

        L_ext = 3/R * sum_k [ MSE(T_k, Y) + (1 - SSIM(T_k, Y)) ] + tv * TV(T)

    averaged over scenes. TV is already a mean over all T_k, so R does not scale it.

    Args:
        outputs: (B, R, 3, h, w), the R derained versions of B scenes; any range, aimed at [0, 1].
        clean: (B, 3, h, w), in [0, 1].
        kind: the distance, parts joined by `+`: `mse`, `l1` (mean |T - Y|), `charbonnier`
            (mean sqrt((T - Y)^2 + 1e-3^2)) and `ssim` (1 - SSIM, 11x11 Gaussian, sigma 1.5, valid area, RGB).
        tv: weight of the total variation; 0 leaves it out.
        ssim: weight of the `ssim` part beside the other one (1 in the method).

    Raises ValueError on other shapes or an unknown kind. Source: method section 4; `l1` and `charbonnier`
    are this kit's additions.

    >>> external(torch.zeros(2, 3, 3, 16, 16), torch.ones(2, 3, 16, 16), kind="mse")
    tensor(3.)
    """
    _check_scenes(outputs, clean)
    if kind not in get_args(ExternalKind):
        raise ValueError(f"unknown external loss {kind!r}: choose one of {', '.join(get_args(ExternalKind))}")
    outputs, clean = _at_least_float32(outputs), _at_least_float32(clean)
    target = clean.unsqueeze(1).expand_as(outputs)  # (B, R, 3, h, w)
    difference = outputs - target
    distance = outputs.new_zeros(())
    for part in kind.split("+"):
        if part == "mse":
            distance = distance + difference.square().mean()
        elif part == "l1":
            distance = distance + difference.abs().mean()
        elif part == "charbonnier":
            distance = distance + (difference.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
        else:
            distance = distance + ssim * _dissimilarity(outputs, target)
    # a mean over the R versions is 1/R of their sum, so 3/R * sum = 3 * mean
    loss = PUBLISHED_RAINS * distance
    return loss + tv * total_variation(outputs) if tv else loss


def internal(outputs: Tensor, *, ssim: bool = False) -> Tensor:
    """Agreement between the derained versions of one scene.

        L_int = 3/P * sum_{k<l} MSE(T_k, T_l)          P = R (R - 1) / 2 pairs

    averaged over scenes; `ssim=True` adds 1 - SSIM(T_k, T_l) to each pair. With R = 1 there is no pair:
    exactly 0.

    The mean squared distance over pairs is twice the unbiased variance over the versions, so the first part
    costs R images instead of P: L_int = 6 * mean Var_k(T_k).

    Args:
        outputs: (B, R, 3, h, w).

    Source: method section 4; the SSIM of pairs is this kit's ablation arm.

    >>> internal(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]).unsqueeze(0))
    tensor(3.)
    """
    _check_scenes(outputs)
    outputs = _at_least_float32(outputs)
    versions = outputs.shape[1]
    if versions == 1:
        return (0.0 * outputs).sum()  # zero, with a zero gradient
    loss = 2 * PUBLISHED_RAINS * outputs.var(dim=1, correction=1).mean()
    if ssim:
        first, second = torch.triu_indices(versions, versions, offset=1, device=outputs.device)
        loss = loss + PUBLISHED_RAINS * _dissimilarity(outputs[:, first], outputs[:, second])
    return loss


def total_variation(images: Tensor) -> Tensor:
    """TV = 2 * (mean squared difference of vertical neighbours + that of horizontal ones), images (..., h, w).

    A side of one pixel has no neighbours and adds nothing.
    """
    images = _at_least_float32(images)
    terms = [images.diff(dim=dim).square().mean() for dim in (-2, -1) if images.shape[dim] > 1]
    return 2 * torch.stack(terms).sum() if terms else (0.0 * images).sum()


# --- architecture terms ---


def binary_entropy(logits: Tensor) -> Tensor:
    """Entropy of every softmax weight taken as a yes-or-no choice, in decimal digits.

        H(p) = -p log10 p - (1 - p) log10(1 - p),  p = softmax(logits) along a row

    elementwise, (n, k) -> (n, k). Computed from log p = log_softmax and log(1 - p) = logsumexp of the row's
    *other* logits, never from 1 - p, so value and gradient stay finite at any finite logits. A logit of
    -inf is a masked choice: weight, entropy and gradient are 0 there.

    >>> binary_entropy(torch.zeros(1, 2))
    tensor([[0.3010, 0.3010]])
    """
    logits = _at_least_float32(logits)
    if logits.numel() == 0:
        return logits
    lowest = torch.finfo(logits.dtype).min / 4  # stands for -inf, but 0 * lowest is 0 where 0 * -inf is NaN
    logits = logits.masked_fill(logits == -math.inf, lowest)
    total = logits.logsumexp(-1, keepdim=True)
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others = logits.unsqueeze(-2).masked_fill(itself, lowest).logsumexp(-1)  # (n, k, k) -> (n, k)
    log_p, log_q = logits - total, others - total
    return -(log_p.exp() * log_p + log_q.exp() * log_q) / math.log(10)


def architecture_regularisation(
    alpha_logits: Tensor, beta_logits: Tensor, weight_alpha: float = 0.01, weight_beta: float = 0.01
) -> Tensor:
    """Pushes the weights of the search towards 0 or 1.

        L_arch = weight_alpha * mean H(softmax(alpha)) + weight_beta * mean H(softmax(beta)),  H =
        `binary_entropy`

    Args:
        alpha_logits: (n_modules, 2).    beta_logits: (n_edges, n_operations). Either may have no rows.

    For the architecture step only. Source: method section 4.
    """
    terms = [
        weight * (binary_entropy(logits).mean() if logits.numel() else logits.sum())
        for weight, logits in ((weight_alpha, alpha_logits), (weight_beta, beta_logits))
    ]
    return terms[0] + terms[1]


def complexity(alpha_weights: Tensor, beta_weights: Tensor, costs: Costs) -> Tensor:
    """Expected cost of the relaxed network, as a share of the largest network's.

        L_cost = ( fixed + sum alpha_w * cost_modules + sum beta_w * cost_edges ) / largest

    linear and so differentiable in the weights; in (0, 1] for weights that sum to 1 per row.

    Args:
        alpha_weights: (n_modules, 2) and beta_weights: (n_edges, n_operations), *after* the relaxation.
        costs: parameters or FLOPs of each choice, looked up by operation name (`SearchSpace`).

    Raises ValueError where a row or column of the costs has no weight. Source: method section 4.
    """
    for name, weights, table in (
        ("alpha", alpha_weights, costs.modules),
        ("beta", beta_weights, costs.edges),
    ):
        if weights.shape != table.shape:
            raise ValueError(
                f"{name} weights are {tuple(weights.shape)} but their costs {tuple(table.shape)}: "
                "take the costs from the search space the weights belong to"
            )
    modules = (alpha_weights * costs.modules.to(alpha_weights)).sum()
    edges = (beta_weights * costs.edges.to(beta_weights)).sum()
    return (costs.fixed + modules + edges) / costs.largest


# --- all together ---


@dataclass(frozen=True)
class LossSettings:
    """Which terms count, and how much; a weight of 0 switches its term off and does not compute it.

    Defaults are the method's (section 4). `internal_from` is the first epoch, counted from 0, with an
    internal loss.
    """

    external: ExternalKind = "mse+ssim"
    external_weight: float = 1.0
    external_ssim: float = 1.0
    tv: float = 1e-4
    internal_weight: float = 1.0
    internal_from: int = 5
    internal_ssim: bool = False
    alpha_entropy_weight: float = 0.01
    beta_entropy_weight: float = 0.01
    complexity_weight: float = 0.01  # lambda; 0.01 and 0.1 are the values seen
    complexity_unit: CostUnit = "parameters"

    def __post_init__(self) -> None:
        if self.external not in get_args(ExternalKind):
            known = ", ".join(get_args(ExternalKind))
            raise ValueError(f"unknown external loss {self.external!r}: choose one of {known}")
        if self.complexity_unit not in get_args(CostUnit):
            known = ", ".join(get_args(CostUnit))
            raise ValueError(f"unknown complexity_unit {self.complexity_unit!r}: choose one of {known}")
        for name in ("external", "internal", "alpha_entropy", "beta_entropy", "complexity"):
            weight = getattr(self, f"{name}_weight")
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}_weight is {weight}: it must be a finite number, 0 (off) or more")
        for name in ("tv", "external_ssim"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: it must be a finite number, 0 (off) or more")
        if self.internal_from < 0:
            raise ValueError(f"internal_from is {self.internal_from}: it must be an epoch, 0 or later")


class DerainLoss:
    """The weighted sum of the terms that are on.

    >>> loss = DerainLoss(LossSettings(internal_from=0))
    >>> total, terms = loss(torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 16, 16), epoch=0)
    >>> sorted(terms)
    ['external', 'internal']

    `terms` holds each term *before* its weight, as detached scalar tensors for the log; nothing here waits
    for a GPU.
    """

    def __init__(self, settings: LossSettings | None = None) -> None:
        self.settings = settings or LossSettings()

    def __call__(self, outputs: Tensor, clean: Tensor, *, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image terms, for weight and architecture steps: outputs (B, R, 3, h, w), clean (B, 3, h, w)."""
        settings = self.settings
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.external_weight:
            value = external(outputs, clean, kind=settings.external, tv=settings.tv, ssim=settings.external_ssim)
            terms["external"] = settings.external_weight, value
        if settings.internal_weight and epoch >= settings.internal_from:
            terms["internal"] = settings.internal_weight, internal(outputs, ssim=settings.internal_ssim)
        return _weighted_sum(terms, outputs)

    def architecture(
        self,
        alpha_logits: Tensor,
        beta_logits: Tensor,
        alpha_weights: Tensor,
        beta_weights: Tensor,
        costs: Costs,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Terms of the architecture alone, to add in the architecture step; `costs` in `complexity_unit`."""
        settings = self.settings
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.alpha_entropy_weight or settings.beta_entropy_weight:
            entropy = architecture_regularisation(
                alpha_logits, beta_logits, settings.alpha_entropy_weight, settings.beta_entropy_weight
            )
            terms["regularisation"] = 1.0, entropy
        if settings.complexity_weight:
            terms["complexity"] = settings.complexity_weight, complexity(alpha_weights, beta_weights, costs)
        return _weighted_sum(terms, alpha_logits)


def _weighted_sum(terms: Mapping[str, tuple[float, Tensor]], like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    total = (0.0 * like).sum() if not terms else torch.stack([w * value for w, value in terms.values()]).sum()
    return total, {name: value.detach() for name, (_, value) in terms.items()}


def _dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """Mean of 1 - SSIM over the images of x and y, both (B, R, 3, h, w)."""
    return 1 - structural_similarity(x.flatten(0, 1), y.flatten(0, 1), data_range=1.0).mean()


def _at_least_float32(x: Tensor) -> Tensor:
    """Half-precision outputs (autocast) are widened: squares of small differences vanish in 16 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_scenes(outputs: Tensor, clean: Tensor | None = None) -> None:
    if outputs.dim() != 5 or outputs.shape[2] != 3 or 0 in outputs.shape:
        raise ValueError(f"outputs are {tuple(outputs.shape)}, expected (B, R, 3, h, w): the R versions of B scenes")
    if clean is not None:
        expected = (outputs.shape[0], *outputs.shape[2:])
        if tuple(clean.shape) != expected:
            raise ValueError(
                f"clean is {tuple(clean.shape)} but outputs {tuple(outputs.shape)} ask for {expected}: "
                "one clean image a scene"
            )
