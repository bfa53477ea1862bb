"""What deraining is worth to others: a fixed detector, a fixed segmenter, and no-reference scores on real rain.

The protocol of the field: one pretrained model, never retrained, looks at the rainy, the derained and the clean
picture. Its own training and that of the deraining network know nothing of each other.

* `boxes`: photographs with the boxes of their objects.
* `masks`: photographs with a class for every pixel.
* `detection`: the detectors.
* `segmentation`: the segmenter, its training and its scores.
* `quality`: NIQE and PIQE. It imports no other module of this room.
* `scoring`: average precision, consistency, bootstrap intervals.
* `sightings`: one photograph in all its versions, and what a detector sees on each.
* `overlays`: boxes and classes drawn on pictures.
* `tasks`: the rows of the table, task by task.
* `pages`: the table in Markdown.
* `protocol`: one call for all of it.

A module imports from those above it alone, and from the rooms below this one: `data`, `photos`, `draw`, `compute`,
`networks`, `metrics`, `rain` and `runs`. The detector (onnxruntime) and average precision (pycocotools) need the extra
`downstream`.
"""

from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "downstream"
