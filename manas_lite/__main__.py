"""The command line, `manas-lite` or `python -m manas_lite`: which commands there are. commands.py holds them.

It imports nothing heavy before a command is named, so that the help comes at once.
"""

import sys
from collections.abc import Sequence

from manas_lite import __version__
from manas_lite.runs.arguments import nearest

COMMANDS = {
    "demo": "search, retrain, evaluate and draw, in minutes",
    "search": "search an architecture",
    "retrain": "train a genotype's network from scratch, or tune a trained one",
    "evaluate": "PSNR and SSIM of a network on test pictures",
    "derain": "derain a photograph, every photograph of a folder, or a video",
    "export": "write a network as ONNX, for programs without PyTorch",
}


def usage() -> str:
    """Return the help text of the command line."""
    rows = [f"  {name:<11} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: manas-lite COMMAND [OPTIONS]        (or python -m manas_lite)",
            "",
            "Neural architecture search for image deraining.",
            "",
            *rows,
            "",
            "  COMMAND --help shows its options and all of its settings; --version the version.",
            "  python -m manas_lite.data --help gets and checks data sets.",
            "  python -m manas_course.downstream --help: what a detector makes of derained pictures.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0, 2 after a user's error, 130 after Ctrl-C."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("-h", "--help", "--version"):
        print(f"manas_lite {__version__}" if command == "--version" else usage())
        raise SystemExit(0)
    if command not in COMMANDS:
        hint = nearest(command, COMMANDS)
        print(f"{usage()}\n\nerror: unknown command {command!r}{hint}", file=sys.stderr)
        raise SystemExit(2)
    from manas_lite import commands

    return commands.run(command, COMMANDS[command], rest)


if __name__ == "__main__":
    sys.exit(main())
