"""A small Linux of the host's own files: directories, BusyBox, programs with their libraries, an initramfs."""

import re
import shutil
from pathlib import Path

from guest.kernel import Kernel
from guest.toolbox import BuildError, run


def initramfs(stage: Path, kernel: Kernel, own: Path) -> bytes:
    """An initramfs as a compressed cpio archive: `own`/init, BusyBox, iscsistart, and the kernel modules that
    `own`/modules lists. `stage` is the folder to put it together in."""
    stage.mkdir()
    shutil.copy(own / "init", stage / "init")
    make_directories(stage, "etc", "newroot", "var")
    (stage / "var" / "run").symlink_to("/run")
    shutil.copy(own / "modules", stage / "etc" / "modules")
    install_busybox(stage)
    install_program(stage, "iscsistart")
    listed = (own / "modules").read_text()
    for module in kernel.modules(re.sub(r"#.*", "", listed).split()):
        copy = stage / module.relative_to(kernel.tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    run("depmod", "-b", stage, kernel.release)
    names = sorted(str(path.relative_to(stage)) for path in stage.rglob("*"))
    archive = stage.with_suffix(".cpio")
    run("cpio", "-o", "-H", "newc", "--reproducible", "-O", archive, cwd=stage, stdin="\n".join(names).encode())
    # zstd: under software emulation, unpacking xz costs more time than reading the few blocks that it saves.
    run("zstd", "-q", "-19", archive, "-o", archive.with_suffix(".zst"))
    return archive.with_suffix(".zst").read_bytes()


def make_directories(root: Path, *more: str) -> None:
    for name in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", *more):
        (root / name).mkdir(parents=True, exist_ok=True)


def install_busybox(root: Path) -> None:
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in run("busybox", "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for applet in ("init", "getty", "reboot", "poweroff"):  # the names that inittab and habit give in full
        (root / "sbin" / applet).symlink_to("../bin/busybox")


def install_program(root: Path, name: str) -> None:
    """A program of the host's at the same place in `root`, with the shared libraries that it needs."""
    program = Path("/sbin") / name
    if not program.exists():
        raise BuildError(f"{program} is not there: apt-get install open-iscsi")
    # "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" and, for the loader, "/lib64/ld-linux-x86-64.so.2 (0x...)"
    libraries = re.findall(r"(/\S+) \(0x", run("ldd", program))
    for path in (program, *map(Path, libraries)):
        copy = root / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
