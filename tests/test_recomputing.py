"""Recomputing in the backward pass: the same values, gradients and statistics, out of less memory; counted."""

from collections.abc import Callable
from functools import partial

import pytest
import textbook
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from manas_lite.bilevel import functional_loss, hypergradient, virtual_step
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.recomputing import recompute
from manas_lite.networks.relaxation import Relaxation
from manas_lite.networks.space import SearchSpace
from manas_lite.training.schedules import SearchSettings

SPACE = SearchSpace((8, 12), 2, norm="batch")


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(checkpoint: str, **changes) -> SuperNet:
    net = SuperNet(SPACE, **changes).double().train()
    textbook.randomise(net)
    net.set_recompute(checkpoint)
    return net


def mean_square(net: nn.Module, x: Tensor) -> Tensor:
    return (net(x) ** 2).mean()


def saved_bytes(run: Callable[[], object]) -> int:
    """Bytes of the distinct storages that the graph of `run` keeps for its backward pass."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("checkpoint", ["edges", "all"])
def test_values_gradients_and_statistics_are_the_same(checkpoint):
    plain, saving = network("none"), network(checkpoint)
    x = images(2, 3, 16, 8)
    for net in (plain, saving):
        (net(x) ** 2).sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-10, atol=1e-10, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), f"{name} moved another way"


@pytest.mark.parametrize("checkpoint", ["edges", "all"])
@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
def test_hypergradients_are_the_same(order, checkpoint):
    """They run the network with other weights in its parameters' place, and `exact` differentiates twice."""
    gradients = []
    for name in ("none", checkpoint):
        net = network(name)
        weights, arch = net.weight_parameters(), net.arch_parameters()
        optimizer = torch.optim.SGD(weights, 0.01, momentum=0.9)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        train, val = (
            functional_loss(net, partial(mean_square, x=images(2, 3, 8, 8, seed=seed)), weights, arch)
            for seed in (1, 2)
        )
        found = hypergradient(order, train, val, weights, arch, step=virtual_step(optimizer), radius=1e-5)
        gradients.append(found.gradients)
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-12)


def test_the_second_run_is_of_the_first_runs_parameters():
    """The naive form recomputes with the module's own parameters, after functional_call has put them back."""
    layer, x = nn.Linear(3, 3, dtype=torch.float64), images(2, 3)
    tripled = {name: (3 * p).detach().requires_grad_() for name, p in layer.named_parameters()}
    squared = nn.Sequential(layer, nn.Tanh())
    other = {f"0.{name}": p for name, p in tripled.items()}
    runs: list[int] = []
    squared.register_forward_pre_hook(lambda *_: runs.append(1))

    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = squared

        def forward(self, x: Tensor) -> Tensor:
            return recompute(self.body, x, when=True)

    saving = torch.func.functional_call(Saving(), {f"body.{k}": p for k, p in other.items()}, (x,))
    plain = torch.func.functional_call(squared, other, (x,))
    values = list(other.values())
    for a, b in zip(torch.autograd.grad(saving.sum(), values), torch.autograd.grad(plain.sum(), values), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert len(runs) == 3  # the plain one, and two of the other


@pytest.mark.parametrize(("when", "grads", "times"), [(True, True, 2), (False, True, 1), (True, False, 1)])
def test_a_module_runs_twice_only_where_that_is_asked_for_and_gradients_are_too(when, grads, times):
    module, runs = nn.Sequential(nn.Linear(3, 3, dtype=torch.float64), nn.Tanh()), []
    module.register_forward_pre_hook(lambda *_: runs.append(1))
    with torch.set_grad_enabled(grads):
        y = recompute(module, images(2, 3), when=when)
    if grads:
        y.sum().backward()
    assert len(runs) == times


def test_saved_bytes_fall():
    """At paper size, counted on the meta device: gates are a third of what a step keeps."""
    with torch.device("meta"):
        net = SuperNet(SearchSpace())
        x = torch.empty(3, 3, 64, 64)
    held = {}
    for checkpoint in ("none", "edges", "all"):
        net.set_recompute(checkpoint)
        held[checkpoint] = saved_bytes(lambda: net(x))
    weights = sum(p.nbytes for p in net.parameters())
    activations = {name: total - weights for name, total in held.items()}
    assert activations["edges"] < 0.72 * activations["none"]
    assert activations["all"] < 0.15 * activations["none"]


def test_nothing_is_recomputed_without_gradients():
    net = network("all").eval()
    x = images(1, 3, 8, 8)
    with torch.no_grad(), Count() as with_it:
        net(x)
    net.set_recompute("none")
    with torch.no_grad(), Count() as without:
        net(x)
    assert with_it.calls == without.calls


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="unknown recompute 'some': choose one of none, edges, all"):
        SuperNet(SPACE).set_recompute("some")


# --- sampling: only the chosen candidate runs ---


class Count(TorchDispatchMode):
    """Counts dispatched operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def sampled_pair() -> tuple[SuperNet, SuperNet]:
    pair = []
    for sampled in (False, True):
        net = network("none", relaxation=Relaxation("gumbel", hard=True, sampled=sampled))
        net.resample(torch.Generator().manual_seed(3))
        pair.append(net)
    return pair[0], pair[1]


def test_sampling_computes_the_hard_choice_alone():
    hard, sampled = sampled_pair()
    x = images(2, 3, 16, 8)
    calls = []
    for net in (hard, sampled):
        with Count() as count:
            out = net(x)
        calls.append(count.calls)
        (out**2).sum().backward()
    torch.testing.assert_close(sampled(x), hard(x), rtol=0, atol=1e-12)
    assert calls[1] < 0.5 * calls[0]
    assert all(p.grad.isfinite().all() and p.grad.any() for p in sampled.arch_parameters())
    chosen = [n for n, p in sampled.named_parameters() if p.grad is not None and "candidates" in n]
    other = [n for n, p in sampled.named_parameters() if p.grad is None]
    assert chosen
    assert other
    for name in chosen:
        torch.testing.assert_close(sampled.get_parameter(name).grad, hard.get_parameter(name).grad)


def test_the_sampled_network_is_the_derived_one():
    """Its forward pass costs what the derived network costs, and a few operations for the weights."""
    _, sampled = sampled_pair()
    alpha, beta = sampled.weights()
    names = sampled.space.operations
    modules = [("parallel", "fusion")[k] for k in alpha.argmax(1).tolist()]
    derived = DerainNet(Genotype(SPACE, tuple(modules), tuple(names[k] for k in beta.argmax(1).tolist()))).double()
    derived.inherit(sampled)
    x = images(2, 3, 16, 8)
    torch.testing.assert_close(sampled(x), derived(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"hard": True}, {"relaxation": "gumbel"}])
def test_sampling_needs_something_drawn(changes):
    with pytest.raises(ValueError, match="set relaxation='gumbel' and hard too"):
        SearchSettings(sampled=True, **changes)
