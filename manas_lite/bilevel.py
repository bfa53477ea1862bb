"""Gradients of the bilevel problem (method section 6), as pure functions of sequences of tensors.

    minimise over a:  L_val( w*(a), a ),     w*(a) = argmin_w L_train(w, a)

DARTS (Liu et al., ICLR 2019) puts one optimiser step in the place of w*(a):

    w' = step(w, grad_w L_train(w, a))

With v = J_step^T grad_w' L_val(w', a), the gradient through the step's gradient argument,

    dL_val/da = grad_a L_val(w', a) + ( d^2 L_train(w, a) / da dw ) v

The order `first` drops the second term and takes w' = w. `exact` computes it by double backward. `finite-difference`
needs only two more gradients:

    ( d^2 L_train / da dw ) v  ~  [ grad_a L_train(w + e v, a) - grad_a L_train(w - e v, a) ] / (2 e)
    e = radius / |v|

A loss is any function `loss(weights, arch) -> scalar`; `functional_loss` makes one from a module. Nothing here changes
a tensor, a buffer, an optimiser or the random state that it is given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
Gradients = Sequence[Tensor | None]  # None: the loss did not reach that tensor, so an optimiser skips it
Step = Callable[[Sequence[Tensor], Gradients], tuple[Tensor, ...]]
Order = Literal["first", "finite-difference", "exact"]
ArchLoss = Callable[[Sequence[Tensor]], Tensor]  # a scalar function of the architecture alone


# --- hypergradients ---


@dataclass(frozen=True)
class Hypergradient:
    """The gradient of the validation loss, and the losses on the way, detached."""

    gradients: tuple[Tensor, ...]
    """One per tensor of `arch`, in its shape."""
    val_loss: Tensor
    """The validation loss, a scalar, after the virtual step if there is one."""
    train_loss: Tensor | None = None
    """The training loss, a scalar; None at first order, which does not evaluate it."""


def hypergradient(
    order: Order,
    train_loss: Loss | None,
    val_loss: Loss,
    weights: Sequence[Tensor],
    arch: Sequence[Tensor],
    *,
    step: Step | None = None,
    radius: float = 1e-2,
) -> Hypergradient:
    """Return the gradient of the validation loss with respect to `arch`, by the formulas at the top of this module.

    Args:
        order: `first`, `finite-difference` or `exact`.
        train_loss, val_loss: pure losses; `train_loss` and `step` may be None at first order.
        weights, arch: current values, in the order the losses expect; parameters may be passed as they are.
        step: one differentiable optimiser step, usually from `virtual_step(optimizer)`.
        radius: length of the perturbation of the weights, for `finite-difference`. 1e-2 is DARTS's. On networks with
            ReLU, whose gradients jump, it can be badly wrong: take 1e-5 in float64, or `exact`.

    Example:
    >>> val = lambda w, a: a[0] * w[0] - 2 * a[0] + 1
    >>> train = lambda w, a: w[0] ** 2 - 2 * a[0] * w[0] + a[0] ** 2
    >>> w, a = [torch.tensor(-2.0)], [torch.tensor(2.0)]
    >>> hypergradient("first", train, val, w, a).gradients
    (tensor(-4.),)
    >>> hypergradient("exact", train, val, w, a, step=virtual_sgd(torch.optim.SGD(w, lr=0.5))).gradients
    (tensor(2.),)

    Source: DARTS, sections 2.3 and A.2; virtual steps of any optimiser are this kit's choice.
    """
    if order not in get_args(Order):
        raise ValueError(f"unknown order {order!r}: choose one of {', '.join(get_args(Order))}")
    weights, arch = _leaves(weights), _leaves(arch)
    if order == "first":
        loss = val_loss(tuple(w.detach() for w in weights), arch)
        return Hypergradient(_gradients(loss, arch), loss.detach())
    if train_loss is None or step is None:
        raise ValueError(f"order {order!r} needs a train_loss and a step (see virtual_step); only 'first' does not")
    if order == "exact":
        train = train_loss(weights, arch)
        val = val_loss(step(weights, torch.autograd.grad(train, weights, create_graph=True, allow_unused=True)), arch)
        return Hypergradient(_gradients(val, arch), val.detach(), train.detach())
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius is {radius}: it must be a finite number above 0")
    return _finite_difference(train_loss, val_loss, weights, arch, step, radius)


def _finite_difference(
    train_loss: Loss, val_loss: Loss, weights: Sequence[Tensor], arch: Sequence[Tensor], step: Step, radius: float
) -> Hypergradient:
    train = train_loss(weights, tuple(a.detach() for a in arch))
    gradients = torch.autograd.grad(train, weights, allow_unused=True)
    used = [i for i, gradient in enumerate(gradients) if gradient is not None]
    # The step's gradients become leaves of their own: v is the derivative of L_val with respect to them.
    gradients = tuple(None if gradient is None else gradient.requires_grad_() for gradient in gradients)
    fixed = [w.detach() for w in weights]

    val = val_loss(step(fixed, gradients), arch)
    found = _gradients(val, [*arch, *(gradients[i] for i in used)])
    direct, v = found[: len(arch)], found[len(arch) :]

    # Where v = 0 the two sides below are equal and the term is 0, however large epsilon is.
    epsilon = radius / _norm(v).clamp_min(torch.finfo(train.dtype).tiny)

    def at(sign: int) -> tuple[Tensor, ...]:
        moved = list(fixed)
        for i, direction in zip(used, v, strict=True):
            moved[i] = fixed[i] + sign * epsilon * direction
        return _gradients(train_loss(moved, arch), arch)

    total = (d + (p - n) / (2 * epsilon) for d, p, n in zip(direct, at(+1), at(-1), strict=True))
    return Hypergradient(tuple(total), val.detach(), train.detach())


# --- virtual optimiser steps ---


def virtual_step(optimizer: torch.optim.Optimizer, clip: float | None = None) -> Step:
    """Return the next step of `optimizer` as a differentiable function (weights, gradients) -> new weights.

    It does what `clip_grad_norm_(weights, clip); optimizer.step()` would do from the optimiser's present state and
    settings, and changes nothing. `weights` are in the order of the optimiser's parameters, group after group; a
    gradient of None skips its weight. The function is valid until the optimiser really steps.

    The clipping factor is held constant: no derivative is taken through the norm (this kit's choice). Adam's step is
    steep where a gradient and its history are 0 (slope rate / eps), which shrinks the perturbation of the finite
    difference everywhere: prefer `exact` with Adam.

    Args:
        optimizer: SGD, Adam or AdamW; ValueError for another one.
        clip: largest norm of all gradients together; None does not clip.
    """
    known = {torch.optim.SGD: _sgd, torch.optim.AdamW: _adam, torch.optim.Adam: _adam}
    update = next((update for kind, update in known.items() if isinstance(optimizer, kind)), None)
    if update is None:
        raise ValueError(f"no virtual step for {type(optimizer).__name__}: use SGD, Adam or AdamW")
    decoupled = isinstance(optimizer, torch.optim.AdamW)
    owners = []
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = dict(optimizer.state.get(weight, {}))
            state["step"] = float(state.get("step", 0))  # an age in float32 would blur the bias correction
            owners.append((weight.shape, {"decoupled_weight_decay": decoupled, **group}, state))
    shapes = [shape for shape, _, _ in owners]

    def step(weights: Sequence[Tensor], gradients: Gradients) -> tuple[Tensor, ...]:
        if [w.shape for w in weights] != shapes or len(gradients) != len(weights):
            raise ValueError(
                f"{len(weights)} weights and {len(gradients)} gradients do not match the optimiser's "
                f"{len(shapes)} parameters in number, order or shape: pass them in the order of its groups"
            )
        if clip is not None:
            norm = _norm([g.detach() for g in gradients if g is not None])
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)  # as in clip_grad_norm_
            gradients = [None if g is None else g * factor for g in gradients]
        return tuple(
            w if g is None else update(w, -g if group["maximize"] else g, group, state)
            for w, g, (_, group, state) in zip(weights, gradients, owners, strict=True)
        )

    return step


virtual_sgd = virtual_adam = virtual_step  # for who wants to name the optimiser


def _sgd(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """Return w after a step of SGD: momentum (its first step included), dampening, Nesterov, weight decay."""
    if group["weight_decay"]:
        g = g + group["weight_decay"] * w
    if momentum := group["momentum"]:
        buffer = state.get("momentum_buffer")
        average = g if buffer is None else momentum * buffer + (1 - group["dampening"]) * g
        g = g + momentum * average if group["nesterov"] else average
    return w - group["lr"] * g


def _adam(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """Return w after a step of Adam or AdamW: bias correction, weight decay of either kind, AMSGrad."""
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"]
    if group["decoupled_weight_decay"]:
        w = w * (1 - group["lr"] * decay)
    elif decay:
        g = g + decay * w
    age = state["step"] + 1
    # Out of place, unlike torch's own step: the derivative flows through the new averages as far as they hold g.
    mean = beta1 * state.get("exp_avg", 0.0) + (1 - beta1) * g
    square = beta2 * state.get("exp_avg_sq", 0.0) + (1 - beta2) * g * g
    largest = torch.maximum(state.get("max_exp_avg_sq", square), square) if group["amsgrad"] else square
    # The square root has an infinite slope at 0, and infinity times its zero gradient would be NaN. The inner
    # `where` keeps 0 away from it, the outer one puts 0 back, with slope 0.
    positive = largest > 0
    root = torch.where(positive, torch.where(positive, largest, 1.0).sqrt(), 0.0)
    denominator = root / (1 - beta2**age) ** 0.5 + group["eps"]
    return w - group["lr"] / (1 - beta1**age) * mean / denominator


# --- losses from modules ---


def functional_loss(
    module: nn.Module, objective: Callable[[Any], Tensor], weights: Sequence[Tensor], arch: Sequence[Tensor]
) -> Loss:
    """Make a pure loss(weights, arch) of a module: `objective(module)` with those tensors in the parameters' place.

    Each call works on copies of the buffers, so that BatchNorm in train mode normalises by the batch and its running
    statistics stay as they are. It starts from the present random state and restores it, so that all calls draw the
    same dropout masks and the generators do not move.

    Args:
        module: the network.
        objective: a scalar of the module, such as `lambda net: mse(net(rainy), clean) + regularise(net.alpha)`.
        weights, arch: parameters of the module itself (else ValueError), in the order in which the loss takes them.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    if any(id(p) not in names for p in (*weights, *arch)):
        raise ValueError("weights and arch must be parameters of the module itself, not copies of them")
    keys = [f"module.{names[id(p)]}" for p in (*weights, *arch)]
    whole = _Objective(module, objective)

    def loss(weights: Sequence[Tensor], arch: Sequence[Tensor]) -> Tensor:
        buffers = {f"module.{name}": buffer.clone() for name, buffer in module.named_buffers()}
        tensors = dict(zip(keys, (*weights, *arch), strict=True))
        with torch.random.fork_rng({t.device.index for t in tensors.values() if t.is_cuda}):
            return torch.func.functional_call(whole, {**tensors, **buffers}, ())

    return loss


class _Objective(nn.Module):
    """A module whose forward pass is a function of another module: what `functional_call` can call."""

    def __init__(self, module: nn.Module, objective: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module, self.objective = module, objective

    def forward(self) -> Tensor:
        return self.objective(self.module)


# --- curvature ---


class Eigenvalue(NamedTuple):
    """What a power iteration found."""

    value: float  # of largest magnitude, with its sign
    iterations: int  # Hessian-vector products that it took
    converged: bool


def dominant_eigenvalue(
    loss: ArchLoss, arch: Sequence[Tensor], *, iterations: int = 50, tolerance: float = 1e-3, seed: int = 0
) -> Eigenvalue:
    """Return the dominant eigenvalue of the Hessian of loss(arch), by power iteration on Hessian-vector products.

    A large or fast growing one foretells a search that collapses (RobustDARTS, Zela et al., ICLR 2020).

    Args:
        loss, arch: a scalar function, and where its Hessian is taken.
        iterations: how many products at most.
        tolerance: the iteration stops when the Rayleigh quotient moves by less than this share of itself.
        seed: draws the vector that the iteration starts from.
    """
    product, gradient = _hessian(loss, arch)
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(gradient.shape, generator=generator, dtype=torch.float64).to(gradient)
    vector = vector / vector.norm()
    value = math.inf
    for iteration in range(1, iterations + 1):
        image = product(vector)
        previous, value = value, float(vector @ image)
        length = float(image.norm())
        if length == 0 or abs(value - previous) <= tolerance * abs(value):
            return Eigenvalue(value, iteration, True)
        vector = image / length
    return Eigenvalue(value, iterations, False)


def architecture_hessian(loss: ArchLoss, arch: Sequence[Tensor]) -> Tensor:
    """Return the whole Hessian of loss(arch), (n, n) over the n numbers of `arch` in order, one product per row.

    The 267 architecture numbers of the paper's space allow it; `dominant_eigenvalue` is cheaper.
    """
    product, gradient = _hessian(loss, arch)
    return torch.stack([product(row) for row in torch.eye(len(gradient)).to(gradient)])


def _hessian(loss: ArchLoss, arch: Sequence[Tensor]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the map of a vector (n,) to the Hessian times it, and the gradient (n,)."""
    arch = _leaves(arch)
    gradient = _flatten(_gradients(loss(arch), arch, create_graph=True))

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a loss linear in arch
            return torch.zeros_like(vector)
        return _flatten(_gradients(gradient, arch, grad_outputs=vector, retain_graph=True))

    return product, gradient


# --- small helpers ---


def _leaves(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the same values as new leaves that ask for gradients; nothing flows back into the caller's tensors."""
    return tuple(t.detach().requires_grad_() for t in tensors)


def _gradients(output: Tensor, inputs: Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Return gradients, with zeros where the output does not depend on an input."""
    return torch.autograd.grad(output, inputs, materialize_grads=True, **options)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm over all the tensors together."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
