"""The loss terms (method section 4): external, internal, architecture regularisation, model complexity.

Notation: a scene has R rainy versions, the network's outputs are T_1 .. T_R, its one clean image is Y. Every term is a
function of tensors that returns a scalar, an average over scenes. The published sums are for R = 3. They are scaled by
3/R and by 3/(number of pairs), so that another R changes the data and not the scale of the loss.

You can add distances and terms of your own: see `distance` and `term`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from manas_lite.metrics import structural_similarity
from manas_lite.runs.settings import LATER, check, must_be, register

CostUnit = Literal["parameters", "flops"]

PUBLISHED_RAINS = 3  # the sums of the paper run over three rainy versions, and so over three pairs


class Costs(Protocol):
    """What `complexity` reads of `networks.costs.Costs`."""

    @property
    def modules(self) -> Tensor: ...
    @property
    def edges(self) -> Tensor: ...
    @property
    def fixed(self) -> float: ...
    @property
    def largest(self) -> float: ...


# --- distances between outputs and the clean image ---

Function = TypeVar("Function", bound=Callable[..., Tensor])

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
"""Every distance that `external` knows, by name."""


def distance(name: str) -> Callable[[Function], Function]:
    """Register the function below as a distance; `loss.external` then takes its name, alone or joined by `+`.

    The function maps outputs (B, R, 3, h, w) and a target of the same shape to a scalar, a mean over all of them.

    Raises:
        ValueError: the name belongs to another distance.
    """
    return register(DISTANCES, name)


@distance("mse")
def mean_squared(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (T - Y)^2: the method's pixel distance."""
    return (outputs - target).square().mean()


