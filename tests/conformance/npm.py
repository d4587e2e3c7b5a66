"""Packages that are published on npm alone, for checks that are no part of `make test`."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path


def fetched(name: str, sha512: str, folder: Path) -> Path:
    """Fetch NAME@VERSION and unpack it: its folder, below this one. SystemExit if npm fails or it is another one."""
    before = set(folder.iterdir())
    try:
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", str(folder), name], check=True, stdout=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SystemExit("npm is missing: apt-get install npm") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"npm could not fetch {name}: status {error.returncode}") from None
    (package,) = set(folder.iterdir()) - before
    found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if found != sha512:
        raise SystemExit(f"{name} has the checksum sha512-{found}, which is not the one that is known")
    unpacked = folder / package.name.removesuffix(".tgz")
    with tarfile.open(package) as files:
        files.extractall(unpacked, filter="data")
    return unpacked / "package"
