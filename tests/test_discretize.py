"""From logits to a genotype: argmax, perturbation; statistics measured again."""

from dataclasses import replace

import pytest
import textbook
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from manas_lite.networks.discretize import perturbation
from manas_lite.networks.genotype import Genotype
from manas_lite.networks.modules import PUBLISHED_MODULES
from manas_lite.networks.nets import DerainNet, SuperNet
from manas_lite.networks.relaxation import Relaxation
from manas_lite.networks.space import SearchSpace

PAPER = SearchSpace.preset("paper")
SMOKE = SearchSpace.preset("smoke")
SMALL = SearchSpace((4, 6), 1, operations=("none", "skip_connect", "SE", "CBAM"), norm="batch")
NAMES = list(PUBLISHED_MODULES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed))


# --- argmax ---


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_argmax_takes_the_largest_of_each_row(seed, allow_none):
    space = replace(PAPER, allow_none=allow_none)
    alpha, beta = torch.randn(12, 2, generator=seeded(seed)), torch.randn(27, 9, generator=seeded(seed + 1))
    genotype = Genotype.from_logits(space, alpha, beta)
    for row, name in zip(alpha.tolist(), genotype.modules, strict=True):
        assert row[NAMES.index(name)] == max(row)
    for row, name in zip(beta.tolist(), genotype.edges, strict=True):
        allowed = {op: value for op, value in zip(space.operations, row, strict=True) if op in space.choices}
        assert allowed[name] == max(allowed.values())


def test_derive_reads_every_row_at_its_own_place():
    """Each row planted with its own choice: no block reads another's rows."""
    genotype = Genotype.random(PAPER, 0)
    net = SuperNet(PAPER)
    with torch.no_grad():
        for row, name in enumerate(genotype.modules):
            net.alpha[row, NAMES.index(name)] += 1
        for row, name in enumerate(genotype.edges):
            net.beta[row, PAPER.operations.index(name)] += 1
    assert net.derive() == genotype


def test_erratum_18_none_wins_only_where_the_space_allows_it():
    beta = torch.zeros(27, 9)
    beta[:, PAPER.operations.index("none")] = 5
    beta[:, PAPER.operations.index("CBAM")] = 1
    alpha = torch.zeros(12, 2)
    assert set(Genotype.from_logits(PAPER, alpha, beta).edges) == {"CBAM"}
    assert set(Genotype.from_logits(replace(PAPER, allow_none=True), alpha, beta).edges) == {"none"}
    assert "none" not in SearchSpace().choices


# --- perturbation ---


def planted_loss(modules: tuple[str, ...], edges: tuple[str, ...]):
    """Falls with the weight that each row gives to its planted choice."""

    def loss(net: SuperNet) -> Tensor:
        alpha, beta = net.weights()
        good = sum(row[NAMES.index(name)] for row, name in zip(alpha, modules, strict=True))
        return -good - sum(row[net.space.operations.index(name)] for row, name in zip(beta, edges, strict=True))

    return loss


def test_perturbation_finds_a_planted_choice_where_argmax_does_not():
    planted = Genotype.random(SMALL, 4)
    net = SuperNet(SMALL)
    misled = Genotype(
        SMALL,
        tuple("fusion" if m == "parallel" else "parallel" for m in planted.modules),
        tuple("CBAM" if e != "CBAM" else "SE" for e in planted.edges),
    )
    with torch.no_grad():
        for row, name in enumerate(misled.modules):
            net.alpha[row, NAMES.index(name)] = 1.0
        for row, name in enumerate(misled.edges):
            net.beta[row, SMALL.operations.index(name)] = 1.0
    found, alpha_scores, beta_scores = perturbation(net, planted_loss(planted.modules, planted.edges))
    assert net.derive() == misled
    assert found == planted
    assert (alpha_scores.shape, beta_scores.shape) == (net.alpha.shape, net.beta.shape)


@pytest.mark.parametrize("row", range(7))
def test_perturbation_finds_what_the_pictures_need(row):
    """Through the network: the target is made by identities; in one row the logits favour something else.

    Gates lie between `none` and the identity, so that the truth is not in doubt.
    """
    space = replace(SMALL, operations=("none", "skip_connect", "CBAM"), allow_none=True)
    planted = Genotype(space, ("parallel",), ("skip_connect",) * 6)
    net = SuperNet(space).eval()
    textbook.randomise(net, seed=2)  # weights under which no branch is shut by its ReLU
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        target = DerainNet(planted).inherit(net).eval()(x)
        net.alpha.copy_(torch.tensor([[50.0, 0.0]]))
        net.beta.copy_(torch.tensor([0.0, 50.0, 0.0]).expand(6, 3))
        if row < 6:
            net.beta[row] = torch.tensor([1.5, 1.0, 0.0])
        else:
            net.alpha[0] = torch.tensor([0.0, 0.5])
    found, _, _ = perturbation(net, lambda n: ((n(x) - target) ** 2).mean())
    favoured, kept = ((*g.edges, *g.modules)[row] for g in (net.derive(), found))
    assert favoured != kept == (*planted.edges, *planted.modules)[row]


