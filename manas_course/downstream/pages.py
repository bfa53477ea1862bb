"""The downstream table in Markdown, with what its numbers measure and what they do not."""

import math
from collections.abc import Mapping, Sequence

from manas_course.downstream.tasks import GAIN, Row

FEW_PICTURES = 10  # below this many the page warns of the intervals

DETECTION = """\
A fixed COCO-SSD detector looks at each photograph clean, under synthetic rain, and derained. **AP** compares it with
COCO's true boxes (AP@50: boxes that overlap by half count; AP: mean over stricter demands). **Recall** and
**precision** take its detections of at least 0.5 on the *clean* photograph for true: they measure **consistency**, not
accuracy; **confidence drop** is the mean score that those detections lost.

They do not measure: real rain; other detectors; a detector trained on rain. Its training set, COCO train2017, holds the
bundled photographs: its AP on clean ones is flattered. A deraining network trained on "photos" has seen the backgrounds
of all but those held out.
"""
SEGMENTATION = """\
A small segmenter, trained by this kit on clean pictures and then left as it is. **mIoU** is the mean over classes of
intersection over union, counted over all pixels.

It does not measure how well scenes can be segmented: the segmenter is small and has seen little. What counts is the
difference between the rows; where rain *raises* a score, the segmenter was guessing on the clean picture too.
"""
QUALITY = """\
**NIQE** and **PIQE** need no clean picture; lower is better. They compare within this table only. The bundled
photographs show what the scores are worth: there the clean picture is known. **Change** is how much deraining changed a
picture, mean absolute, in levels of 255.

They do not measure whether rain is gone: grain, blur and compression move them too. Models trained on synthetic rain
often do little on real rain; look at the change, and at the contact sheet.
"""

Headings = Mapping[str, tuple[str, int]]  # by measure: the heading of its column, and the decimals
SECTIONS: Mapping[str, tuple[str, Headings]] = {
    "detection": (
        DETECTION,
        {
            "ap50": ("AP@50", 3),
            "ap": ("AP", 3),
            "recall": ("recall", 3),
            "precision": ("precision", 3),
            "confidence_drop": ("confidence drop", 3),
        },
    ),
    "segmentation": (SEGMENTATION, {"miou": ("mIoU", 3), "accuracy": ("pixel accuracy", 3)}),
    "quality": (QUALITY, {"niqe": ("NIQE", 2), "piqe": ("PIQE", 1), "change": ("change", 2)}),
}


def markdown_page(
    rows: Sequence[Row], name: str, levels: Sequence[str], notes: Mapping[str, str], left_out: Sequence[str] = ()
) -> str:
    """Return the page.

    Args:
        rows: of the table.
        name: of the deraining network.
        levels: of the synthetic rain, in the order in which they are shown.
        notes: what masked data can show, by their name.
        left_out: pictures that were left out, and why.
    """
    parts = [
        f"# After deraining by {name}\n",
        "Made by `python -m manas_course.downstream`; every number, and those of each class, is in `table.csv`. In "
        "brackets: 95 % of the values over resampled pictures. One network, one seed of the rain: an interval says how "
        f'much hangs on the choice of pictures, and nothing else. "{GAIN}" is the paired difference.\n',
    ]
    for task, (text, headings) in SECTIONS.items():
        of_task = [row for row in rows if row.task == task]
        if of_task:
            parts += [f"## {task.capitalize()}\n", text]
        for data in dict.fromkeys(row.data for row in of_task):
            mine = [row for row in of_task if row.data == data]
            note = f"; {notes[data]}" if task == "segmentation" and data in notes else ""
            few = "; so few that the intervals mean little" if mine[0].pictures < FEW_PICTURES else ""
            parts += [f"**{data}**, {mine[0].pictures} pictures{note}{few}\n", _markdown(mine, headings, levels)]
            if task == "segmentation":
                classes = {row.measure: (row.measure[4:], 2) for row in mine if row.measure.startswith("iou_")}
                parts += ["IoU of each class:\n", _markdown(mine, classes, levels)]
    if not any(row.level == "real" for row in rows):
        parts.append("Real rain was not measured (`--real` takes a folder of rainy photographs).\n")
    if left_out:
        parts.append("Left out, because they could not be read or measured:\n")
        parts.append("\n".join(f"- {line}" for line in left_out) + "\n")
    return "\n".join(parts)


def _markdown(rows: Sequence[Row], headings: Headings, levels: Sequence[str]) -> str:
    cells = {(row.level, row.version, row.measure): row for row in rows}
    present = [measure for measure in headings if any(key[2] == measure for key in cells)]
    lines = ["| rain | picture | " + " | ".join(headings[m][0] for m in present) + " |"]
    lines.append("|---|---|" + "---|" * len(present))
    for level in ("none", *levels, "real"):
        for version in ("clean", "rainy", "derained", GAIN):
            found = [cells.get((level, version, m)) for m in present]
            if any(found):
                shown = [_cell(row, headings[m][1]) for row, m in zip(found, present, strict=True)]
                lines.append(f"| {level} | {version} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row | None, digits: int) -> str:
    if row is None or math.isnan(row.value):
        return "–"
    form = f"{'+' if row.version == GAIN else ''}.{digits}f"
    text = f"{row.value:{form}}"
    return text if math.isnan(row.low) else f"{text} [{row.low:{form}}, {row.high:{form}}]"
