"""Losses against textbook loops, scikit-image and numerical gradients."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from manas_lite import losses
from manas_lite.losses import DerainLoss, LossSettings
from manas_lite.metrics import structural_similarity
from manas_lite.runs.settings import to_dict


def scenes(batch=2, rains=3, size=16, dtype=torch.float64, seed=0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(batch, 3, size, size, generator=generator, dtype=dtype)
    noise = torch.randn(batch, rains, 3, size, size, generator=generator, dtype=dtype)
    return (clean.unsqueeze(1) + 0.1 * noise).clamp(0, 1), clean


# --- textbook: one scene, one version, one pair at a time ---


def textbook_tv(image: Tensor) -> Tensor:
    vertical = (image[:, 1:, :] - image[:, :-1, :]) ** 2
    horizontal = (image[:, :, 1:] - image[:, :, :-1]) ** 2
    return 2 * (vertical.mean() + horizontal.mean())


def textbook_distance(x: Tensor, y: Tensor, kind: str) -> Tensor:
    parts = {
        "mse": lambda: ((x - y) ** 2).mean(),
        "l1": lambda: (x - y).abs().mean(),
        "charbonnier": lambda: torch.sqrt((x - y) ** 2 + 1e-6).mean(),
        "log_mse": lambda: torch.log(((x - y) ** 2).mean() + 1e-5),
        "ssim": lambda: 1 - structural_similarity(x[None], y[None], data_range=1.0)[0],
    }
    return sum(parts[part]() for part in kind.split("+"))


def textbook_external(outputs: Tensor, clean: Tensor, kind: str = "mse+ssim", tv: float = 1e-4) -> Tensor:
    batch, rains = outputs.shape[:2]
    total = 0
    for b in range(batch):
        for k in range(rains):
            total = total + 3 / rains * textbook_distance(outputs[b, k], clean[b], kind)
            total = total + tv * textbook_tv(outputs[b, k]) / rains
    return total / batch


def textbook_internal(outputs: Tensor, ssim: bool = False) -> Tensor:
    batch, rains = outputs.shape[:2]
    pairs = [(k, m) for k in range(rains) for m in range(k + 1, rains)]
    total = 0
    for b in range(batch):
        for k, m in pairs:
            kind = "mse+ssim" if ssim else "mse"
            total = total + 3 / len(pairs) * textbook_distance(outputs[b, k], outputs[b, m], kind)
    return total / batch


def textbook_entropy(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return -p * np.log10(p) - (1 - p) * np.log10(1 - p)


KINDS = ["mse+ssim", "mse", "ssim", "l1", "l1+ssim", "charbonnier", "charbonnier+ssim", "log_mse"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rains", [1, 3, 5])
def test_external_equals_the_textbook_loop(kind, rains):
    outputs, clean = scenes(rains=rains)
    batched, looped = losses.external(outputs, clean, kind=kind), textbook_external(outputs, clean, kind)
    assert float(batched) == pytest.approx(float(looped), abs=1e-12)


@pytest.mark.parametrize("ssim", [False, True])
@pytest.mark.parametrize("rains", [2, 3, 14])
def test_internal_equals_the_textbook_loop(ssim, rains):
    outputs, _ = scenes(rains=rains)
    batched, looped = losses.internal(outputs, ssim=ssim), textbook_internal(outputs, ssim)
    assert float(batched) == pytest.approx(float(looped), abs=1e-12)


def test_losses_equal_the_textbook_loop_in_float32():
    outputs, clean = scenes(dtype=torch.float32)
    assert float(losses.external(outputs, clean)) == pytest.approx(float(textbook_external(outputs, clean)), abs=1e-6)
    assert float(losses.internal(outputs)) == pytest.approx(float(textbook_internal(outputs)), abs=1e-6)


def test_ssim_part_is_scikit_images():
    outputs, clean = scenes(size=20)
    expected = 0.0
    for b in range(2):
        for k in range(3):
            expected += 1 - skimage_ssim(
                outputs[b, k].numpy(),
                clean[b].numpy(),
                channel_axis=0,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
    value = losses.external(outputs, clean, kind="ssim", tv=0.0)
    assert float(value) == pytest.approx(expected / 2, abs=1e-6)


def test_gradients_equal_the_textbook_loops():
    outputs, clean = scenes()
    outputs.requires_grad_()
    batched = torch.autograd.grad(losses.external(outputs, clean) + losses.internal(outputs, ssim=True), outputs)
    looped = torch.autograd.grad(textbook_external(outputs, clean) + textbook_internal(outputs, True), outputs)
    torch.testing.assert_close(batched, looped, rtol=0, atol=1e-12)


def test_numerical_gradients():
    outputs, clean = scenes(batch=1, rains=2, size=12)
    outputs.requires_grad_()
    # random directions instead of every pixel: 864 columns would take minutes
    check = {"fast_mode": True, "atol": 1e-6}
    for kind in ("mse+ssim", "charbonnier"):
        assert torch.autograd.gradcheck(lambda t, kind=kind: losses.external(t, clean, kind=kind), outputs, **check)
    assert torch.autograd.gradcheck(lambda t: losses.internal(t, ssim=True), outputs, **check)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.binary_entropy, logits)
    assert torch.autograd.gradgradcheck(losses.binary_entropy, logits)


# --- properties ---


@settings(max_examples=25, deadline=None)
@given(rains=st.integers(1, 5), batch=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_repeating_the_rains_or_scenes_leaves_the_external_loss(rains, batch, seed):
    outputs, clean = scenes(batch, rains, 11, seed=seed)
    value = losses.external(outputs, clean)
    torch.testing.assert_close(losses.external(outputs.repeat(1, 2, 1, 1, 1), clean), value)
    torch.testing.assert_close(losses.external(outputs.repeat(2, 1, 1, 1, 1), clean.repeat(2, 1, 1, 1)), value)


@settings(max_examples=25, deadline=None)
@given(rains=st.integers(2, 6), seed=st.integers(0, 2**31), data=st.data())
def test_internal_ignores_the_order_of_the_rains(rains, seed, data):
    outputs, _ = scenes(1, rains, 11, seed=seed)
    order = data.draw(st.permutations(range(rains)))
    torch.testing.assert_close(losses.internal(outputs[:, order], ssim=True), losses.internal(outputs, ssim=True))
    assert float(losses.internal(outputs)) >= 0


def test_perfect_outputs_cost_nothing():
    _, clean = scenes()
    perfect = clean.unsqueeze(1).repeat(1, 3, 1, 1, 1)
    for kind in ("mse+ssim", "mse", "l1", "ssim"):
        assert float(losses.external(perfect, clean, kind=kind, tv=0.0)) == pytest.approx(0, abs=1e-12)
    assert float(losses.internal(perfect)) == 0


def test_one_rain_has_no_internal_loss_and_a_zero_gradient():
    outputs, clean = scenes(rains=1)
    outputs.requires_grad_()
    value = losses.internal(outputs, ssim=True)
    assert value.item() == 0.0
    (gradient,) = torch.autograd.grad(value, outputs)
    assert not gradient.any()
    total, _ = DerainLoss(LossSettings(internal_from=0))(outputs, clean, epoch=9)
    assert torch.autograd.grad(total, outputs)[0].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_total_variation_of_single_rows_and_columns_is_finite(shape):
    image = torch.arange(math.prod(shape), dtype=torch.float64).reshape(1, *shape).requires_grad_()
    value = losses.total_variation(image)
    assert value.item() == (0 if shape == (1, 1) else 2)
    assert torch.autograd.grad(value, image)[0].isfinite().all()


def test_total_variation_of_the_smallest_images_by_hand():
    pair = torch.tensor([[[0.25, 1.0]]], dtype=torch.float64)
    assert float(losses.total_variation(pair)) == 2 * 0.75**2
    assert float(losses.total_variation(pair.mT)) == 2 * 0.75**2
    pixel = torch.full((3, 1, 1), 0.7, requires_grad=True)
    value = losses.total_variation(pixel)
    assert value.item() == 0
    assert not torch.autograd.grad(value, pixel)[0].any()


def test_half_precision_outputs_are_widened():
    outputs, clean = scenes(dtype=torch.float32)
    value = losses.external(outputs.bfloat16(), clean.bfloat16())
    assert value.dtype == torch.float32
    expected = losses.external(outputs.bfloat16().float(), clean.bfloat16().float())
    assert torch.equal(value, expected)


# --- architecture regularisation ---


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=1, max_size=5))
def test_binary_entropy_is_the_formula(rows):
    logits = torch.tensor(rows, dtype=torch.float64)
    np.testing.assert_allclose(losses.binary_entropy(logits), textbook_entropy(np.array(rows)), atol=1e-9)


def test_architecture_regularisation_by_hand():
    alpha, beta = torch.zeros(12, 2, dtype=torch.float64), torch.zeros(27, 9, dtype=torch.float64)
    ninth = -(1 / 9 * math.log10(1 / 9) + 8 / 9 * math.log10(8 / 9))
    value = losses.architecture_regularisation(alpha, beta, 0.01, 0.02)
    assert float(value) == pytest.approx(0.01 * math.log10(2) + 0.02 * ninth, abs=1e-14)


def by_hand(logits: Tensor) -> Tensor:
    p = torch.softmax(logits, -1)
    return -p * torch.log10(p) - (1 - p) * torch.log10(1 - p)


def test_erratum_10_entropy_stays_finite_at_extreme_logits():
    gap = torch.tensor([[0.0, 17.5]], requires_grad=True)
    assert by_hand(gap).isnan().any()  # the released code
    patterns = torch.cartesian_prod(*[torch.tensor([-200.0, 0.0, 17.5, 200.0])] * 4)
    for logits in (gap.detach(), patterns):
        logits = logits.clone().requires_grad_()
        entropy = losses.binary_entropy(logits)
        (gradient,) = torch.autograd.grad(entropy.sum(), logits)
        assert entropy.isfinite().all()
        assert (entropy >= 0).all()
        assert gradient.isfinite().all()
    assert logits.dtype == torch.float32


def test_masked_choices_have_no_entropy_and_no_gradient():
    kept = torch.tensor([[0.3, -1.0, 200.0], [0.1, 0.2, 0.3]])
    masked = torch.cat([kept, torch.full((2, 1), -math.inf)], dim=1).requires_grad_()
    entropy = losses.binary_entropy(masked)
    (gradient,) = torch.autograd.grad(entropy.sum(), masked)
    torch.testing.assert_close(entropy[:, :3], losses.binary_entropy(kept))
    assert not entropy[:, 3].any()
    assert gradient.isfinite().all()
    assert not gradient[:, 3].any()


def test_a_row_with_one_choice_left_has_no_entropy():
    logits = torch.tensor([[-math.inf, 2.0, -math.inf]], requires_grad=True)
    entropy = losses.binary_entropy(logits)
    assert not entropy.any()
    assert not torch.autograd.grad(entropy.sum(), logits)[0].any()
    assert not losses.binary_entropy(torch.tensor([[5.0]])).any()


def test_no_rows_have_no_entropy():
    assert losses.binary_entropy(torch.zeros(0, 9)).shape == (0, 9)


def test_a_space_without_searched_edges_is_regularised_by_its_modules_alone():
    value = losses.architecture_regularisation(torch.zeros(4, 2), torch.zeros(0, 9))
    assert float(value) == pytest.approx(0.01 * math.log10(2))


def test_descending_the_regularisation_makes_choices_sharper():
    logits = (0.1 * torch.randn(3, 9, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = torch.softmax(logits, -1).max(-1).values
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        losses.architecture_regularisation(torch.zeros(0, 2), logits).backward()
        optimizer.step()
    assert (torch.softmax(logits, -1).max(-1).values > before + 0.3).all()


# --- complexity ---

# parameters of the gates at c = 16 (method section 2), by name
GATES = {
    "none": 0,
    "skip_connect": 0,
    "sep_conv_3x3": 800,
    "dil_conv_3x3": 400,
    "sep_conv_3x3_spatial": 42,
    "dil_conv_3x3_spatial": 19,
    "SE": 128,
    "SE_A_M": 128,
    "CBAM": 248,
}


def gate_costs(names) -> SimpleNamespace:
    """One module (parallel, fusion at two branches) and one edge whose columns are `names`."""
    edges = torch.tensor([[GATES[name] for name in names]], dtype=torch.float64)
    modules = torch.tensor([[92_544, 20_672]], dtype=torch.float64)
    return SimpleNamespace(modules=modules, edges=edges, fixed=1000.0, largest=1000.0 + 92_544 + 800)


def test_complexity_is_the_expected_share():
    costs = gate_costs(GATES)
    one_hot = torch.zeros(1, 9, dtype=torch.float64)
    one_hot[0, 2] = 1
    dearest = losses.complexity(torch.tensor([[1.0, 0.0]], dtype=torch.float64), one_hot, costs)
    assert float(dearest) == pytest.approx(1.0)
    uniform = torch.full((1, 9), 1 / 9, dtype=torch.float64)
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    expected = (1000 + (92_544 + 20_672) / 2 + sum(GATES.values()) / 9) / costs.largest
    assert float(losses.complexity(half, uniform, costs)) == pytest.approx(expected, abs=1e-14)


def test_erratum_05_complexity_is_on_and_moves_the_result():
    assert LossSettings().complexity_weight > 0
    costs = gate_costs(GATES)

    def run(settings: LossSettings) -> float:
        alpha = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        beta = torch.zeros(1, 9, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([alpha, beta], lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            weights = torch.softmax(alpha, -1), torch.softmax(beta, -1)
            DerainLoss(settings).architecture(alpha, beta, *weights, costs)[0].backward()
            optimizer.step()
        return losses.complexity(torch.softmax(alpha, -1), torch.softmax(beta, -1), costs).item()

    entropy_off = LossSettings(alpha_entropy_weight=0.0, beta_entropy_weight=0.0)
    on, off = run(entropy_off), run(dataclasses.replace(entropy_off, complexity_weight=0.0))
    uniform = (1000 + (92_544 + 20_672) / 2 + sum(GATES.values()) / 9) / costs.largest
    assert off == pytest.approx(uniform)
    assert on < 0.5 * uniform


@pytest.mark.parametrize("seed", range(5))
def test_erratum_06_costs_go_by_name_whatever_the_order_of_the_operations(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(9, generator=generator).tolist()
    names = [list(GATES)[i] for i in order]
    beta = torch.softmax(torch.randn(1, 9, generator=generator, dtype=torch.float64), -1)
    alpha = torch.full((1, 2), 0.5, dtype=torch.float64)
    weights = beta[:, order].clone().requires_grad_()
    value = losses.complexity(alpha, weights, gate_costs(names))
    expected = losses.complexity(alpha, beta, gate_costs(GATES)).item()
    assert value.item() == pytest.approx(expected, abs=1e-14)
    # the dearest gate is pushed down hardest and the free ones not at all
    (gradient,) = torch.autograd.grad(value, weights)
    pushed = dict(zip(names, gradient[0].tolist(), strict=True))
    assert max(pushed, key=pushed.get) == "sep_conv_3x3"
    assert pushed["none"] == pushed["skip_connect"] == 0


def test_costs_of_another_space_are_refused():
    with pytest.raises(ValueError, match=r"alpha weights are \(2, 2\) but their costs \(1, 2\)"):
        losses.complexity(torch.full((2, 2), 0.5), torch.full((1, 9), 1 / 9), gate_costs(GATES))
    with pytest.raises(ValueError, match=r"beta weights are \(2, 9\) but their costs \(1, 9\)"):
        losses.complexity(torch.full((1, 2), 0.5), torch.full((2, 9), 1 / 9), gate_costs(GATES))


# --- dispatches ---


class CountDispatches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def dispatches(function) -> int:
    with CountDispatches() as counter:
        function()
    return counter.count


def test_erratum_17_losses_are_batched():
    """Neither scenes nor versions cost a dispatch."""

    def batched(outputs, clean):
        return losses.external(outputs, clean) + losses.internal(outputs)

    def looped(outputs, clean):
        return textbook_external(outputs, clean) + textbook_internal(outputs)

    outputs, clean = scenes(batch=16, rains=3, dtype=torch.float32)
    assert float(batched(outputs, clean)) == pytest.approx(float(looped(outputs, clean)), abs=1e-6)
    few, many = dispatches(lambda: batched(outputs, clean)), dispatches(lambda: looped(outputs, clean))
    assert many > 20 * few
    small, large = scenes(batch=2, rains=3), scenes(batch=16, rains=14)
    assert dispatches(lambda: batched(*small)) == dispatches(lambda: batched(*large))


# --- settings and the sum ---


def test_derain_loss_is_the_weighted_sum_of_its_terms():
    outputs, clean = scenes()
    chosen = LossSettings(external="l1", external_weight=0.5, internal_weight=2.0, internal_ssim=True, tv=0.01)
    total, terms = DerainLoss(chosen)(outputs, clean, epoch=5)
    assert set(terms) == {"external", "internal"}
    expected = 0.5 * losses.external(outputs, clean, kind="l1", tv=0.01) + 2 * losses.internal(outputs, ssim=True)
    torch.testing.assert_close(total, expected)
    assert not any(term.requires_grad for term in terms.values())


def test_internal_starts_at_its_epoch():
    outputs, clean = scenes()
    loss = DerainLoss(LossSettings())
    assert "internal" not in loss(outputs, clean, epoch=4)[1]
    assert "internal" in loss(outputs, clean, epoch=5)[1]


def test_terms_can_be_switched_off():
    outputs, clean = scenes()
    outputs.requires_grad_()
    off = LossSettings(
        external_weight=0.0,
        internal_weight=0.0,
        alpha_entropy_weight=0.0,
        beta_entropy_weight=0.0,
        complexity_weight=0.0,
    )
    total, terms = DerainLoss(off)(outputs, clean, epoch=99)
    assert terms == {}
    assert total.item() == 0
    assert not torch.autograd.grad(total, outputs)[0].any()
    weights = torch.full((1, 2), 0.5), torch.full((1, 9), 1 / 9)
    assert DerainLoss(off).architecture(*weights, *weights, gate_costs(GATES))[1] == {}


def test_architecture_terms():
    alpha, beta = torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 9, dtype=torch.float64)
    weights = torch.softmax(alpha, -1), torch.softmax(beta, -1)
    costs = gate_costs(GATES)
    total, terms = DerainLoss(LossSettings(complexity_weight=0.1)).architecture(alpha, beta, *weights, costs)
    assert set(terms) == {"regularisation", "complexity"}
    expected = losses.architecture_regularisation(alpha, beta) + 0.1 * losses.complexity(*weights, costs)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(("alpha_weight", "beta_weight"), [(0.3, 0.05), (0.05, 0.3), (0.2, 0.0), (0.0, 0.2)])
def test_each_entropy_has_its_own_weight_by_hand(alpha_weight, beta_weight):
    """Two modules that are undecided between two: log10 2 each. One edge undecided among nine: H(1/9)."""
    chosen = LossSettings(alpha_entropy_weight=alpha_weight, beta_entropy_weight=beta_weight, complexity_weight=0.0)
    alpha, beta = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(1, 9, dtype=torch.float64)
    weights = torch.softmax(alpha, -1), torch.softmax(beta, -1)
    total, terms = DerainLoss(chosen).architecture(alpha, beta, *weights, gate_costs(GATES))
    by_hand = alpha_weight * 0.301029995664 + beta_weight * 0.151495854335
    assert float(total) == pytest.approx(by_hand, abs=1e-11)
    assert [float(term) for term in terms.values()] == pytest.approx([by_hand], abs=1e-11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"external": "l2"}, "unknown external loss 'l2': join some of mse, l1"),
        ({"complexity_unit": "seconds"}, "Valid: parameters, flops"),
        ({"internal_weight": -1.0}, "internal_weight is -1.0"),
        ({"complexity_weight": math.nan}, "complexity_weight: expected a finite number, got nan"),
        ({"tv": math.inf}, "tv: expected a finite number, got inf"),
        ({"internal_from": -1}, "internal_from is -1"),
        ({"tv": -0.1}, "tv is -0.1"),
        ({"external_ssim": -0.1}, "external_ssim is -0.1"),
        ({"external": "mse+mse"}, r"unknown external loss 'mse\+mse'"),
        ({"terms": {"unheard": 1.0}}, "unknown loss term 'unheard': .*import the file that registers"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        LossSettings(**changes)


def test_the_defaults_are_the_methods():
    assert vars(LossSettings()) == {
        "external": "mse+ssim",
        "external_weight": 1.0,
        "external_ssim": 1.0,
        "tv": 1e-4,
        "internal_weight": 1.0,
        "internal_from": 5,
        "internal_ssim": False,
        "alpha_entropy_weight": 0.01,
        "beta_entropy_weight": 0.01,
        "complexity_weight": 0.01,
        "complexity_unit": "parameters",
        "terms": {},
    }


# --- registered terms ---


@pytest.fixture
def own_terms(monkeypatch):
    """One term of each kind, for the length of a test; both note that they were asked."""
    monkeypatch.setattr(losses, "TERMS", {})
    asked = []

    @losses.term("brightness")
    def brightness(outputs, clean):
        asked.append("brightness")
        return (outputs.mean(1) - clean).mean()

    @losses.term("spread", on="architecture")
    def spread(alpha_logits, beta_logits, alpha_weights, beta_weights, costs):
        asked.append("spread")
        return (
            alpha_logits.sum() + 10 * beta_logits.sum() + 100 * alpha_weights.max() + costs.fixed * beta_weights.max()
        )

    assert brightness(torch.ones(1, 2, 3, 4, 4), torch.zeros(1, 3, 4, 4)) == 1  # the function is still itself
    asked.clear()
    return asked


def test_terms_are_in_files_only_where_they_weigh_something(own_terms):
    """So ids and run directories from before terms could be registered stay what they were."""
    assert "terms" not in to_dict(LossSettings())
    name = next(iter(losses.TERMS))
    assert to_dict(LossSettings(terms={name: 0.5}))["terms"] == {name: 0.5}
    with pytest.raises(ValueError, match=rf"terms\.{name} is -0\.5: it must be at least 0"):
        LossSettings(terms={name: -0.5})


def test_registered_terms_are_weighed_each_in_its_own_step(own_terms):
    outputs, clean = scenes()
    chosen = LossSettings(external="mse", tv=0.0, internal_weight=0.0, terms={"brightness": 0.5, "spread": 0.25})
    total, terms = DerainLoss(chosen)(outputs, clean, epoch=0)
    bright = float((outputs.mean(1) - clean).mean())
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {"external": 3 * float((outputs - clean[:, None]).square().mean()), "brightness": bright}
    )
    assert float(total) == pytest.approx(float(terms["external"]) + 0.5 * bright)
    assert own_terms == ["brightness"]

    alpha, beta = torch.tensor([[1.0, 2.0]]), torch.full((1, 9), 0.5)
    weights = torch.tensor([[0.25, 0.75]]), torch.full((1, 9), 1 / 9)
    bare = dataclasses.replace(chosen, alpha_entropy_weight=0.0, beta_entropy_weight=0.0, complexity_weight=0.0)
    total, terms = DerainLoss(bare).architecture(alpha, beta, *weights, gate_costs(GATES))
    by_hand = 3.0 + 45.0 + 75.0 + 1000 / 9
    assert {name: float(value) for name, value in terms.items()} == pytest.approx({"spread": by_hand})
    assert float(total) == pytest.approx(0.25 * by_hand)
    assert own_terms == ["brightness", "spread"]


def test_a_registered_term_of_weight_zero_is_not_computed(own_terms):
    outputs, clean = scenes()
    off = LossSettings(terms={"brightness": 0.0, "spread": 0.0})
    assert set(DerainLoss(off)(outputs, clean, epoch=9)[1]) == {"external", "internal"}
    assert own_terms == []


def test_registered_terms_are_checked_and_can_be_hashed(own_terms):
    with pytest.raises(ValueError, match="brightness is -1"):
        LossSettings(terms={"brightness": -1.0})
    with pytest.raises(ValueError, match=r"unknown loss term 'unheard': .*brightness, spread;"):
        LossSettings(terms={"unheard": 1.0})
    for name in ("external", "internal", "regularisation", "complexity"):
        with pytest.raises(ValueError, match=f"'{name}' is a published term"):
            losses.term(name)
    chosen = LossSettings(terms={"brightness": 1.0})
    assert hash(chosen) == hash(LossSettings())
    assert chosen != LossSettings()


@pytest.mark.parametrize("name", ["mse", "ssim", "l1+ssim", "a.b", ""])
def test_a_distance_takes_no_name_that_is_held_or_cannot_be_set(name):
    before = dict(losses.DISTANCES)
    with pytest.raises(ValueError, match="is registered already, for" if name in before else "cannot name"):
        losses.distance(name)(lambda outputs, target: (outputs - target).abs().max())
    assert before == losses.DISTANCES


def test_bad_shapes_are_named():
    outputs, clean = scenes()
    with pytest.raises(ValueError, match=r"expected \(B, R, 3, h, w\)"):
        losses.external(outputs[:, 0], clean)
    with pytest.raises(ValueError, match="one clean image per scene"):
        losses.external(outputs, clean[:1])
    with pytest.raises(ValueError, match=r"expected \(B, R, 3, h, w\)"):
        losses.internal(outputs[:, :0])
    with pytest.raises(ValueError, match="unknown external loss 'vgg'"):
        losses.external(outputs, clean, kind="vgg")


def test_the_ssim_part_is_weighted_on_its_own():
    generator = torch.Generator().manual_seed(3)
    outputs, clean = torch.rand(2, 2, 3, 16, 16, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
    l1, both = (losses.external(outputs, clean, kind=kind, tv=0.0) for kind in ("l1", "l1+ssim"))
    tenth = losses.external(outputs, clean, kind="l1+ssim", tv=0.0, ssim=0.1)
    assert float(tenth) == pytest.approx(float(l1 + 0.1 * (both - l1)), rel=1e-5)
    settings = losses.LossSettings(external="l1+ssim", external_ssim=0.1, tv=0.0, internal_weight=0)
    assert float(losses.DerainLoss(settings)(outputs, clean, epoch=0)[0]) == pytest.approx(float(tenth), rel=1e-6)
