"""Repositories of a model hub, OWNER/NAME at a revision. `huggingface_hub`, the extra `hub`, is loaded on first use."""

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from manas_lite.runs.checkpoint import sha256_of
from manas_lite.runs.documents import one_line

_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@([^@#\s]+))?(?:#([0-9a-f]{64}))?", re.ASCII)
_UNREACHED = "the hub cannot be reached, and no copy is kept here: connect to the network"
_ADVICE = {  # by the name of an error's class
    "GatedRepoError": "its owner asks for consent first: open its page in a browser, then run `hf auth login`",
    "RepositoryNotFoundError": "there is no such repository, or it is private: check the name, or run `hf auth login`",
    "RevisionNotFoundError": "there is no such revision: take a commit, tag or branch of that repository",
    **dict.fromkeys(("LocalEntryNotFoundError", "ConnectError", "ConnectionError"), _UNREACHED),
}


class HubError(OSError):
    """A hub did not give or take what it should; the message is one line."""


class Address(NamedTuple):
    """What OWNER/NAME@REVISION#SHA256 names: a revision, and the sha256 that the weights of a network must have."""

    repository: str
    revision: str | None = None
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that a text states, with or without `hub:` before it; raise ValueError for another text.

        Example:
            >>> Address.parse("hub:owner/net@v1").revision
            'v1'
        """
        if found := _ADDRESS.fullmatch(text.removeprefix("hub:")):
            return cls(*found.groups())
        raise ValueError(one_line(f"{text!r} is no address of a hub: expected hub:OWNER/NAME@REVISION"))

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes, and not a branch or a tag, which may move."""
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
    """Return a folder, in the hub's own cache, of these files of a repository; tell its commit where none is pinned."""
    with told(address):
        fetch = library().snapshot_download
        folder = Path(fetch(address.repository, revision=address.revision, allow_patterns=list(files)))
    if not address.pinned:
        stays = Address(address.repository, folder.name)
        print(f"{address} may change; these weights are for ever: {stays}", file=sys.stderr)
    return folder


def data_files(address: Address, folder: Path, skip: Sequence[str], most: int) -> tuple[str, list[str]]:
    """Download the repository of a data set, of at most `most` bytes; return its commit and the names of its files.

    Args:
        folder: where the files go; what is there already is not fetched again.
        skip: patterns of files to leave out.

    Raises:
        HubError: the hub does not deliver, or a file has not the hash that the commit states for it: the sha256 of a
            large file, git's own hash of any other.
    """
    with told(address):
        api, where = library().HfApi(), {"repo_id": address.repository, "repo_type": "dataset"}
        where["revision"] = api.repo_info(**where, revision=address.revision).sha
        listed = [file for file in api.list_repo_tree(**where, recursive=True) if hasattr(file, "blob_id")]
        files = [file for file in listed if not any(fnmatch(file.path, pattern) for pattern in skip)]
        if odd := [file.path for file in files if {"..", ""} & {*re.split(r"[/\\]", file.path)}]:
            raise HubError(f"{address}: file {odd[0]!r} would be written outside the folder, which is refused")
        if (total := sum(file.size for file in files)) > most:
            raise HubError(f"{address}: its files have {total:,} bytes, more than the {most:,} that this set can have")
        library().snapshot_download(**where, local_dir=folder, ignore_patterns=list(skip))
    for file in files:
        path, large = folder / file.path, file.lfs
        text = b"" if large else b"blob %d\0" % file.size + path.read_bytes()
        found, stated = (sha256_of(path), large.sha256) if large else (hashlib.sha1(text).hexdigest(), file.blob_id)
        if found != stated:
            path.unlink()
            raise HubError(f"{address}: {file.path} has the hash {found}, the revision states {stated}: get it again")
    return where["revision"], [file.path for file in files]
