"""Hypergradients against analysis, double backward and the real optimisers."""

import copy
import inspect
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from manas_lite import bilevel
from manas_lite.bilevel import functional_loss, hypergradient, virtual_adam, virtual_sgd, virtual_step

SECOND_ORDERS = ["finite-difference", "exact"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    found, expected = (torch.cat([t.reshape(-1) for t in ts]) for ts in (found, expected))
    return float((found - expected).norm() / expected.norm())


# --- the quadratic toy of DARTS ---


def toy_val(w, a):
    return a[0] * w[0] - 2 * a[0] + 1


def toy_train(w, a):
    return w[0] ** 2 - 2 * a[0] * w[0] + a[0] ** 2


@pytest.mark.parametrize(
    ("order", "end"), [("first", (2.0, 2.0)), ("finite-difference", (1.0, 1.0)), ("exact", (1.0, 1.0))]
)
def test_the_quadratic_toy_ends_where_darts_says(order, end):
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    virtual = virtual_sgd(torch.optim.SGD([w], lr=0.5))  # xi = 0.5: the virtual step lands on w*(a) = a
    w_optimizer, a_optimizer = torch.optim.SGD([w], lr=0.05), torch.optim.SGD([a], lr=0.05)
    for _ in range(600):
        (a.grad,) = hypergradient(order, toy_train, toy_val, [w], [a], step=virtual).gradients
        a_optimizer.step()
        (w.grad,) = torch.autograd.grad(toy_train([w], [a]), [w])
        w_optimizer.step()
    assert (a.item(), w.item()) == pytest.approx(end, abs=1e-6)


# --- exact against analysis ---


def quadratic_problem(seed: int):
    """L_train = w'Aw/2 - w'Ba and L_val = |w - c|^2/2 + a'Dw, with A symmetric; every derivative is known."""
    n, m = 5, 3
    a_matrix = random(n, n, seed=seed)
    a_matrix = a_matrix + a_matrix.T
    b, c, d = random(n, m, seed=seed + 1), random(n, seed=seed + 2), random(m, n, seed=seed + 3)

    def train(w, a):
        return w[0] @ a_matrix @ w[0] / 2 - w[0] @ b @ a[0]

    def val(w, a):
        return (w[0] - c).square().sum() / 2 + a[0] @ d @ w[0]

    def analytic(w, a, new_w, slope):
        """For a step whose derivative with respect to the gradient is `slope` times the identity."""
        return d @ new_w - b.T @ (slope * (new_w - c + d.T @ a))

    return train, val, analytic, a_matrix, b


@pytest.mark.parametrize("order", SECOND_ORDERS)
@pytest.mark.parametrize("seed", range(4))
def test_second_order_equals_the_analytic_gradient(order, seed):
    train, val, analytic, a_matrix, b = quadratic_problem(seed)
    w, a = random(5, seed=seed + 10), random(3, seed=seed + 11)
    lr, decay, momentum = 0.1, 0.01, 0.9
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=decay, nesterov=True)
    buffer = random(5, seed=seed + 12)
    optimizer.state[w]["momentum_buffer"] = buffer.clone()

    found = hypergradient(order, train, val, [w], [a], step=virtual_sgd(optimizer))
    gradient = a_matrix @ w - b @ a + decay * w
    new_w = w - lr * (gradient + momentum * (momentum * buffer + gradient))
    expected = analytic(w, a, new_w, slope=-lr * (1 + momentum))
    torch.testing.assert_close(found.gradients[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.train_loss, train([w], [a]))
    torch.testing.assert_close(found.val_loss, val([new_w], [a]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), lr=st.floats(1e-3, 0.5))
def test_finite_difference_is_exact_where_the_gradient_is_linear(seed, lr):
    train, val, *_ = quadratic_problem(seed)
    w, a = random(5, seed=seed + 10), random(3, seed=seed + 11)
    step = virtual_sgd(torch.optim.SGD([w], lr=lr))
    found = hypergradient("finite-difference", train, val, [w], [a], step=step)
    exact = hypergradient("exact", train, val, [w], [a], step=step)
    torch.testing.assert_close(found.gradients, exact.gradients, rtol=1e-8, atol=1e-8)


# --- finite difference against exact on networks ---


def mixed_network(activation, seed: int = 0):
    """Two mixed layers: softmax(arch) chooses between two linear maps each; returns pure losses and
    tensors."""
    weights = [random(6, 6, seed=seed + i) / 6**0.5 for i in range(4)]
    arch = [0.5 * random(2, 2, seed=seed + 7)]
    x, y = random(16, 6, seed=seed + 8), random(16, 6, seed=seed + 9)

    def loss(rows):
        def evaluate(w, a):
            mix = torch.softmax(a[0], -1)
            h = x[rows]
            for layer in range(2):
                left, right = h @ w[2 * layer], h @ w[2 * layer + 1]
                h = mix[layer, 0] * activation(left) + mix[layer, 1] * activation(right)
            return (h - y[rows]).square().mean()

        return evaluate

    return loss(slice(0, 8)), loss(slice(8, 16)), weights, arch


def textbook_finite_difference(train, val, weights, arch, lr, radius, *, precedence_bug=False):
    """DARTS's own recipe for plain SGD, with the slip several ports carry: `(p - n) / 2.*eps`."""
    weights, arch = ([t.clone().requires_grad_() for t in ts] for ts in (weights, arch))
    gradients = torch.autograd.grad(train(weights, arch), weights)
    new = [(w - lr * g).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
    value = val(new, arch)
    direct = torch.autograd.grad(value, arch, retain_graph=True)
    vector = torch.autograd.grad(value, new)
    eps = radius / torch.cat([v.reshape(-1) for v in vector]).norm()
    above, below = ([w + s * eps * v for w, v in zip(weights, vector, strict=True)] for s in (1, -1))
    p, n = (torch.autograd.grad(train(moved, arch), arch) for moved in (above, below))
    if precedence_bug:
        implicit = [(p_ - n_) / 2.0 * eps for p_, n_ in zip(p, n, strict=True)]
    else:
        implicit = [(p_ - n_) / (2.0 * eps) for p_, n_ in zip(p, n, strict=True)]
    return [d - lr * i for d, i in zip(direct, implicit, strict=True)]


def implicit_error(found, train, val, weights, arch, step) -> float:
    """Error of the second-order term alone: the first-order one would hide it."""
    exact = hypergradient("exact", train, val, weights, arch, step=step).gradients
    new = [w - 0.1 * g for w, g in zip(weights, gradients_of(train, weights, arch), strict=True)]
    (direct,) = hypergradient("first", None, val, new, arch).gradients
    return relative_error([found[0] - direct], [exact[0] - direct])


def gradients_of(loss, weights, arch):
    leaves = [w.clone().requires_grad_() for w in weights]
    return torch.autograd.grad(loss(leaves, arch), leaves)


@pytest.mark.parametrize("seed", [0, 20, 40])
def test_finite_difference_converges_to_exact_on_a_smooth_network(seed):
    train, val, weights, arch = mixed_network(torch.tanh, seed)
    step = virtual_sgd(torch.optim.SGD(weights, lr=0.1))
    errors = []
    for radius in (1e-2, 1e-3):
        found = hypergradient("finite-difference", train, val, weights, arch, step=step, radius=radius)
        errors.append(implicit_error(found.gradients, train, val, weights, arch, step))
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)  # the error of a central difference is O(r^2)


def test_the_precedence_bug_of_public_ports_is_caught():
    train, val, weights, arch = mixed_network(torch.tanh)
    step = virtual_sgd(torch.optim.SGD(weights, lr=0.1))
    correct = textbook_finite_difference(train, val, weights, arch, 0.1, 1e-2)
    mutant = textbook_finite_difference(train, val, weights, arch, 0.1, 1e-2, precedence_bug=True)
    found = hypergradient("finite-difference", train, val, weights, arch, step=step).gradients
    torch.testing.assert_close(found[0], correct[0], rtol=1e-9, atol=1e-12)
    assert implicit_error(correct, train, val, weights, arch, step) < 1e-3
    assert implicit_error(mutant, train, val, weights, arch, step) > 0.5  # the check of the test above fails


@pytest.mark.parametrize("seed", [0, 20])
def test_finite_difference_on_a_relu_network_needs_a_small_radius(seed):
    train, val, weights, arch = mixed_network(torch.relu, seed)
    step = virtual_sgd(torch.optim.SGD(weights, lr=0.1))

    def error(radius: float) -> float:
        found = hypergradient("finite-difference", train, val, weights, arch, step=step, radius=radius)
        return implicit_error(found.gradients, train, val, weights, arch, step)

    assert error(1e-5) < 1e-3
    assert error(1e-2) > 0.5  # the default: a unit switched between the two sides


@pytest.mark.parametrize("order", SECOND_ORDERS)
def test_exact_equals_differentiating_through_adam_numerically(order):
    """Oracle without any of our derivatives: val(w'(a), a) at a +- h."""
    train, val, weights, arch = mixed_network(torch.tanh)
    optimizer = torch.optim.Adam(weights, lr=0.01, weight_decay=1e-3)
    for w in weights:
        w.grad = random(*w.shape, seed=3)
    optimizer.step()
    step = virtual_adam(optimizer)

    def outer(a):
        return val(step(weights, gradients_of(train, weights, [a])), [a])

    h = 1e-5
    numeric = torch.zeros_like(arch[0])
    for i in range(2):
        for j in range(2):
            e = torch.zeros_like(numeric)
            e[i, j] = h
            numeric[i, j] = (outer(arch[0] + e) - outer(arch[0] - e)) / (2 * h)
    found = hypergradient(order, train, val, weights, arch, step=step, radius=1e-4)
    assert relative_error(found.gradients, [numeric]) < 1e-6


def test_the_clipping_factor_is_held_constant():
    train, val, weights, arch = mixed_network(torch.tanh)
    clip = 0.5 * float(torch.cat([g.reshape(-1) for g in gradients_of(train, weights, arch)]).norm())
    clipped = virtual_sgd(torch.optim.SGD(weights, lr=0.1), clip=clip)
    # a factor of one half, held constant, is half the rate
    norm = 2 * clip
    slower = virtual_sgd(torch.optim.SGD(weights, lr=0.1 * clip / (norm + 1e-6)))
    for order in SECOND_ORDERS:
        found = hypergradient(order, train, val, weights, arch, step=clipped)
        expected = hypergradient(order, train, val, weights, arch, step=slower)
        torch.testing.assert_close(found.gradients, expected.gradients, rtol=1e-9, atol=1e-12)


# --- virtual steps against the real optimisers ---

OPTIMISERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 3e-4}),
    "dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 3e-4}),
    "maximize": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.5, 0.999)}),
    "adam-decay": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 1e-3}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
}
if "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters:  # not in the oldest torch allowed
    OPTIMISERS["adam-decoupled"] = (torch.optim.Adam, OPTIMISERS["adamw"][1] | {"decoupled_weight_decay": True})


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
@pytest.mark.parametrize("age", [0, 1, 7])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_virtual_step_is_the_real_step(name, age, clip):
    kind, options = OPTIMISERS[name]
    weights = [random(4, 3, seed=1).requires_grad_(), random(5, seed=2).requires_grad_()]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 0.02}]
    optimizer = kind(groups, **options)

    def set_gradients(seed: int) -> None:
        for i, w in enumerate(weights):
            w.grad = random(*w.shape, seed=seed + i)

    for seed in range(age):
        set_gradients(10 * seed)
        optimizer.step()
    set_gradients(1000)
    predicted = virtual_step(optimizer, clip)(weights, [w.grad.clone() for w in weights])
    if clip is not None:
        nn.utils.clip_grad_norm_(weights, clip)
    optimizer.step()
    torch.testing.assert_close(predicted, tuple(weights), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["nesterov", "adam-decay"])
