"""Write figures/downstream.jpg: two bundled test photographs under heavy rain, derained and clean, with what the fixed
detector saw on each.

.venv/bin/python scripts/downstream_picture.py rain-any
"""

import argparse
from pathlib import Path

from manas_course.downstream.boxes import bundled_boxes
from manas_course.downstream.overlays import draw_boxes
from manas_course.downstream.sightings import Versions, load_sightings
from manas_lite import load
from manas_lite.draw.sheets import contact_sheet
from manas_lite.photos.images import write_image

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("coco_000000000471", "coco_000000000127")  # CC BY 2.0: versions may be shown with their source named
LEVEL = "heavy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", help="a shipped model, or a run directory")
    parser.add_argument("--sightings", type=Path, default=ROOT / "results" / "downstream" / "sightings.json")
    options = parser.parse_args()
    seen, versions = load_sightings(options.sightings), Versions(load(options.network))
    rows = []
    for photo in (photo for photo in bundled_boxes() if photo.name in SHOWN):
        pictures = {(LEVEL, v): p for v, p in versions.of(photo.picture, photo.name, LEVEL).items()}
        pictures["none", "clean"] = photo.picture.read()
        drawn = [draw_boxes(picture, seen[photo.name, *key].boxes) for key, picture in pictures.items()]
        rows.append((f"{photo.name}, CC BY 2.0", drawn))
    sheet = contact_sheet(rows, (f"{LEVEL} rain", "derained", "clean"), width=380, pairs=1)
    print(write_image(ROOT / "figures" / "downstream.jpg", sheet))


if __name__ == "__main__":
    main()