@distance("l1")
def mean_absolute(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean of |T - Y|."""
    return (outputs - target).abs().mean()


@distance("charbonnier")
def charbonnier(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt((T - Y)^2 + 1e-3^2), which is smooth at 0."""
    return ((outputs - target).square() + 1e-3**2).sqrt().mean()


@distance("log_mse")
def log_mean_squared(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean over images of ln(MSE + 1e-5), which is PSNR up to sign and unit.

    Heavy rain has a thousand times the squared error of a dry picture. Here a decibel counts alike in both.
    """
    return ((outputs - target).square().mean((-3, -2, -1)) + 1e-5).log().mean()


@distance("ssim")
def dissimilarity(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean of 1 - SSIM(T, Y): 11x11 Gaussian, sigma 1.5, valid area, RGB."""
    return 1 - structural_similarity(outputs.flatten(0, 1), target.flatten(0, 1), data_range=1.0).mean()


def distances_of(kind: str) -> tuple[str, ...]:
    """Return the names in a text such as "mse+ssim"; ValueError for an unknown or a repeated one."""
    parts = tuple(kind.split("+"))
    for part in parts:
        if part not in DISTANCES or parts.count(part) > 1:
            raise ValueError(f"unknown external loss {kind!r}: join some of {', '.join(DISTANCES)} by +")
    return parts


# --- image terms ---


def external(outputs: Tensor, clean: Tensor, *, kind: str = "mse+ssim", tv: float = 1e-4, ssim: float = 1.0) -> Tensor:
    """Return the distance of every output to the clean image, and a little smoothness.

        L_ext = 3/R * sum_k [ MSE(T_k, Y) + (1 - SSIM(T_k, Y)) ] + tv * TV(T)

    averaged over scenes. TV is already a mean over all T_k, so R does not scale it.

    Args:
        outputs: (B, R, 3, h, w), the R derained versions of B scenes; any range, aimed at [0, 1].
        clean: (B, 3, h, w), in [0, 1].
        kind: the distance, names of DISTANCES joined by `+`.
        tv: weight of the total variation; 0 leaves it out.
        ssim: weight of the `ssim` distance beside the others (1 in the method).

    Raises:
        ValueError: for other shapes or an unknown kind.

    Example:
    >>> external(torch.zeros(2, 3, 3, 16, 16), torch.ones(2, 3, 16, 16), kind="mse")
    tensor(3.)

    Source: method section 4. `l1` and `charbonnier` are this kit's additions.
    """
    _check_scenes(outputs, clean)
    outputs, clean = _at_least_float32(outputs), _at_least_float32(clean)
    target = clean.unsqueeze(1).expand_as(outputs)  # (B, R, 3, h, w)
    loss = outputs.new_zeros(())
    for part in distances_of(kind):
        loss = loss + (ssim if part == "ssim" else 1) * DISTANCES[part](outputs, target)
    # a mean over the R versions is 1/R of their sum, so 3/R * sum = 3 * mean
    loss = PUBLISHED_RAINS * loss
    return loss + tv * total_variation(outputs) if tv else loss


def internal(outputs: Tensor, *, ssim: bool = False) -> Tensor:
    """Return how far the derained versions of one scene lie apart.

        L_int = 3/P * sum_{k<l} MSE(T_k, T_l) = 6 * mean Var_k(T_k)          P = R (R - 1) / 2 pairs

    averaged over scenes. The mean squared distance over pairs is twice the unbiased variance over the versions, which
    costs R images instead of P. With R = 1 there is no pair, and the loss is exactly 0.

    Args:
        outputs: (B, R, 3, h, w), the R derained versions of B scenes.
        ssim: also add 1 - SSIM(T_k, T_l) for each pair.

    Example:
    >>> internal(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]).unsqueeze(0))
    tensor(3.)

    Source: method section 4. The SSIM of pairs is this kit's ablation arm.
    """
    _check_scenes(outputs)
    outputs = _at_least_float32(outputs)
    versions = outputs.shape[1]
    if versions == 1:
        return (0.0 * outputs).sum()  # zero, with a zero gradient
    loss = 2 * PUBLISHED_RAINS * outputs.var(dim=1, correction=1).mean()
    if ssim:
        first, second = torch.triu_indices(versions, versions, offset=1, device=outputs.device)
        loss = loss + PUBLISHED_RAINS * dissimilarity(outputs[:, first], outputs[:, second])
    return loss


def total_variation(images: Tensor) -> Tensor:
    """Return how much neighbouring pixels of images (..., h, w) differ.

        TV = 2 * (mean squared difference of vertical neighbours + that of horizontal ones)

    A side of one pixel has no neighbours and adds nothing.
    """
    images = _at_least_float32(images)
    terms = [images.diff(dim=dim).square().mean() for dim in (-2, -1) if images.shape[dim] > 1]
    return 2 * torch.stack(terms).sum() if terms else (0.0 * images).sum()


# --- architecture terms ---


def binary_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of every softmax weight, taken as a yes-or-no choice, in decimal digits.

        H(p) = -p log10 p - (1 - p) log10(1 - p),  p = softmax(logits) along a row

    for each element, (n, k) -> (n, k). It is computed from log p = log_softmax and log(1 - p) = logsumexp of the row's
    *other* logits, never from 1 - p, so value and gradient stay finite at any finite logits. A logit of
    -inf is a masked choice: weight, entropy and gradient are 0 there.

    Example:
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
    """Return what pushes the weights of the search towards 0 or 1; for the architecture step only.

        L_arch = weight_alpha * mean H(softmax(alpha)) + weight_beta * mean H(softmax(beta))

    with H = `binary_entropy`, alpha (n_modules, candidate modules), beta (n_edges, n_operations). No rows count as 0.

    Source: method section 4.
    """
    alpha, beta = (binary_entropy(x).mean() if x.numel() else x.sum() for x in (alpha_logits, beta_logits))
    return weight_alpha * alpha + weight_beta * beta


def complexity(alpha_weights: Tensor, beta_weights: Tensor, costs: Costs) -> Tensor:
    """Return the expected cost of the relaxed network, as a share of the cost of the largest network.

        L_cost = ( fixed + sum alpha_w * cost_modules + sum beta_w * cost_edges ) / largest

    It is linear in the weights, and lies in (0, 1] where each row of them sums to 1.

    Args:
        alpha_weights: (n_modules, candidate modules), *after* the relaxation.
        beta_weights: (n_edges, n_operations), *after* the relaxation.
        costs: what each choice costs, from `networks.costs.measure_costs`: `modules` and `edges` of the same shapes
            as the weights, `fixed` for what every network of the space has, `largest` for its most expensive network.

    Raises:
        ValueError: where a row or column of the costs has no weight.

    Source: method section 4.
    """
    for name, weights, table in (("alpha", alpha_weights, costs.modules), ("beta", beta_weights, costs.edges)):
        if weights.shape != table.shape:
            shapes = f"{name} weights are {tuple(weights.shape)} but their costs {tuple(table.shape)}"
            raise ValueError(f"{shapes}: take the costs from the search space the weights belong to")
    modules = (alpha_weights * costs.modules.to(alpha_weights)).sum()
    edges = (beta_weights * costs.edges.to(beta_weights)).sum()
    return (costs.fixed + modules + edges) / costs.largest


# --- terms of your own ---


class Term(NamedTuple):
    """A registered term: `image` ones are called with (outputs, clean) in every step, `architecture` ones with
    (alpha_logits, beta_logits, alpha_weights, beta_weights, costs) in the architecture step."""

    on: Literal["image", "architecture"]
    function: Callable[..., Tensor]


TERMS: dict[str, Term] = {}
"""Every term beyond the published ones, by name. Its weight is the setting `loss.terms.NAME`."""

PUBLISHED_TERMS = ("external", "internal", "regularisation", "complexity")


def term(name: str, on: Literal["image", "architecture"] = "image") -> Callable[[Function], Function]:
    """Register the function below as a loss term; the setting `loss.terms.NAME` is then its weight.

    Args:
        name: what settings, logs and curves call it.
        on: `image` for a function of outputs (B, R, 3, h, w) and clean images (B, 3, h, w); `architecture` for a
            function of the same arguments as `DerainLoss.architecture`. Both return a scalar, a mean over scenes.

    Raises:
        ValueError: for the name of a published term.
    """
    if name in PUBLISHED_TERMS:
        raise ValueError(f"{name!r} is a published term: choose another name")

    def enter(function: Function) -> Function:
        TERMS[name] = Term(on, function)
        return function

    return enter


# --- all together ---


@dataclass(frozen=True)
class LossSettings:
    """Which terms count, and how much: the method's (section 4). A term of weight 0 is not computed."""

    external: str = "mse+ssim"
    """Distance to the clean image: some of mse, l1, charbonnier, log_mse and ssim, joined by +."""
    external_weight: float = 1.0
    """Weight of the external loss."""
    external_ssim: float = 1.0
    """Weight of the ssim distance beside the pixel distance."""
    tv: float = 1e-4
    """Weight of the total variation, within the external loss."""
    internal_weight: float = 1.0
    """Weight of the agreement between the derained versions of a scene."""
    internal_from: int = 5
    """First epoch with an internal loss, counted from 0."""
    internal_ssim: bool = False
    """Also count 1 - SSIM between the derained versions."""
    alpha_entropy_weight: float = 0.01
    """Weight of the entropy of alpha, in the architecture step."""
    beta_entropy_weight: float = 0.01
    """Weight of the entropy of beta, in the architecture step."""
    complexity_weight: float = 0.01
    """Weight of the expected cost, lambda; 0.01 and 0.1 are the values seen."""
    complexity_unit: CostUnit = "parameters"
    """What the expected cost counts."""
    terms: dict[str, float] = field(default_factory=dict, hash=False, metadata=LATER)
    """Weights of registered terms, by name: loss.terms.NAME=0.1."""

    def __post_init__(self) -> None:
        check(self)
        distances_of(self.external)
        if unknown := [name for name in self.terms if name not in TERMS]:
            known = f"choose among {', '.join(TERMS)}" if TERMS else "none is registered"
            advice = "import the file that registers one of your own first"
            raise ValueError(f"unknown loss term {unknown[0]!r}: {known}; {advice}")
        weights = [name for name in vars(self) if name.endswith("_weight")]
        must_be(self, "at least", 0, *weights, "tv", "external_ssim", "internal_from")
        if negative := [f"terms.{name} is {weight}" for name, weight in self.terms.items() if weight < 0]:
            raise ValueError(f"{negative[0]}: it must be at least 0")


class DerainLoss:
    """The weighted sum of the terms that are on.

    Both methods also return each term *before* its weight, as detached scalar tensors for the log. Nothing here waits
    for a GPU.

    Example:
    >>> loss = DerainLoss(LossSettings(internal_from=0))
    >>> total, terms = loss(torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 16, 16), epoch=0)
    >>> sorted(terms)
    ['external', 'internal']
    """

    def __init__(self, settings: LossSettings | None = None) -> None:
        self.settings = settings or LossSettings()

    def __call__(self, outputs: Tensor, clean: Tensor, *, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the image terms of a weight or architecture step: outputs (B, R, 3, h, w), clean (B, 3, h, w)."""
        settings = self.settings
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.external_weight:
            value = external(outputs, clean, kind=settings.external, tv=settings.tv, ssim=settings.external_ssim)
            terms["external"] = settings.external_weight, value
        if settings.internal_weight and epoch >= settings.internal_from:
            terms["internal"] = settings.internal_weight, internal(outputs, ssim=settings.internal_ssim)
        terms |= self._registered("image", outputs, clean)
        return _weighted_sum(terms, outputs)

    def architecture(
        self, alpha_logits: Tensor, beta_logits: Tensor, alpha_weights: Tensor, beta_weights: Tensor, costs: Costs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms of the architecture alone, for the architecture step.

        The logits and `costs` (in `complexity_unit`) are those of `complexity` and `architecture_regularisation`; the
        weights are the logits after the relaxation.
        """
        terms = self.architecture_terms(alpha_logits, beta_logits, alpha_weights, beta_weights, costs)
        return _weighted_sum(terms, alpha_logits)

    def architecture_terms(
        self, alpha_logits: Tensor, beta_logits: Tensor, alpha_weights: Tensor, beta_weights: Tensor, costs: Costs
    ) -> dict[str, tuple[float, Tensor]]:
        """Return each term of `architecture` that is on, with its weight, by name."""
        settings = self.settings
        terms: dict[str, tuple[float, Tensor]] = {}
        entropy_weights = settings.alpha_entropy_weight, settings.beta_entropy_weight
        if any(entropy_weights):
            terms["regularisation"] = 1.0, architecture_regularisation(alpha_logits, beta_logits, *entropy_weights)
        if settings.complexity_weight:
            terms["complexity"] = settings.complexity_weight, complexity(alpha_weights, beta_weights, costs)
        return terms | self._registered("architecture", alpha_logits, beta_logits, alpha_weights, beta_weights, costs)

    def _registered(self, on: str, *inputs: Any) -> dict[str, tuple[float, Tensor]]:
        weights = {name: weight for name, weight in self.settings.terms.items() if weight and TERMS[name].on == on}
        values = {name: (weight, TERMS[name].function(*inputs)) for name, weight in weights.items()}
        for name, (_, value) in values.items():
            if value.dim():
                raise ValueError(f"the loss term {name!r} must return one number, it returned {tuple(value.shape)}")
        return values


def _weighted_sum(terms: Mapping[str, tuple[float, Tensor]], like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    total = torch.stack([w * value for w, value in terms.values()]).sum() if terms else (0.0 * like).sum()
    return total, {name: value.detach() for name, (_, value) in terms.items()}


def _at_least_float32(x: Tensor) -> Tensor:
    """Widen half-precision outputs (autocast): squares of small differences vanish in 16 bits."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_scenes(outputs: Tensor, clean: Tensor | None = None) -> None:
    if outputs.dim() != 5 or outputs.shape[2] != 3 or 0 in outputs.shape:
        raise ValueError(f"outputs are {tuple(outputs.shape)}, expected (B, R, 3, h, w): the R versions of B scenes")
    expected = (outputs.shape[0], *outputs.shape[2:])
    if clean is not None and clean.shape != expected:
        shapes = f"clean is {tuple(clean.shape)} but outputs {tuple(outputs.shape)} ask for {expected}"
        raise ValueError(f"{shapes}: one clean image per scene")
