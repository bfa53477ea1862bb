"""Repositories of a model hub: OWNER/NAME at a revision. `huggingface_hub`, the extra `hub`, is loaded on first use.

A revision is a commit, whose hash covers every file: who names one gets the same bytes ever after.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from manas_lite.runs.checkpoint import sha256_of
from manas_lite.runs.documents import one_line

_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@([^@#\s]+))?(?:#([0-9a-f]{64}))?", re.ASCII)
_ADVICE = {
    "RepositoryNotFoundError": "there is no such repository, or it is private: check the name, or run `hf auth login`",
    "GatedRepoError": "its owner asks for consent first: open its page in a browser, then run `hf auth login`",
    "RevisionNotFoundError": "there is no such revision: take a commit, tag or branch of that repository",
    "LocalEntryNotFoundError": "the hub cannot be reached, and no copy is kept here: connect to the network",
}


class HubError(OSError):
    """A hub did not give or take what it should; the message is one line."""


@dataclass(frozen=True)
class Address:
    """What `OWNER/NAME@REVISION#SHA256` names; revision and sha256 may be left out."""

    repository: str
    revision: str | None = None
    sha256: str | None = None
    """What the weights must have, in hexadecimal digits."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that a text states, with or without `hub:` before it; raise ValueError for another text.

        Example:
            >>> Address.parse("hub:owner/net@v1").revision
            'v1'
        """
        found = _ADDRESS.fullmatch(text.removeprefix("hub:"))
        if not found:
            raise ValueError(one_line(f"{text!r} is no address of a hub: expected hub:OWNER/NAME@REVISION"))
        return cls(*found.groups())

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, and not a branch or a tag, which may move."""
        return bool(re.fullmatch(r"[0-9a-f]{40}", self.revision or ""))

    def __str__(self) -> str:
        return f"hub:{self.repository}" + (f"@{self.revision}" if self.revision else "")


def library() -> Any:
    """Return the module `huggingface_hub`; raise ModuleNotFoundError, which names the extra, where it is missing."""
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a model hub needs an extra: pip install 'manas_lite[hub]'") from None
    return huggingface_hub


@contextmanager
def told(address: Address) -> Iterator[None]:
    """Let whatever `huggingface_hub` raises, by version its own or its HTTP library's errors, be one HubError."""
    try:
        yield
    except (HubError, ModuleNotFoundError):
        raise
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        advice = next((_ADVICE[name] for name in names if name in _ADVICE), f"{names[0]}: {str(error)[:300]}")
        raise HubError(one_line(f"{address}: {advice}")) from error


def network_folder(address: Address, files: Sequence[str]) -> Path:
    """Return a folder of these files of a network's repository; print its revision where the address pins none.

    The folder is in the cache of `huggingface_hub`: what is there already is not fetched again.
    """
    with told(address):
        fetch = library().snapshot_download
        folder = Path(fetch(address.repository, revision=address.revision, allow_patterns=list(files)))
    if not address.pinned:
        pinned = Address(address.repository, folder.name)
        print(f"{address} may change; these weights are for ever: {pinned}", file=sys.stderr)
    return folder


def data_files(address: Address, folder: Path, skip: Sequence[str] = (), most: int | None = None) -> tuple[str, list]:
    """Download the repository of a data set; return its revision, and the names of its files, in order.

    Args:
        address: the repository.
        folder: where the files go; what is there already is not fetched again.
        skip: patterns of files to leave out.
        most: bytes that they may have in all.

    Raises:
        HubError: the hub does not deliver, or a file has not the hash that the revision states for it: the sha256 of a
            large file, git's own hash of any other.
    """
    hub = library()
    with told(address):
        revision = hub.HfApi().repo_info(address.repository, revision=address.revision, repo_type="dataset").sha
        where = {"revision": revision, "repo_type": "dataset"}
        listed = hub.HfApi().list_repo_tree(address.repository, recursive=True, **where)
        stated = {file.path: file for file in listed if hasattr(file, "blob_id")}
        stated = {name: file for name, file in stated.items() if not any(fnmatch(name, each) for each in skip)}
        if odd := [name for name in stated if name.startswith("/") or {"..", ""} & {*re.split(r"[/\\]", name)}]:
            raise HubError(f"{address}: file {odd[0]!r} would be written outside the folder, which is refused")
        if most is not None and (total := sum(file.size for file in stated.values())) > most:
            raise HubError(f"{address}: its files have {total:,} bytes, more than the {most:,} that this set can have")
        hub.snapshot_download(address.repository, local_dir=folder, ignore_patterns=list(skip), **where)
    for name, file in stated.items():
        path, data = folder / name, b"" if file.lfs else (folder / name).read_bytes()
        found = sha256_of(path) if file.lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if found != (expected := file.lfs.sha256 if file.lfs else file.blob_id):
            path.unlink()
            raise HubError(f"{address}: {name} has the hash {found}, the revision states {expected}: get it again")
    return revision, sorted(stated)
