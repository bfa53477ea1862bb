"""Logits to mixture weights: rows sum to 1, temperatures, straight-through Gumbel, the law of the noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manas_lite.networks.nets import SuperNet
from manas_lite.networks.relaxation import Relaxation, gumbel_noise
from manas_lite.networks.space import SearchSpace

SMOKE = SearchSpace.preset("smoke")
SETTINGS = [
    Relaxation(),
    Relaxation(temperature=0.3),
    Relaxation(hard=True),
    Relaxation("gumbel"),
    Relaxation("gumbel", temperature=5.0),
    Relaxation("gumbel", hard=True),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits_of(rows: int = 4, columns: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=seeded(seed)).requires_grad_()


def by_hand(logits: Tensor, temperature: float = 1.0) -> list[list[float]]:
    rows = [[math.exp(v / temperature) for v in row] for row in logits.tolist()]
    return [[v / sum(row) for v in row] for row in rows]


@pytest.mark.parametrize("relaxation", SETTINGS)
@given(scale=st.floats(1e-3, 200), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_rows_sum_to_one_and_are_never_negative(relaxation, scale, seed):
    logits = (scale * torch.randn(5, 9, generator=seeded(seed))).requires_grad_()
    weights = relaxation.weights(logits, gumbel_noise((5, 9), seeded(seed)))
    torch.testing.assert_close(weights.sum(1), torch.ones(5), rtol=0, atol=1e-6)
    assert (weights >= -1e-7).all()
    (weights * torch.arange(9.0)).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softmax_equals_exponentials_over_their_sum(temperature):
    logits = logits_of()
    weights = Relaxation(temperature=temperature).weights(logits)
    torch.testing.assert_close(weights.tolist(), by_hand(logits, temperature), rtol=1e-12, atol=1e-12)


def test_softmax_ignores_the_noise_and_gumbel_without_noise_is_softmax():
    logits, noise = logits_of(), gumbel_noise((4, 9), seeded())
    plain = Relaxation().weights(logits)
    assert torch.equal(plain, Relaxation().weights(logits, noise))
    assert torch.equal(plain, Relaxation("gumbel").weights(logits))
    assert not torch.allclose(plain, Relaxation("gumbel").weights(logits, noise))


def test_gumbel_adds_the_noise_before_the_temperature():
    logits, noise = logits_of(), gumbel_noise((4, 9), seeded(), torch.float64)
    weights = Relaxation("gumbel", temperature=0.7).weights(logits, noise)
    torch.testing.assert_close(weights.tolist(), by_hand(logits + noise, 0.7), rtol=1e-12, atol=1e-12)


def test_low_temperature_is_sharp_and_high_temperature_is_flat():
    logits = logits_of()
    sharp, flat = (Relaxation(temperature=t).weights(logits) for t in (1e-3, 1e3))
    torch.testing.assert_close(sharp.amax(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 9), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["softmax", "gumbel"])
def test_hard_is_one_hot_forward_and_soft_backward(kind):
    noise = gumbel_noise((4, 9), seeded(3), torch.float64)
    cotangent = torch.randn(4, 9, dtype=torch.float64, generator=seeded(1))
    hard_logits, soft_logits = logits_of(), logits_of()
    hard = Relaxation(kind, temperature=0.8, hard=True).weights(hard_logits, noise)
    soft = Relaxation(kind, temperature=0.8).weights(soft_logits, noise)
    chosen = (logits_of() + (noise if kind == "gumbel" else 0)).argmax(1)
    expected = torch.nn.functional.one_hot(chosen, 9).double()
    torch.testing.assert_close(hard.detach(), expected, rtol=0, atol=1e-12)
    (hard * cotangent).sum().backward()
    (soft * cotangent).sum().backward()
    torch.testing.assert_close(hard_logits.grad, soft_logits.grad, rtol=0, atol=1e-12)
    assert soft_logits.grad.abs().min() > 0


def test_noise_makes_choices_as_often_as_softmax_says():
    """The Gumbel-max trick: argmax(logits + noise) is drawn from softmax(logits)."""
    n = 40_000
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    chosen = (logits + gumbel_noise((n, 5), seeded())).argmax(1)
    frequency = torch.bincount(chosen, minlength=5) / n
    expected = torch.tensor(by_hand(logits[None])[0])
    four_sigma = 4 * (expected * (1 - expected) / n).sqrt()
    assert ((frequency - expected).abs() < four_sigma).all()


def test_noise_follows_the_gumbel_law():
    """Mean Euler's constant, variance pi^2/6, and the distribution function exp(-exp(-x))."""
    noise = gumbel_noise((50_000,), seeded(), torch.float64)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.025)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.08)
    for x in (-1.0, 0.0, 1.0, 3.0):
        assert (noise <= x).double().mean().item() == pytest.approx(math.exp(-math.exp(-x)), abs=0.01)
    assert noise.isfinite().all()


def test_noise_is_a_function_of_the_generator_and_leaves_the_global_one_alone():
    before = torch.random.get_rng_state()
    a, b, c = (gumbel_noise((3, 4), seeded(s)) for s in (7, 7, 8))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_is_drawn_in_float64_whatever_it_is_kept_in():
    u = torch.rand((3, 4), generator=seeded(7), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        noise = gumbel_noise((3, 4), seeded(7), dtype)
        assert noise.dtype == dtype
        torch.testing.assert_close(noise, (-torch.log(-torch.log(u))).to(dtype), rtol=0, atol=0)


def test_a_sampled_row_keeps_its_chosen_weight_alone():
    row = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    chosen = Relaxation("gumbel", hard=True, sampled=True).chosen(row)
    assert [w is None for w in chosen] == [True, False, True]
    assert torch.equal(chosen[1], row[1])
    for whole in (Relaxation("gumbel", hard=True), Relaxation("gumbel", sampled=True), Relaxation()):
        assert torch.equal(torch.stack(whole.chosen(row)), row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sigmoid"}, "unknown relaxation 'sigmoid': choose one of softmax, gumbel"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0"),
        ({"temperature": -1.0}, "must be above 0"),
        ({"temperature": float("nan")}, "must be above 0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Relaxation(**arguments)


# --- in the supernet ---


def test_the_supernet_mixes_by_its_relaxation():
    net = SuperNet(SMOKE, relaxation=Relaxation("gumbel", hard=True))
    net.resample(seeded(5))
    alpha, beta = net.weights()
    for weights, logits, noise in (
        (alpha, net.alpha, net.alpha_noise),
        (beta, net.beta, net.beta_noise),
    ):
        assert torch.equal(weights.argmax(1), (logits + noise).argmax(1))
        torch.testing.assert_close(weights.amax(1), torch.ones(len(weights)))


def test_resampling_is_seeded_and_does_nothing_for_softmax():
    def drawn(kind: str, seed: int) -> Tensor:
        net = SuperNet(SMOKE, relaxation=Relaxation(kind))
        net.resample(seeded(seed))
        return net.weights()[1]

    assert torch.equal(drawn("gumbel", 1), drawn("gumbel", 1))
    assert not torch.equal(drawn("gumbel", 1), drawn("gumbel", 2))
    assert torch.equal(drawn("softmax", 1), drawn("softmax", 2))
    assert not any("noise" in key for key in SuperNet(SMOKE).state_dict())