@pytest.mark.parametrize("hard", [False, True])
def test_perturbation_weighs_without_noise(hard):
    """After a Gumbel search the last step's noise is still there: it must not decide, nor one-hot weights hide."""
    planted = Genotype.random(SMALL, 4)
    net = SuperNet(SMALL, relaxation=Relaxation("gumbel", hard=hard))
    for seed in range(3):
        net.resample(seeded(seed))
        assert perturbation(net, planted_loss(planted.modules, planted.edges))[0] == planted
    assert net.relaxation == Relaxation("gumbel", hard=hard)


def test_scores_are_the_losses_after_removal():
    """By hand: the removed candidate's weight goes to the others in proportion."""
    net = SuperNet(SMALL)
    with torch.no_grad():
        net.beta.copy_(torch.randn(net.beta.shape, generator=seeded(1)))
    coefficients = torch.randn(net.beta.shape, generator=seeded(2))
    _, _, scores = perturbation(net, lambda n: (coefficients * n.weights()[1]).sum())
    weights = torch.softmax(net.beta.detach(), 1)
    for row in range(len(weights)):
        for k in range(weights.shape[1]):
            without = weights.clone()
            without[row, k] = 0
            without[row] /= without[row].sum()
            assert scores[row, k].item() == pytest.approx((coefficients * without).sum().item(), abs=1e-5)


def test_perturbation_restores_the_logits_exactly():
    net = SuperNet(SMALL, seed=3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    perturbation(net.eval(), lambda n: n(images(1, 3, 8, 8)).mean())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_perturbation_restores_the_logits_when_the_loss_fails():
    net = SuperNet(SMALL)
    before = net.alpha.detach().clone(), net.beta.detach().clone()
    calls = 0

    def failing(_: SuperNet) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise RuntimeError("out of memory")
        return torch.zeros(())

    with pytest.raises(RuntimeError, match="out of memory"):
        perturbation(net, failing)
    assert torch.equal(net.alpha, before[0])
    assert torch.equal(net.beta, before[1])


def test_erratum_18_perturbation_never_keeps_a_banned_none():
    def loss(net: SuperNet) -> Tensor:  # wants `none` everywhere
        return -net.weights()[1][:, 0].sum()

    assert "none" not in perturbation(SuperNet(SMALL), loss)[0].edges
    allowed = SuperNet(replace(SMALL, allow_none=True))
    assert set(perturbation(allowed, loss)[0].edges) == {"none"}


def test_noise_of_the_last_step_does_not_decide():
    """Every loss is of weights that are the softmax of the logits, whatever noise the search drew last."""
    net = SuperNet(SMALL, relaxation=Relaxation("gumbel", temperature=0.7))
    net.resample(torch.Generator().manual_seed(0))
    noisy = [weights.clone() for weights in net.weights()]
    asked = []

    def loss(net: SuperNet) -> Tensor:
        asked.append(1)
        for weights, logits in zip(net.weights(), net.arch_parameters(), strict=True):
            torch.testing.assert_close(weights, torch.softmax(logits / 0.7, -1))
        return torch.zeros(())

    perturbation(net, loss)
    assert len(asked) == net.alpha.numel() + net.beta.numel()
    for weights, before, logits in zip(net.weights(), noisy, net.arch_parameters(), strict=True):
        assert torch.equal(weights, before)  # and the noise is back
        assert not torch.allclose(weights, torch.softmax(logits / 0.7, -1))


# --- BatchNorm statistics ---


def published_net() -> DerainNet:
    net = DerainNet(Genotype.hand_made(SearchSpace((4, 6), 2), "CBAM"))
    textbook.randomise(net)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.num_batches_tracked.fill_(7)  # as after some training
    return net.eval()


def test_torchs_update_makes_eval_mode_equal_to_train_mode():
    """With the statistics of that very batch, but for the n/(n-1) of the unbiased variance."""
    net, x = published_net(), images(4, 3, 64, 64)
    stale = net(x)
    with torch.no_grad():
        update_bn([x], net)
        fresh = net(x)
        expected = net.train()(x)
    assert (fresh - expected).abs().max() < 0.02 * (stale - expected).abs().max()
