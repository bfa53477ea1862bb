"""Write figures/readme.jpg: a bundled test photograph, rainy | derained | clean, by a network of the package.

.venv/bin/python scripts/readme_picture.py
"""

import argparse
from pathlib import Path

import numpy as np

from manas_lite import derain, load, open_split
from manas_lite.photos.images import write_image

PICTURE = Path(__file__).resolve().parents[1] / "figures" / "readme.jpg"
SCENE = "coco_000000000471"  # CC BY 2.0: a rainy version may be shown with its source named
GAP = 8  # white pixels between the pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rain-any", help="a shipped model or a run directory")
    parser.add_argument("--level", default="medium", choices=("light", "medium", "heavy"))
    options = parser.parse_args()
    (scene,) = (scene for scene in open_split("photos").test if scene.name == SCENE)
    rainy, clean = scene.read()
    image = rainy[scene.labels.index(options.level)]
    gap = np.full((len(clean), GAP, 3), 255, np.uint8)
    row = np.concatenate([image, gap, derain(image, load(options.model)), gap, clean], axis=1)
    print(write_image(PICTURE, row[: len(row) * 9 // 10]))  # the lowest tenth is asphalt


if __name__ == "__main__":
    main()
