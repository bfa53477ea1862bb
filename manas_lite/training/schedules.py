"""What a search and a retraining do: their settings, and the presets `smoke`, `teach`, `lite`, `paper`.

docs/hyperparameters.md, made from this file, sets the presets beside the released code's values and says why.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from manas_lite.bilevel import Order
from manas_lite.compute.runtime import ComputeSettings
from manas_lite.losses import LossSettings
from manas_lite.runs.settings import LATER, check, from_preset, must_be

LARGEST_RATE, LARGEST_SEED = 1e34, 2**62
"""The largest learning rates and weight decays, with which float32 can still compute, and the largest seeds."""


@dataclass(frozen=True)
class TrainingSettings:
    """What a search and a retraining are both told: their length, their batches, their losses and their machine."""

    seed: int = 0
    """Initial weights and batches follow from it; so do the logits, the parts of the scenes and the noise of a search.
    """
    epochs: int = 200
    """Epochs of the whole run, a warm-up included."""
    steps: int = 1000
    """Steps per epoch."""
    batch: int = 16
    """Scenes per step."""
    accumulate: int = 1
    """Parts in which a step takes its scenes, to save memory. The gradients are those of the whole batch, but BatchNorm
    normalises by the parts. A search takes parts in first order only."""
    rains: int | None = None
    """Rainy versions per scene; none takes as many as every scene has."""
    patch: int = 64
    """Side of the training patches, in pixels."""
    symmetries: Literal[8, 4, 2, 1] = field(default=8, metadata=LATER)
    """Flips and quarter turns of a patch: all eight; 4 makes no quarter turn, for rain falls down; 2 exchanges left and
    right alone; 1 leaves patches as they are."""
    multi_to_one: bool = True
    """Train all versions of a scene together; off trains every rainy image on its own, as many images per step."""
    fresh_rain: tuple[str, ...] = ()
    """Levels of rain laid anew over each clean patch, beside the scene's own versions; `wild` is rain of any kind."""
    weight_decay: float = 0.0
    """Weight decay of the weights."""
    clip: float | None = None
    """Largest norm of the weights' gradient; none does not clip."""
    loss: LossSettings = field(default_factory=LossSettings)
    """The loss terms."""
    checkpoint_every: int = 1
    """Epochs between saves of the run; it is also saved every four minutes within an epoch."""
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    """The machine."""

    def __post_init__(self) -> None:
        check(self)
        must_be(self, "at least", 1, "epochs", "steps", "batch", "accumulate", "patch", "checkpoint_every")
        must_be(self, "at least", 0, "seed", "rains", "weight_decay")
        must_be(self, "at most", LARGEST_SEED, "seed")
        must_be(self, "at most", LARGEST_RATE, "weight_decay")
        must_be(self, "above", 0, "clip")


