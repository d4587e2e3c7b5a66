"""Running the host's tools: one failure that says what to install or what the tool complained of."""

import os
import subprocess
from pathlib import Path

# What the rig calls → the Debian package that holds it.
TOOLS = {
    "depmod": "kmod",
    "modprobe": "kmod",
    "ldd": "libc-bin",
    "grub-mkimage": "grub-common",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mmd": "mtools",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
    "cpio": "cpio",
    "zstd": "zstd",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
}


class BuildError(Exception):
    """The demo PC or its disk cannot be made; the text says why and, where it is known, what to do."""


def run(*command: str | Path, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    """Run a tool to its end and return what it printed. Raises BuildError with the tool's own last words."""
    try:
        done = subprocess.run(
            command, cwd=cwd, input=stdin, capture_output=True, env={**os.environ, "LC_ALL": "C", **(env or {})}
        )
    except FileNotFoundError as missing:
        raise missing_tool(str(command[0])) from missing
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildError(f"{' '.join(map(str, command))} failed with status {done.returncode}: {words[-2000:]}")
    return done.stdout.decode(errors="replace")


def missing_tool(name: str) -> BuildError:
    package = TOOLS.get(name)
    remedy = f"apt-get install {package}" if package else "see packages.txt"
    return BuildError(f"{name} is not installed: {remedy}")
