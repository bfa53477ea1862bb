"""Write docs/hyperparameters.md: the presets as the code has them, beside the released code's values.

    python scripts/hyperparameters.py           write the page
    python scripts/hyperparameters.py --check   change nothing; exit 1 when the page and the presets differ

Only the columns `released` and `why` are written by hand, below; a field without a row here is an error.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from manas_lite.losses import LossSettings
from manas_lite.networks.ops import PUBLISHED_OPERATIONS
from manas_lite.networks.space import PRESETS
from manas_lite.training.schedules import RETRAIN_PRESETS, SEARCH_PRESETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hyperparameters.md"
NAMES = ("paper", "lite", "teach", "smoke")
NOT_HYPERPARAMETERS = {"loss", "compute", "checkpoint_every"}
NONE_MEANS = {"rains": "all", "arch_seed": "as seed", "arch_batch": "as batch"}

INTRODUCTION = """\
# Hyper-parameters

Written by `python scripts/hyperparameters.py` from the presets themselves; a test holds page and code equal.

* **article**: L. Cai et al., TCSVT 2023. Its body was not available to this kit, so its own values are
  *unknown*, every one: its loss weights and its search cost among them.
* **released**: the published code, where it is known what it does; – where it has no such switch or it is not
  known here. Its known faults are not repeated, and what differs for that reason says so.
* **paper**, **lite**, **teach**, **smoke**: this kit's presets. `paper` means the released code's sizes, rates and
  schedule, with guards of this kit on top, which the table calls so, and with every rain of a scene (`rains=3` for the
  released number). `teach` takes minutes on a laptop, `smoke` seconds; `lite` stays under a million parameters.