@dataclass(frozen=True)
class SearchSettings(TrainingSettings):
    """Everything that a search does but its space and its data.

    The defaults are `paper`: the released sizes, rates and schedule. This kit's own are all versions of a scene in
    place of three (`rains`), a share of the training scenes in place of the test set (`arch_share`), and three guards
    that the released schedule does not have: `clip`, `eigenvalue_every` and `early_stop`.
    """

    weight_decay: float = 3e-4
    clip: float | None = 5.0
    arch_seed: int | None = None
    """Seed of the initial logits alone; none takes `seed`."""
    warmup: int = 10
    """Epochs before the first architecture step."""
    arch_share: float = 0.5
    """Share of the training scenes that is kept for the architecture steps."""
    order: Order = "first"
    """Order of the architecture gradient."""
    radius: float = 1e-2
    """Length of the perturbation of the weights, for finite-difference."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser of the weights."""
    weight_rate: float = 2e-3
    """Learning rate of the weights at the start; it falls on a cosine."""
    weight_rate_end: float = 1e-4
    """Learning rate of the weights at the end."""
    momentum: float = 0.9
    """Momentum of SGD."""
    arch_rate: float = 3e-4
    """Learning rate of the architecture (Adam), about how far a logit moves per step."""
    arch_betas: tuple[float, float] = (0.5, 0.999)
    """Betas of the architecture's Adam."""
    arch_decay: float = 1e-3
    """Weight decay of the architecture; it pulls the logits to zero."""
    arch_batch: int | None = field(default=None, metadata=LATER)
    """Scenes per architecture step; none takes `batch`. More of them drown less of the signal in noise."""
    price_share: float | None = field(default=None, metadata=LATER)
    """Let the price on cost pull at this share of the images' pull, whatever `loss.complexity_weight` says; none takes
    the price as it is (published), which decides alone where the images pull weakly."""
    mask_barred: bool = field(default=False, metadata=LATER)
    """Give no weight to what may not win (none); off mixes it in (published)."""
    head_gain: float = field(default=0.0, metadata=LATER)
    """Share of its usual scale at which the supernet's head starts; at 0 the first architecture gradients are 0."""
    relaxation: Literal["softmax", "gumbel"] = "softmax"
    """How logits become mixture weights."""
    temperature: float = 1.0
    """Temperature of the relaxation at the start; it changes geometrically."""
    temperature_end: float = 1.0
    """Temperature at the end."""
    hard: bool = False
    """With gumbel: use one candidate per place in the forward pass, straight through."""
    sampled: bool = False
    """With hard: compute only the candidate that was drawn (GDAS)."""
    discretize: Literal["argmax", "perturbation"] = "argmax"
    """How the genotype is derived from the supernet."""
    strategy: Literal["gradient", "paths", "fair-paths"] = field(default="gradient", metadata=LATER)
    """gradient: alpha and beta are trained (DARTS, GDAS). paths, fair-paths: the supernet is trained by uniformly
    sampled paths, and evolution finds the best one."""
    evaluations: int = field(default=200, metadata=LATER)
    """With paths: how many architectures are scored by the weights of the supernet."""
    score_batches: int = field(default=4, metadata=LATER)
    """With paths: batches of held-out scenes that each is scored on."""
    budget: float | None = field(default=None, metadata=LATER)
    """The most that the derived network may cost; it uses at least 97 % of it. None sets no limit."""
    budget_unit: Literal["parameters", "flops"] = field(default="flops", metadata=LATER)
    """What the budget counts: flops are those of a picture of 256 x 256 pixels."""
    eigenvalue_every: int = 1
    """Epochs between measurements of the dominant eigenvalue of the architecture Hessian; 0 never measures."""
    early_stop: bool = True
    """Stop on collapse, and derive from an architecture before it, at the earliest that of the end of the warm-up."""
    eigenvalue_ratio: float | None = 0.75
    """Collapse (RobustDARTS): the mean of five eigenvalues exceeds 1/this times that of the five before; the search
    returns to five measurements earlier. None for the scaled presets: their few epochs sharpen the softmax so fast that
    the eigenvalue rises whether a search collapses or not."""
    max_skip_share: float = 0.8
    """Collapse: more than this share of the edges choose skip_connect; the search returns to the epoch before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be(self, "at least", 0, "eigenvalue_every", "weight_rate", "weight_rate_end", "arch_rate", "arch_decay")
        must_be(self, "at least", 0, "price_share", "head_gain")
        must_be(self, "at least", 1, "arch_batch", "evaluations", "score_batches")
        must_be(self, "at most", LARGEST_RATE, "weight_rate", "weight_rate_end", "arch_rate", "arch_decay")
        must_be(self, "at most", LARGEST_SEED, "arch_seed")
        must_be(self, "above", 0, "budget", "temperature", "temperature_end", "radius")
        if self.budget is not None and self.discretize == "perturbation":
            raise ValueError("a budget is kept by choosing among logits: leave out discretize='perturbation', or it")
        if self.strategy != "gradient" and self.compute.compile:
            raise ValueError(f"strategy {self.strategy!r} computes another path in every step: leave out compile")
        if self.sampled and not (self.hard and self.relaxation == "gumbel"):
            raise ValueError("sampled computes the one candidate that was drawn: set relaxation='gumbel' and hard too")
        if self.accumulate > 1 and self.order != "first":
            raise ValueError(
                f"accumulate is {self.accumulate}, but order {self.order!r} is not linear in the scenes: 1"
            )
        if self.compute.compile and (self.sampled or self.order == "exact" or self.temperature != self.temperature_end):
            raise ValueError(
                "compile takes passes that are the same in every step and are differentiated once: leave out "
                "order='exact', sampled and a changing temperature, or compile"
            )
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(f"warmup is {self.warmup} of {self.epochs} epochs: no epoch would move the architecture")
        if not 0 < self.arch_share < 1:
            raise ValueError(f"arch_share is {self.arch_share}: it must lie between 0 and 1")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "SearchSettings":
        """Return the settings called `smoke`, `teach`, `lite` or `paper`, with `changes` to their fields."""
        return from_preset(SEARCH_PRESETS, name, changes)


# L1 and a third of the SSIM term, a tenth of the internal one. A rough probe: gains in dB under light / medium / heavy
# rain after 1,000 steps of a hand-made `teach` network (one seed each): 0.6 / 3.7 / 5.2 so; with a tenth of the SSIM
# term 0.1 / 2.3 / 4.8; with the method's MSE + SSIM, longer, -0.9 / 3.2 / 6.0; with all of the internal, -0.3 / 2.3 /
# 5.8. The photographs were the six on which the demo reports, so its gains are those of a loss chosen on them.
_OUR_LOSS = LossSettings(external="l1+ssim", external_ssim=0.3, internal_weight=0.1, internal_from=1)
_SCALED_SEARCH = SearchSettings(
    optimizer="adam",
    weight_rate=1e-3,
    weight_decay=0.0,
    arch_decay=0.0,
    arch_rate=0.03,
    clip=1.0,
    eigenvalue_every=0,
    eigenvalue_ratio=None,
    loss=_OUR_LOSS,
)
SEARCH_PRESETS: dict[str, SearchSettings] = {
    "paper": SearchSettings(),
    # Short searches need an architecture rate at which logits can move away from their random start: Adam moves a
    # logit by about its rate a step.
    **dict.fromkeys(
        ("lite", "teach"),
        replace(_SCALED_SEARCH, epochs=20, steps=50, batch=4, warmup=4, eigenvalue_every=5),
    ),
    # So the data decide: with a silent head the price alone moves the architecture at first, and towards a damaged
    # module that is cheap (docs/results.md). Measured at this size only: `teach` and `lite` keep the published start.
    "smoke": replace(
        _SCALED_SEARCH, epochs=4, steps=10, batch=2, patch=32, warmup=1, arch_rate=0.1, mask_barred=True, head_gain=0.1
    ),
}


@dataclass(frozen=True)
class RetrainSettings(TrainingSettings):
    """Everything that a retraining does but its genotype and its data.

    The defaults are `paper`: the released sizes, rate and schedule. This kit's own are all versions of a scene in place
    of three (`rains`), and the validation on whole pictures.
    """

    steps: int = 500
    batch: int = 32
    rate: float = 1e-3
    """Learning rate (Adam) after the warm-up; it falls on a cosine."""
    rate_end: float = 0.0
    """Learning rate at the end."""
    warmup: int = 0
    """Steps in which the learning rate rises from 0, linearly."""
    ema: float | None = None
    """Decay of a moving average of the weights, which is then what is validated and kept; none keeps the weights."""
    validate_every: int = 1
    """Epochs between scores on whole validation pictures; the best network is kept."""
    val_scenes: int = 8
    """Validation scenes that are scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be(self, "at least", 1, "validate_every", "val_scenes")
        must_be(self, "at least", 0, "rate", "rate_end", "warmup")
        must_be(self, "at most", LARGEST_RATE, "rate", "rate_end")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}: a decay lies in [0, 1), 0.999 is usual; None switches it off")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "RetrainSettings":
        """Return the settings called `smoke`, `teach`, `lite` or `paper`, with `changes` to their fields."""
        return from_preset(RETRAIN_PRESETS, name, changes)


_SCALED_RETRAIN = RetrainSettings(batch=4, rate=2e-3, warmup=20, clip=1.0, ema=0.995, val_scenes=4, loss=_OUR_LOSS)
RETRAIN_PRESETS: dict[str, RetrainSettings] = {
    "paper": RetrainSettings(),
    "lite": replace(_SCALED_RETRAIN, epochs=40, steps=250, batch=8, rate=1e-3, ema=0.999, warmup=200),
    "teach": replace(_SCALED_RETRAIN, epochs=10, steps=200, rate=4e-3, warmup=50),
    "smoke": replace(_SCALED_RETRAIN, epochs=2, steps=10, batch=2, patch=32, warmup=2, val_scenes=1, ema=None),
}
