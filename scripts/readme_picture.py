"""Write figures/readme.png: a bundled test photograph, rainy / derained / clean, by the network of a demo run.

make demo && .venv/bin/python scripts/readme_picture.py runs/demo
"""

import argparse
from pathlib import Path

from manas_lite import derain, draw, load, open_split

PICTURE = Path(__file__).resolve().parents[1] / "figures" / "readme.png"
SCENE = "coco_000000000471"  # CC BY 2.0: a rainy version may be shown with its source named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of the demo")
    parser.add_argument("--level", default="medium", choices=("light", "medium", "heavy"))
    options = parser.parse_args()
    (scene,) = (scene for scene in open_split("photos").test if scene.name == SCENE)
    rainy, clean = scene.read()
    image = rainy[scene.labels.index(options.level)]
    PICTURE.parent.mkdir(exist_ok=True)
    draw.save(draw.comparison(image, derain(image, load(options.run)), clean), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
