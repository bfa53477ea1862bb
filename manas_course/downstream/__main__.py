"""`python -m manas_course.downstream`: what a detector, a segmenter and other scores make of derained pictures."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from manas_course.downstream.protocol import DownstreamSettings, run_downstream
from manas_lite.commands import compute_settings, network_options, run_parsed, weights_option
from manas_lite.photos.zoo import load
from manas_lite.runs.arguments import Parser


def _options(p: Parser, arguments: Sequence[str]) -> None:
    weights_option(p)
    p.add_argument("--out", type=Path, default=Path("runs/downstream"), help="folder of the table (%(default)s)")
    p.add_argument("--tasks", default="detection,segmentation,quality", help="default: all three, %(default)s")
    p.add_argument("--boxes", type=Path, help="folder with images/ and labels/ in YOLO's layout (default: bundled)")
    p.add_argument("--street", type=Path, help="also a folder in CamVid's layout, to train a segmenter on")
    p.add_argument("--real", type=Path, help="folder of photographs of real rain (default: none)")
    p.add_argument("--detector", type=Path, help="its ONNX file (default: where data_scripts/coco_ssd/make.py puts it)")
    p.add_argument("--draws", type=int, default=200, help="resamples of the intervals (default: %(default)s)")
    p.add_argument("--most", type=int, default=0, help="at most this many photographs per task (default: all)")
    network_options(p)


def _work(options: Namespace) -> None:
    chosen = {k: getattr(options, k) for k in ("boxes", "street", "real", "detector", "draws", "most")}
    settings = DownstreamSettings(tasks=tuple(options.tasks.split(",")), **chosen)
    name = Path(options.weights).name
    run_downstream(load(options.weights), options.out, settings, name=f"`{name}`", compute=compute_settings(options))
    print((options.out / "README.md").read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    text = "what a detector, a segmenter and no-reference scores make of derained pictures"
    return run_parsed(
        "python -m manas_course.downstream", text, _options, _work, sys.argv[1:] if arguments is None else arguments
    )


if __name__ == "__main__":
    sys.exit(main())
