"""The demo PC's kernel: a Debian package, downloaded and unpacked below the cache, never installed on the host.

`packages.txt` names it in its one `unpack` line, as a meta package (`linux-image-cloud-amd64`), which depends on the
kernel of the day. The unpacked tree is kept, so that apt is asked once per machine.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guest.toolbox import BuildError, run

PACKAGES = Path(__file__).parents[2] / "packages.txt"


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: `tree` holds `boot/` and `lib/modules/<release>/` with its `modules.dep`."""

    tree: Path
    release: str

    @property
    def image(self) -> Path:
        return self.tree / "boot" / f"vmlinuz-{self.release}"

    def modules(self, names: Sequence[str]) -> list[Path]:
        """The module files that loading `names` in this order takes, dependencies first, each once.

        A name that is built into the kernel needs no file. Raises BuildError for a name that the kernel does not have.
        """
        files: dict[Path, None] = {}
        for name in names:
            shown = run("modprobe", "-d", self.tree, "-S", self.release, "--show-depends", name)
            for line in shown.splitlines():
                verb, _, rest = line.partition(" ")
                if verb == "insmod":
                    files[Path(rest.strip())] = None
        return list(files)


def unpack_kernel(cache: Path, say: Callable[[str], None]) -> Kernel:
    """The kernel that packages.txt names, from the cache or else from the Debian archive. Raises BuildError."""
    meta = _package_to_unpack()
    tree = cache / meta
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="kernel-") as work:
            fresh = Path(work) / "tree"
            package = _download(meta, Path(work), say)
            run("dpkg-deb", "-x", package, fresh)
            for release in _releases(fresh):
                run("depmod", "-b", fresh, release)
            try:
                fresh.rename(tree)
            except OSError:  # another build was faster; its tree is as good
                if not tree.exists():
                    raise
    (release,) = _releases(tree)
    return Kernel(tree, release)


def _package_to_unpack() -> str:
    for line in PACKAGES.read_text().splitlines():
        verb, _, name = line.partition(" ")
        if verb == "unpack":
            return name.strip()
    raise BuildError(f"{PACKAGES} has no 'unpack' line for the demo PC's kernel")


def _releases(tree: Path) -> list[str]:
    return [path.name for path in (tree / "lib" / "modules").iterdir()]


def _download(meta: str, work: Path, say: Callable[[str], None]) -> Path:
    """The file of the kernel package that `meta` depends on, downloaded into `work`."""
    if not _dependency(meta):
        run("apt-get", "update")
    name = _dependency(meta)
    if name is None:
        raise BuildError(f"the Debian archive has no {meta}; is /etc/apt/sources.list right?")
    say(f"downloading the demo PC's kernel ({name})")
    # Debian removes a kernel from its archive when the next one comes: a stale package list is the usual cause.
    if subprocess.run(["apt-get", "download", name], cwd=work, capture_output=True).returncode:
        run("apt-get", "update")
        run("apt-get", "download", _dependency(meta) or name, cwd=work)
    return next(work.glob("linux-image-*.deb"))


def _dependency(meta: str) -> str | None:
    found = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True)
    match = re.search(r"Depends: (linux-image-\S+)", found.stdout)
    return match[1] if match else None
