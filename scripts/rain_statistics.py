"""Is the rain that rain-any trains on as varied as rain of the sets? python scripts/rain_statistics.py --data FOLDER

FOLDER holds Rain100L, Rain100H and Rain800_groups. What a picture has more than its clean twin is its rain; five
numbers describe it. A row per picture in results/rain/statistics.csv; `make figures` draws figures/rain_statistics.png.

    share       pixels whose rain is above 0.05, of all
    brightness  mean rain of those pixels
    angle       degrees from the vertical of most streaks, from the structure tensor
    length      pixels along that direction over which the autocorrelation falls to one half, twice
    width       the same across it
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from experiments import rewrite
from scipy import ndimage

from manas_lite.data import Scene, open_split
from manas_lite.rain import add_rain, as_float, wild_rain
from manas_lite.runs.progress import Progress

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rain" / "statistics.csv"
VISIBLE = 0.05
REACH = 48  # pixels: no streak is followed further
SYNTHETIC = ("light", "medium", "heavy", "wild")


def statistics(rain: np.ndarray) -> dict[str, float]:
    """The five numbers of a layer of rain (H, W); NaN where it holds none."""
    seen = rain > VISIBLE
    if not seen.any():
        return {"share": 0.0, **dict.fromkeys(("brightness", "angle", "length", "width"), math.nan)}
    dy, dx = (ndimage.sobel(ndimage.gaussian_filter(rain, 0.7), axis) for axis in (0, 1))
    # The gradient lies across a streak, so the angle of the streak from the vertical is that of the gradient from the
    # horizontal, with the sign of `rain.Layer`: positive where the foot lies to the right of the head.
    angle = -0.5 * math.atan2(2 * float((dx * dy).sum()), float((dx * dx - dy * dy).sum()))
    along = np.array([math.cos(angle), math.sin(angle)])  # (rows, columns)
    correlation = autocorrelation(rain)
    return {
        "share": float(seen.mean()),
        "brightness": float(rain[seen].mean()),
        "angle": math.degrees(angle),
        "length": 2 * fall(correlation, along),
        "width": 2 * fall(correlation, np.array([-along[1], along[0]])),
    }


def autocorrelation(rain: np.ndarray) -> np.ndarray:
    """The autocorrelation of a layer, its middle at the middle of the array, where it is 1."""
    power = np.abs(np.fft.fft2(rain - rain.mean())) ** 2
    found = np.fft.fftshift(np.fft.ifft2(power).real)
    return found / found.max()


def fall(correlation: np.ndarray, direction: np.ndarray) -> float:
    """Pixels from the middle, in a direction (rows, columns), to where the correlation is one half."""
    middle = np.array(correlation.shape) // 2
    steps = np.arange(0, min(REACH, *middle), 0.25)
    values = ndimage.map_coordinates(correlation, middle[:, None] + direction[:, None] * steps, order=1)
    below = np.flatnonzero(values < 0.5)
    return float(steps[below[0]]) if len(below) else float(steps[-1])


def layer(rainy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """What a rainy picture has more than the clean one, in [-1, 1], the mean of its three colours."""
    return (as_float(rainy) - as_float(clean)).mean(axis=2)


def scenes(folder: Path) -> tuple[Scene, ...]:
    split = open_split(folder)
    return split.train + split.val + split.test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=100, help="at most this many per set (default: 100)")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []

    def add(kind: str, picture: str, rain: np.ndarray) -> None:
        numbers = {name: round(value, 4) for name, value in statistics(rain).items()}
        found.append({"rain": kind, "picture": picture, **numbers})

    light = open_split(options.data / "Rain100L")
    own = (light.train + light.val)[: options.pictures]
    sets = {
        "Rain100L": own,
        "Rain100H": scenes(options.data / "Rain100H"),
        "Rain800": scenes(options.data / "Rain800_groups"),
    }
    with Progress(sum(map(len, sets.values())) + len(own), "rain") as bar:
        for kind, members in sets.items():
            for scene in members[: options.pictures]:
                for rainy in scene.rainy:
                    add(kind, scene.name, layer(rainy.read(), scene.clean.read()))
                bar.step()
        for number, scene in enumerate(own):
            clean = scene.clean.read()
            for kind in SYNTHETIC:
                rainy = wild_rain(clean, (3, number)) if kind == "wild" else add_rain(clean, kind, (3, number))
                add(kind, scene.name, layer(rainy, clean))
            bar.step()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rewrite(RESULTS, found)


if __name__ == "__main__":
    main()
