"""Ask each address of the data sets for its head, and write what it answers: python scripts/data_board.py

Nothing is downloaded. Google Drive answers a page for any id, so that a file there counts as reachable only where the
page does not say that it is missing. Exit status 1 where a set can be had from no address at all.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from manas_lite.data.registry import archive, data_sets

AGENT = {"User-Agent": "manas_lite data board", "Accept-Encoding": "identity"}
DRIVE = "https://drive.google.com/file/d/{}/view"


@dataclass(frozen=True)
class Answer:
    """What one address said."""

    ok: bool
    text: str
    size: int | None = None


def ask(url: str, timeout: float = 30) -> Answer:
    """Return what a server says of a file, without fetching it."""
    import requests

    try:
        with requests.get(url, headers=AGENT, timeout=timeout, stream=True) as response:
            size = response.headers.get("Content-Length", "")
            if response.status_code != 200:
                return Answer(False, f"{response.status_code} {response.reason}")
            if url.startswith("https://drive.google.com/") and b"<title>" in (page := response.raw.read(200_000)):
                missing = b"404" in page or b"not exist" in page
                return Answer(not missing, "no such file" if missing else "there")
            return Answer(True, "there", int(size) if size.isascii() and size.isdigit() else None)
    except (requests.RequestException, OSError) as error:
        return Answer(False, type(error).__name__)


def addresses(name: str) -> list[str]:
    """Return the addresses that an archive can be had from."""
    found = archive(name)
    drive = [DRIVE.format(found.drive)] if found.drive else []
    pages = [page for kind, page in found.sources().items() if kind in ("hub", "Drive folder")]
    return [*drive, *found.mirrors, *pages]


def board(asked: Callable[[str], Answer] = ask) -> tuple[str, list[str]]:
    """Return the board, in Markdown, and the archives that no address has."""
    archives = sorted({name for each in data_sets().values() for name in each.archives})
    lines = [
        f"# Data sets on {time.strftime('%Y-%m-%d')}",
        "",
        "| archive | address | answer | size |",
        "|---|---|---|---|",
    ]
    dead = []
    for name in archives:
        answers = [(url, asked(url)) for url in addresses(name)]
        for url, answer in answers:
            size = "–" if answer.size is None else f"{answer.size / 1e6:,.1f} MB"
            lines.append(f"| {name} | {url} | {'✓' if answer.ok else '✗'} {answer.text} | {size} |")
        if not any(answer.ok for _, answer in answers):
            dead.append(name)
    return "\n".join([*lines, "", *summary(dead, archives)]) + "\n", dead


def summary(dead: list[str], archives: Iterable[str]) -> list[str]:
    count = len(list(archives))
    return [f"{count - len(dead)} of {count} archives can be had." + (f" Not: {', '.join(dead)}." if dead else "")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the board into this file")
    options = parser.parse_args()
    text, dead = board()
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