def test_weights_without_gradient_are_skipped_as_the_optimiser_skips_them(name):
    kind, options = OPTIMISERS[name]
    weights = [random(3, seed=1).requires_grad_(), random(3, seed=2).requires_grad_()]
    optimizer = kind(weights, **options)
    weights[0].grad = random(3, seed=3)
    optimizer.step()
    predicted = virtual_step(optimizer, clip=0.1)(weights, [weights[0].grad.clone(), None])
    nn.utils.clip_grad_norm_(weights, 0.1)
    optimizer.step()
    torch.testing.assert_close(predicted, tuple(weights), rtol=1e-12, atol=1e-12)


def test_adam_at_a_dead_unit_stays_finite():
    """First step, gradient exactly 0: the slope of sqrt is infinite there."""
    w, a = torch.zeros(2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    alive = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def train(weights, arch):
        return (arch[0] * alive * (weights[0] - 1)).square().sum()

    def val(weights, arch):
        return (arch[0] * (weights[0] - 2)).square().sum()

    step = virtual_adam(torch.optim.Adam([w], lr=0.1))
    for order in SECOND_ORDERS:
        assert hypergradient(order, train, val, [w], [a], step=step).gradients[0].isfinite().all()


def test_adams_slope_at_a_dead_unit_is_its_limit():
    """Around 0 the first step is w - rate * g / (|g| + eps), whose slope at 0 is -rate / eps."""
    step = virtual_adam(torch.optim.Adam([torch.zeros(2, dtype=torch.float64)], lr=0.1, eps=1e-3))
    g = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(step([torch.zeros(2, dtype=torch.float64)], [g])[0].sum(), g)
    torch.testing.assert_close(slope, torch.full_like(slope, -0.1 / 1e-3), rtol=1e-12, atol=0)


def test_a_zero_direction_gives_the_first_order_gradient():
    train, val, weights, arch = mixed_network(torch.tanh)
    step = virtual_sgd(torch.optim.SGD(weights, lr=0.0))
    found = hypergradient("finite-difference", train, val, weights, arch, step=step)
    first = hypergradient("first", train, val, weights, arch)
    torch.testing.assert_close(found.gradients, first.gradients)


# --- losses from modules ---


class MixedModule(nn.Module):
    """A searched network with everything a virtual pass could disturb: BatchNorm, dropout, unused weights."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(2))
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.head, self.unused = nn.Conv2d(4, 3, 1), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(self.alpha, 0)
        return self.head(self.drop(torch.relu(self.norm(p[0] * self.one(x) + p[1] * self.two(x)))))


@pytest.fixture
def module_problem():
    torch.manual_seed(0)
    net = MixedModule().double()
    x, y = random(2, 3, 6, 6), random(2, 3, 6, 6, seed=1)
    weights = [p for name, p in net.named_parameters() if name != "alpha"]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()

    def objective(module: MixedModule) -> Tensor:
        return (module(x) - y).square().mean() + 0.1 * module.alpha.square().sum()

    return net, objective, weights, optimizer


def test_a_functional_loss_is_the_modules_loss(module_problem):
    net, objective, weights, _ = module_problem
    loss = functional_loss(net, objective, weights, [net.alpha])
    state = torch.get_rng_state()
    value = loss(weights, [net.alpha])
    assert torch.equal(value, objective(copy.deepcopy(net)))
    torch.set_rng_state(state)
    moved = [w + 0.1 for w in weights]
    other = copy.deepcopy(net)
    with torch.no_grad():
        for name, w in other.named_parameters():
            if name != "alpha":
                w.add_(0.1)
    assert torch.equal(loss(moved, [net.alpha]), objective(other))


@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
def test_a_virtual_pass_changes_nothing(module_problem, order):
    net, objective, weights, optimizer = module_problem
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    random_state = torch.get_rng_state()

    loss = functional_loss(net, objective, weights, [net.alpha])
    step = virtual_step(optimizer, clip=1.0)
    found = hypergradient(order, loss, loss, weights, [net.alpha], step=step)
    assert found.gradients[0].any()
    bilevel.dominant_eigenvalue(lambda a: loss(weights, a), [net.alpha])

    torch.testing.assert_close((net.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        assert (p.grad is None and gradient is None) or torch.equal(p.grad, gradient)
    assert net.training
    assert all(p.requires_grad and p.grad_fn is None for p in net.parameters())


def test_repeated_calls_draw_the_same_dropout(module_problem):
    net, objective, weights, _ = module_problem
    loss = functional_loss(net, objective, weights, [net.alpha])
    assert torch.equal(loss(weights, [net.alpha]), loss(weights, [net.alpha]))


@pytest.mark.parametrize("order", SECOND_ORDERS)
def test_a_module_hypergradient_is_the_numerical_one(module_problem, order):
    """The whole chain: module, copies of buffers, clipping off, momentum, unused weights."""
    net, objective, weights, optimizer = module_problem
    net.drop.p = 0.0
    optimizer.zero_grad()  # as in a training loop: a weight the loss does not reach keeps gradient None
    loss = functional_loss(net, objective, weights, [net.alpha])
    step = virtual_step(optimizer)

    def outer(a):
        leaves = [w.detach().clone().requires_grad_() for w in weights]
        gradients = torch.autograd.grad(loss(leaves, [a]), leaves, allow_unused=True)
        return loss(step(weights, gradients), [a]).detach()

    alpha, h = net.alpha.detach(), 1e-6
    numeric = torch.stack([(outer(alpha + h * e) - outer(alpha - h * e)) / (2 * h) for e in torch.eye(2).double()])
    found = hypergradient(order, loss, loss, weights, [net.alpha], step=step, radius=1e-5)
    assert relative_error(found.gradients, [numeric]) < 1e-5


def test_foreign_parameters_are_refused(module_problem):
    net, objective, weights, _ = module_problem
    with pytest.raises(ValueError, match="parameters of the module itself"):
        functional_loss(net, objective, weights, [net.alpha.detach().clone()])


# --- curvature ---


def curved(arch):
    return (torch.softmax(arch[0], -1).square().sum() - arch[1].sin().prod()) ** 2 + arch[0].pow(3).sum()


def test_the_hessian_is_torchs():
    arch = (random(2, 3), random(4, seed=1))
    blocks = torch.autograd.functional.hessian(lambda *a: curved(a), arch)
    rows = [torch.cat([b.reshape(a.numel(), -1) for b in row], 1) for a, row in zip(arch, blocks, strict=True)]
    expected = torch.cat(rows)
    torch.testing.assert_close(bilevel.architecture_hessian(curved, arch), expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_dominant_eigenvalue_is_the_largest_of_the_hessian(seed):
    arch = (random(2, 3, seed=seed), random(4, seed=seed + 9))
    values = torch.linalg.eigvalsh(bilevel.architecture_hessian(curved, arch))
    expected = values[values.abs().argmax()].item()
    found = bilevel.dominant_eigenvalue(curved, arch, iterations=2000, tolerance=1e-9)
    assert found.converged
    assert found.value == pytest.approx(expected, rel=1e-5)


def test_negative_zero_and_unsettled_eigenvalues():
    matrix = torch.diag(torch.tensor([-3.0, 1.0, 2.9], dtype=torch.float64))
    quadratic = lambda a: a[0] @ matrix @ a[0] / 2  # noqa: E731
    start = [torch.zeros(3, dtype=torch.float64)]
    assert bilevel.dominant_eigenvalue(quadratic, start, iterations=3000, tolerance=1e-12).value == pytest.approx(-3)
    assert not bilevel.dominant_eigenvalue(quadratic, start, iterations=2, tolerance=1e-12).converged
    assert bilevel.dominant_eigenvalue(lambda a: a[0].sum(), start) == (0.0, 1, True)


def test_the_iteration_counts_its_products_and_compares_like_with_like():
    start = [torch.zeros(4, dtype=torch.float64)]
    round_bowl = lambda a: 1.5 * a[0].square().sum()  # noqa: E731  # 3 * identity: every vector is an eigenvector
    one, two = (bilevel.dominant_eigenvalue(round_bowl, start, iterations=n) for n in (1, 9))
    assert one == (pytest.approx(3), 1, False)
    assert two == (pytest.approx(3), 2, True)
    line = [torch.zeros(1, dtype=torch.float64)]
    assert bilevel.dominant_eigenvalue(round_bowl, line, tolerance=0.0) == (3.0, 2, True)


def test_the_tolerance_is_a_share_of_the_value():
    start = [random(2, 3), random(4, seed=9)]
    counts = [
        bilevel.dominant_eigenvalue(lambda a, s=scale: s * curved(a), start).iterations for scale in (1e-4, 1.0, 1e4)
    ]
    assert len(set(counts)) == 1
    assert 2 < counts[0] < 50


def test_the_defaults_of_the_iteration():
    values = torch.tensor([1.0, 0.99, 0.98, -0.97], dtype=torch.float64)  # so close that it takes long
    start = [torch.zeros(4, dtype=torch.float64)]
    bowl = lambda a: (values * a[0].square()).sum() / 2  # noqa: E731
    found = bilevel.dominant_eigenvalue(bowl, start)
    assert found == bilevel.dominant_eigenvalue(bowl, start, iterations=50, tolerance=1e-3, seed=0)
    assert found != bilevel.dominant_eigenvalue(bowl, start, tolerance=2e-3)
    assert found != bilevel.dominant_eigenvalue(bowl, start, seed=1)
    assert bilevel.dominant_eigenvalue(bowl, start, tolerance=0.0).iterations == 50


@pytest.mark.parametrize("order", ["first", *SECOND_ORDERS])
def test_logits_that_the_losses_do_not_reach_have_a_zero_gradient(order):
    w, a, unused = random(3), random(3, seed=1), random(2, seed=2)
    loss = lambda weights, arch: (weights[0] * arch[0]).square().sum()  # noqa: E731
    step = virtual_sgd(torch.optim.SGD([w], lr=0.1))
    found = hypergradient(order, loss, loss, [w], [a, unused], step=step).gradients
    assert found[0].any()
    assert torch.equal(found[1], torch.zeros(2, dtype=torch.float64))


# --- bad input ---


def test_bad_input_is_named():
    train, val, weights, arch = mixed_network(torch.tanh)
    step = virtual_sgd(torch.optim.SGD(weights, lr=0.1))
    with pytest.raises(ValueError, match="unknown order 'second': choose one of first"):
        hypergradient("second", train, val, weights, arch, step=step)
    with pytest.raises(ValueError, match="needs a train_loss and a step"):
        hypergradient("exact", train, val, weights, arch)
    with pytest.raises(ValueError, match=r"radius is 0.0"):
        hypergradient("finite-difference", train, val, weights, arch, step=step, radius=0.0)
    with pytest.raises(ValueError, match="no virtual step for RMSprop"):
        virtual_step(torch.optim.RMSprop(weights))
    with pytest.raises(ValueError, match="in the order of its groups"):
        step(weights[:2], weights[:2])
