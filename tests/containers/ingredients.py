"""What images are built from where no registry can be pulled: a base from the Debian archive, and the Python packages
that requirements/*.txt pin, as files. Both lie in the build cache, under names that say what they were made of.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from guest.toolbox import run

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".cache"
SUITE: Final = "bookworm"
# The least that builds and runs every image: a shell, Python, and what the Dockerfile installs where it is missing.
# hostname and the like are not among it: an image has no use for them.
BASE_PACKAGES: Final = (
    "base-files", "base-passwd", "ca-certificates", "coreutils", "dash", "ipxe", "libc-bin", "libstdc++6", "python3",
    "python3-venv", "qemu-utils",
)  # fmt: skip
# Packages are unpacked and not set up: that takes ten seconds where debootstrap takes minutes, most of them for writing
# to disk. What their scripts would have made of what we need is made here.
SET_UP: Final = (
    'cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"'
    ' && cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"'
    ' && ln -sf dash "$1/bin/sh" && chroot "$1" ldconfig'
)
MERGED_USR: Final = "/usr/share/mmdebstrap/hooks/merged-usr"
REQUIREMENTS: Final = ("build", "chassis", "registry", "command")
PYTHON_OF_SUITE: Final = "3.11"  # whichever this is


def base_archive() -> Path:
    """A root file system of Debian's as one tar file."""
    recipe = "\n".join((SUITE, *BASE_PACKAGES, SET_UP))
    archive = CACHE / f"container-base-{_digest(recipe)}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="base-") as work:
            made = Path(work) / "base.tar"
            run(
                "mmdebstrap", "--quiet", "--variant=extract", f"--hook-dir={MERGED_USR}",
                f"--include={','.join(BASE_PACKAGES)}", f"--customize-hook={SET_UP}", SUITE, made,
            )  # fmt: skip
            made.rename(archive)
    return archive


def wheels() -> Path:
    """A folder with the Python packages of all images. pip fetches them from where it fetched our own, and compares
    their checksums: nothing else knows the mirror that a machine without an internet of its own has."""
    texts = {name: (ROOT / "requirements" / f"{name}.txt").read_text() for name in REQUIREMENTS}
    folder = CACHE / f"container-wheels-{_digest(''.join(texts.values()))}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="wheels-") as work:
            draft = Path(work) / "wheels"
            wanted = [part for name in REQUIREMENTS for part in ("-r", ROOT / "requirements" / f"{name}.txt")]
            run(
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--no-deps", "--python-version", PYTHON_OF_SUITE, "--dest", draft, *wanted),
            )
            draft.rename(folder)
    return folder


def put_wheels(into: Path) -> None:
    """The packages as a folder `wheels` of a build context."""
    shutil.copytree(wheels(), into / "wheels", copy_function=_link)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _digest(recipe: str) -> str:
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]
