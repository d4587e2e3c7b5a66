"""A machine that systemd runs, as a test host: the real systemd as process 1 of namespaces of its own.

Its root is this machine's, seen through an overlay: what is written there is gone with the host, and this machine's
units, users and files stay as they are. Its network is a namespace that the test made. Process 1 is killed at the end,
and everything in its process namespace with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from lab import control_groups
from lab.netns import Cable, tool

INIT: Final = Path("/lib/systemd/systemd")
_PROJECT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 400.0  # `bootlink install` waits for a first start

# Runs inside the new mount, process, IPC, name and control-group namespaces. `$1` is an empty folder.
_STARTER: Final = r"""
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mount -t tmpfs -o mode=755 tmpfs run
rm -rf etc/systemd/system etc/rc?.d etc/init.d
mkdir -p etc/systemd/system etc/init.d
ln -s /dev/null etc/systemd/system/console-getty.service
ln -sf /dev/null etc/tmpfiles.d/tmp.conf  # empties /tmp, where a clone of the project may lie
echo 0123456789abcdef0123456789abcdef > etc/machine-id
for folder in "${@:2}"; do chmod a+x ".$folder"; done
mkdir -p mnt/outside
pivot_root . mnt/outside
umount -l /mnt/outside
exec env -i container=bootlink-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=multi-user.target --log-target=null --show-status=no < /dev/null
"""


class SystemdHost:
    """One such machine, in this network namespace. Every user there may run this project: where it or its interpreter
    lies in a home, that is open there."""

    def __init__(self, network: str, folder: Path) -> None:
        self._network = network
        self._folder = folder / "machine"
        self._group = _control_groups() / f"bootlink-test-{os.getpid()}-{network}"
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> SystemdHost:
        if not INIT.exists():
            raise RuntimeError("systemd is missing: apt-get install systemd")
        self._folder.mkdir()
        self._group.mkdir()
        namespaces = ["--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--propagation", "private"]
        open_folders = {
            str(shut) for path in (_PROJECT, Path(sys.executable).resolve()) for shut in _shut_to_others(path)
        }
        starter = ["bash", "-c", _STARTER, "starter", str(self._folder), *sorted(open_folders)]
        inside = Cable.inside(
            self._network, tool("unshare", "util-linux"), *namespaces, "--kill-child=SIGKILL", *starter
        )
        joined = f"echo $$ > {shlex.quote(str(self._group / 'cgroup.procs'))}; exec {shlex.join(inside)}"
        gone_with_us = [tool("setpriv", "util-linux"), "--pdeathsig", "KILL"]
        self._unshare = subprocess.Popen([*gone_with_us, "bash", "-c", joined], stdin=subprocess.DEVNULL)
        try:
            self._wait_until_it_runs()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        if self._unshare is not None:
            self._unshare.kill()
            self._unshare.wait()
        if left := control_groups.remove([self._group]):
            raise RuntimeError(f"control groups are left: {left}")

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` there."""
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net"]
        clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return [tool("nsenter", "util-linux"), "--target", str(self._init), *namespaces, "--wd=/", *clean, *command]

    def run(self, *command: str, check: bool = True) -> str:
        """What the command says on stdout. RuntimeError with both its outputs where it fails."""
        done = self.tried(*command)
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def tried(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        return subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def about(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def _wait_until_it_runs(self) -> None:
        assert self._unshare is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._unshare.poll() is not None:
                raise RuntimeError(f"the machine did not start: status {self._unshare.returncode}")
            children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                self._init = int(children[0])
                if self.tried("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.1)
        raise RuntimeError("systemd did not come up")


def _shut_to_others(path: Path) -> list[Path]:
    """The folders on the way to `path` that not every user may pass through."""
    return [folder for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH]


def _control_groups() -> Path:
    """Where this machine has the unified hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise RuntimeError("there is no cgroup2 on this machine: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
