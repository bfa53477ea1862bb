"""Command line of the data package: python -m manas_lite.data {list,get,check,scenes,leaks} --help"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from manas_lite.data import registry
from manas_lite.data.checking import check, scene_table
from manas_lite.data.download import DownloadError, get, record
from manas_lite.data.grouping import group_scenes
from manas_lite.data.layouts import LAYOUTS, list_folder
from manas_lite.data.leaks import find_leaks
from manas_lite.data.listing import Listing
from manas_lite.data.similarity import SAME
from manas_lite.photos.hub import Address


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0, 2 after a user's error or for leaks if asked, 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name that the terminal cannot show is no error
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (ValueError, OSError, DownloadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what has arrived is kept, run the same command to go on", file=sys.stderr)
        return 130


def _list(options: argparse.Namespace) -> None:
    base = registry.data_folder(options.root)
    head = f"{'name':<16}{'train':>8}{'test':>7}  {'R':<9}{'size':>9}  {'sources':<23}{'official':<10}{'here':<6}"
    print(f"{head}title; licence")
    for chosen in registry.data_sets().values():
        counts = [f"{chosen.pairs[part]:,}" if part in chosen.pairs else "-" for part in ("train", "test")]
        items = [registry.archive(name) for name in chosen.archives]
        sizes = [item.size for item in items if item.size]
        size = f"{sum(sizes) / 1e9:.2f} GB" if items and len(sizes) == len(items) else "?"
        loose = any(item.hub and not Address.parse(item.hub).pinned for item in items)
        sources = ", ".join(kind for item in items for kind in item.sources()) + ", not pinned" * loose or "by hand"
        row = f"{chosen.name:<16}{counts[0]:>8}{counts[1]:>7}  {chosen.rains:<9}{size:>9}  {sources:<23}"
        here = "yes" if (base / chosen.folder).is_dir() else ""
        print(f"{row}{'yes' if chosen.official else 'no':<10}{here:<6}{chosen.title}; {chosen.licence}")
    print(f"\nData folder: {base}  (R: rainy versions per background; counts are pairs; -, ?: none or not known)")
    print("Sources are asked from left to right. Official: published by the set's authors themselves.")
    print("Any folder of your own works too: python -m manas_lite.data check FOLDER")


def _get(options: argparse.Namespace) -> None:
    chosen, base = registry.data_set(options.name), registry.data_folder(options.root)
    if options.manual:
        print(registry.manual_steps(chosen, base))
        return
    if chosen.automatic:
        official = "" if chosen.official else " Not published by its authors."
        print(f"{chosen.title}. Licence: {chosen.licence}.{official}\nCite: {chosen.citation}.", file=sys.stderr)
    from_where = {"given": options.archive, "cache": options.cache, "mirrors": options.mirror}
    where = get(options.name, options.root, progress=not options.quiet, **from_where)
    for difference in registry.count_differences(chosen, registry.list_set(chosen, base)):
        print(f"warning: {difference}", file=sys.stderr)
    if options.record:
        print(f"recorded in {record(options.name, options.root)}", file=sys.stderr)
    print(where)


def _check(options: argparse.Namespace) -> None:
    listing, registered = _listing(options.path, options.layout, options.root)
    print(check(listing, strict=options.strict, registered=registered))


def _scenes(options: argparse.Namespace) -> None:
    listing, registered = _listing(options.path, options.layout, options.root)
    _tell_problems(listing)
    if listing.photos:
        print(f"{len(listing.photos)} photographs without rain of their own: each becomes a scene under synthetic rain")
        return
    group = options.by or (registered.group if registered else "auto")
    print(scene_table(group_scenes(listing, group)))


def _leaks(options: argparse.Namespace) -> int:
    train, test = (_listing(path, None, options.root)[0] for path in (options.train, options.test))
    for listing in (train, test):
        _tell_problems(listing)
    report = find_leaks(train, test, options.threshold)
    print(report)
    return 2 if report.matches and options.fail else 0


def _tell_problems(listing: Listing) -> None:
    """Name what is left out of a listing, on standard error."""
    for path, reason in listing.problems:
        print(f"left out: {path} {reason}", file=sys.stderr)


def _listing(path: str, layout: str | None, root: str | None) -> tuple[Listing, registry.DataSet | None]:
    """Return what a folder, or a registered set of that name, holds; and the set."""
    if not Path(path).exists() and path in registry.data_sets():
        chosen, _ = registry.locate(path, root)
        return registry.list_set(chosen, registry.data_folder(root)), chosen
    return list_folder(path, layout), None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m manas_lite.data", description="Deraining sets: get and check them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    root_help = "the folder that registered sets are kept in (default: $MANAS_LITE_SETS or ~/.cache/manas_lite/sets)"

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.add_argument("--root", metavar="FOLDER", help=root_help)
        added.set_defaults(run=run)
        return added

    command("list", _list, "List the registered sets: counts, rains per scene, how to get them, whether they are here.")

    getting = command("get", _get, "Download, verify and unpack a registered set, and print its folder.")
    getting.add_argument("name", metavar="NAME")
    getting.add_argument("--archive", metavar="FILE", help="an archive of the set that you have already")
    getting.add_argument("--mirror", metavar="URL", action="append", default=[], help="try this address first")
    getting.add_argument(
        "--cache", metavar="PLACE", help="a class cache, a folder or address (default: $MANAS_LITE_CLASS_CACHE)"
    )
    getting.add_argument("--record", action="store_true", help="write its size, sha256 and revision into the table")
    getting.add_argument("--manual", action="store_true", help="print the steps to take by hand, download nothing")
    getting.add_argument("--quiet", action="store_true", help="no progress bars")

    checking = command("check", _check, "Decode every picture: counts, sizes, mean PSNR, scenes, bad files.")
    checking.add_argument("--strict", action="store_true", help="stop at the first bad file instead of counting it")

    scenes = command("scenes", _scenes, "List the scenes: which rainy pictures share a background.")
    scenes.add_argument("--by", choices=("name", "hash"), help="how backgrounds are found (default: as the set says)")

    for added in (checking, scenes):
        added.add_argument("path", metavar="PATH", help="a folder, a CSV of pairs, or the name of a set")
        layouts = f"{', '.join(LAYOUTS)}, or RAINY:CLEAN, the names of two folders"
        added.add_argument("--layout", help=f"how the folder is laid out: {layouts} (default: detected)")

    leaks = command("leaks", _leaks, "Report test backgrounds that also occur among the training pictures.")
    leaks.add_argument("train", metavar="TRAIN", help="folder or set trained on")
    leaks.add_argument("test", metavar="TEST", help="folder or set tested on")
    leaks.add_argument("--threshold", type=float, default=SAME, help=f"similarity that counts (default {SAME})")
    leaks.add_argument("--fail", action="store_true", help="exit with status 2 when there are leaks")
    return parser


if __name__ == "__main__":
    torch.set_num_threads(1)  # pictures this small are scored fastest on one
    sys.exit(main())
