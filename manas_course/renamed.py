"""Old names in studies of arms, read for one release with a DeprecationWarning. This is their only table.

A sweep file, `-p`, a keyword of `Arm` and a stored result may still use them.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ARMS", "KEYWORDS", "SETTINGS", "current", "warn"]

ARMS = {"no_mse": "no_pixel"}
"""Arms of stored results: old name -> new name."""

SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "w_internal": ("internal_weight", float),
    "internal_start": ("internal_from", int),
    "w_entropy_alpha": ("alpha_entropy_weight", float),
    "w_entropy_beta": ("beta_entropy_weight", float),
    "w_complexity": ("complexity_weight", float),
    "cost": ("complexity_unit", str),
    "rains_per_scene": ("rains", lambda value: int(value) or None),
    "extra_rain": ("fresh_rain", lambda value: ("light", "heavy") if str(value).lower() in ("true", "1") else ()),
    "distance": ("external", str),
    "w_mse": ("external_weight", float),
    "w_ssim": ("external_ssim", float),
    "w_tv": ("tv", float),
}
"""Old name -> new name, and what reads an old value. The last four depend on one another: see `_external`."""

KEYWORDS = {"multi_to_one", "order", "attention", "residual", "norm", "stem", "internal_ssim"}
"""Settings that were fields of an arm by the same name."""

EXTERNAL = tuple(SETTINGS)[-4:]


def current(values: Mapping[str, Any], standing: Mapping[str, Any], *, stored: bool = False) -> dict[str, Any]:
    """Return named values with every old name replaced.

    Args:
        values: a value, or its text, per name. Names that are not old stay as they are.
        standing: `external`, `external_weight`, `external_ssim` and `tv` as they are without `values`.
        stored: whether the values come from a result file, about which nobody is warned.
    """
    found: dict[str, Any] = {}
    external: dict[str, Any] = {}
    for name, value in values.items():
        new, read = SETTINGS.get(name, (name, lambda same: same))
        if new != name and not stored:
            warn(name, new)
        (external if name in EXTERNAL else found)[name if name in EXTERNAL else new] = read(value)
    return found | (_external(external, {**standing, **found}) if external else {})


def warn(old: str, new: str, level: int = 5) -> None:
    """Warn that an old name goes with the next release; `level` calls up stands who used it."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release", DeprecationWarning, level)


def _external(old: Mapping[str, Any], standing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the external loss. Old weights were those of single terms; now one weighs their sum."""
    kinds, whole = str(standing["external"]).split("+"), float(standing["external_weight"])
    pixel = "+".join(kind for kind in kinds if kind != "ssim")
    before: dict[str, Any] = {
        "distance": pixel or "l1",
        "w_mse": whole if pixel else 0.0,
        "w_ssim": whole * float(standing["external_ssim"]) if "ssim" in kinds else 0.0,
        "w_tv": whole * float(standing["tv"]),
    }
    distance, w_mse, w_ssim, w_tv = (before | dict(old)).values()
    if w_mse == w_ssim == 0:
        raise ValueError("w_mse and w_ssim are both 0: nothing would draw the output to the clean picture")
    weight = w_mse or w_ssim
    kind = "ssim" if not w_mse else f"{distance}+ssim" if w_ssim else distance
    new = {"external": kind, "external_weight": weight, "tv": w_tv / weight}
    new |= {"external_ssim": w_ssim / weight if w_mse else 1.0} if w_ssim else {}
    return {name: value for name, value in new.items() if value != standing[name]}