"""

SPACE = {
    "channels": (
        "32, 64, 128, 256",
        "small spaces drop the widest branches first: they hold most parameters",
    ),
    "modules_per_cell": (
        "4, but 128 in the second cell (a fault)",
        "the fault made 80.4 M parameters of 13.3 M",
    ),
    "groups": ("2", "K groups give K(K+1)/2 searched edges a block"),
    "attention": ("on", "off is an ablation"),
    "operations": ("nine", "the same nine candidates at every size"),
    "allow_none": ("yes", "`none` may not win an edge, as in AutoLA: a dead edge is no finding"),
    "stem": (
        "bottleneck",
        "`unshuffle` does the heavy work at half resolution: far better pictures for the same time",
    ),
    "norm": (
        "batch",
        "small batches estimate BatchNorm statistics badly; without it small trunks train further",
    ),
    "residual": ("no", "predicting the rain layer trains far faster on a small budget"),
    "modules": ("parallel, fusion", "the same two candidates at every size"),
    "head": ("1", "side of the last kernel; 3 gains 0.3 dB after 400 steps where the network works at half resolution"),
}
SEARCH = {
    "seed": ("none", "weights, logits, splits, batches and noise follow from it"),
    "arch_seed": ("none", "another random start of the logits alone, to tell signal from start"),
    "epochs": ("200", "the released schedule is of the order of a hundred GPU-hours"),
    "steps": ("1000", "steps an epoch"),
    "batch": ("16", "scenes a step"),
    "accumulate": ("–", "parts of a batch taken one after the other, to save memory"),
    "rains": ("3", "rainy versions a scene; all: as many as every scene has, 14 on Rain1400"),
    "patch": ("64", "pixels"),
    "symmetries": ("8", "4 without quarter turns, 2 left and right alone: rain falls down"),
    "multi_to_one": ("yes", "off trains every rainy image on its own: an ablation"),
    "fresh_rain": ("–", "levels of rain laid anew over each patch: an ablation, and a help for small sets"),
    "warmup": ("10", "epochs of weight steps alone"),
    "arch_share": ("the test set (a fault)", "share of the training scenes kept for architecture steps"),
    "order": ("–", "`finite-difference` and `exact` take the second order in, at more than twice the cost"),
    "radius": ("–", "of the finite difference"),
    "optimizer": ("sgd", "Adam needs no tuning at these few steps"),
    "weight_rate": ("0.002", "cosine, first value"),
    "weight_rate_end": ("0.0001", "cosine, last value"),
    "momentum": ("0.9", "of SGD"),
    "weight_decay": ("0.0003", "pointless over a few hundred steps"),
    "clip": ("–", "gradient norm of the weights; a guard of this kit"),
    "arch_rate": ("0.0003", "Adam moves a logit by about its rate a step: short searches need a larger one"),
    "arch_betas": ("0.5, 0.999", "of Adam"),
    "arch_decay": ("0.001", "pulls logits to zero: against the signal, in a short search"),
    "arch_batch": ("as batch", "scenes of an architecture step; one batch's noise can be several times its signal"),
    "price_share": ("–", "the price on cost pulls at this share of the images' pull, so that it cannot decide alone"),
    "mask_barred": ("off", "what may not win carries no weight, so that it cannot take the weight of what is derived"),
    "head_gain": ("–", "with a head of 0 the images' first pull at the architecture is 0"),
    "relaxation": ("softmax for alpha, raw beta (a fault)", "`gumbel` samples, straight-through if hard"),
    "temperature": ("–", "of the relaxation"),
    "temperature_end": ("–", "geometric from the first to the last epoch"),
    "hard": ("–", "with `gumbel`: one operation an edge in the forward pass"),
    "sampled": ("–", "with `hard`: the operations that were not drawn are not computed (GDAS)"),
    "discretize": ("argmax", "`perturbation` removes each choice and measures the loss"),
    "strategy": ("gradient", "`paths` and `fair-paths` train by sampled paths and search by evolution"),
    "evaluations": ("–", "architectures that evolution scores"),
    "score_batches": ("–", "held-out batches that each is scored on"),
    "budget": ("–", "a limit on the derived network, kept by constraint and not by a price"),
    "budget_unit": ("–", "of the budget"),
    "eigenvalue_every": ("–", "epochs between eigenvalues of the architecture Hessian, 0: never; a guard of this kit"),
    "early_stop": ("–", "on collapse; a guard of this kit"),
    "eigenvalue_ratio": ("–", "RobustDARTS's rule; off where a search is too short for it"),
    "max_skip_share": ("–", "what counts as collapse"),
}
RETRAIN = {
    "seed": ("none", "initial weights and batches follow from it"),
    "epochs": ("200", ""),
    "steps": ("500", "steps an epoch"),
    "batch": ("32", "scenes a step"),
    "accumulate": ("–", "parts of a batch taken one after the other, to save memory"),
    "rains": ("3", "rainy versions a scene; all: as many as every scene has, 14 on Rain1400"),
    "patch": ("64", "pixels"),
    "symmetries": ("8", "published is a crop and a flip"),
    "multi_to_one": ("yes", "off is an ablation"),
    "fresh_rain": ("–", "levels of rain laid anew over each patch"),
    "rate": ("0.001", "Adam, cosine, first value; the small presets have few steps to use"),
    "rate_end": ("0", "cosine, last value"),
    "warmup": ("–", "steps of linear rise"),
    "weight_decay": ("–", ""),
    "clip": ("–", "gradient norm; larger rates want it"),
    "ema": ("–", "moving average of the weights: what is validated and kept"),
    "validate_every": ("random crops drawn anew (a fault)", "epochs between scores on fixed whole pictures"),
    "val_scenes": ("–", "validation scenes scored; the best checkpoint is kept"),
}
LOSS = {
    "external": ("mse+ssim", "`l1`, `charbonnier` and `log_mse` are offered beside"),
    "external_weight": ("1", ""),
    "external_ssim": ("1", "weight of 1 - SSIM inside the external loss"),
    "tv": ("0.0001", "weight of the total variation"),
    "internal_weight": ("1", "0 is an ablation"),
    "internal_from": ("5", "first epoch with an internal loss; short runs start earlier"),
    "internal_ssim": ("no", "adds 1 - SSIM of the pairs: an ablation"),
    "alpha_entropy_weight": ("0.01", "architecture step only"),
    "beta_entropy_weight": ("0.01", "architecture step only"),
    "complexity_weight": ("0.01 or 0.1 seen, commented out (a fault)", "on, and tested to move the result"),
    "complexity_unit": ("weights in another order than the operations (a fault)", "cost by operation name"),
    "terms": ("–", "weights of terms of your own, by the name that they are registered under"),
}


def show(name: str, value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None:
        return NONE_MEANS.get(name, "off")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each:g}" for key, each in value.items()) or "none"
    if isinstance(value, tuple):
        return "nine" if value == PUBLISHED_OPERATIONS else ", ".join(show(name, each) for each in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(title: str, rows: dict[str, tuple[str, str]], settings: dict[str, Any]) -> str:
    """One Markdown table: a row a field, a column a preset."""
    (kind,) = {type(each) for each in settings.values()}
    names = [field.name for field in dataclasses.fields(kind) if field.name not in NOT_HYPERPARAMETERS]
    if sorted(names) != sorted(rows):
        raise SystemExit(f"{kind.__name__} has the fields {names}, this script the rows {list(rows)}")
    lines = [f"## {title}", "", f"`{kind.__module__}.{kind.__name__}`", ""]
    lines += ["| setting | article | released | " + " | ".join(settings) + " | why |"]
    lines += ["|---" * (len(settings) + 4) + "|"]
    for name, (released, why) in rows.items():
        values = [show(name, getattr(each, name)) for each in settings.values()]
        lines.append(f"| `{name}` | unknown | {released} | " + " | ".join(values) + f" | {why} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    search = {name: SEARCH_PRESETS[name] for name in NAMES}
    retrain = {name: RETRAIN_PRESETS[name] for name in NAMES}
    losses: dict[str, LossSettings] = {}
    for name in NAMES:
        losses[f"{name}, search"] = search[name].loss
        losses[f"{name}, retrain"] = retrain[name].loss
    return "\n".join(
        [
            INTRODUCTION,
            table("Search space", SPACE, {name: PRESETS[name] for name in NAMES}),
            table("Search", SEARCH, search),
            table("Retraining", RETRAIN, retrain),
            table("Loss", LOSS, losses),
        ]
    )


def main() -> None:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{PAGE.name} is not what the presets say: run `python scripts/hyperparameters.py`")


if __name__ == "__main__":
    main()
