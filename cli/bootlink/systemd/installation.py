"""Makes `bootlink up` a service of this machine, and takes it away again.

Everything is done in an order in which each step may be repeated: an installation that was broken off, or one that is
there already, is brought to the same end by the same command. What the user wrote (settings, data) is changed where
asked for and never removed.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootlink.errors import CommandError
from bootlink.output import PROBLEM, REMEDY
from bootlink.supervisor import folder
from bootlink.systemd.files import START_SECONDS, STOP_SECONDS, Unit, unit_text, with_settings

UNIT: Final = Path("/etc/systemd/system/bootlink.service")
SETTINGS: Final = Path("/etc/bootlink/bootlink.env")
LINK: Final = Path("/usr/local/bin/bootlink")  # so that the command is found without its folder
SERVICE: Final = "bootlink.service"
USER: Final = "bootlink"

_RUNNING_SYSTEMD: Final = Path("/run/systemd/system")  # sd_booted(3)
_ANSWER_SECONDS: Final = 60  # systemd and useradd answer at once; a busy machine takes longer
_LAST_LINES: Final = 20  # of the journal, in which the error of a failed start is looked for


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be there. `program` runs the command: its interpreter and the module."""

    program: Sequence[str]
    settings: Mapping[str, str]  # of the settings file, as far as the user says something
    data: Path
    options: Sequence[str] = ()  # of `up`
    user: str = USER
    link_to: Path | None = None  # the command, which LINK is to name

    @property
    def unit(self) -> Unit:
        return Unit((*self.program, "up", *self.options), self.user, SETTINGS)

    def files(self) -> dict[Path, str]:
        """What is written, by its path."""
        settings = SETTINGS.read_text() if SETTINGS.exists() else ""
        return {UNIT: unit_text(self.unit), SETTINGS: with_settings(settings, self.settings)}


def install(wanted: Installation, *, start: bool) -> None:
    """Make the user, the folders and the files, and start the service. CommandError says what is wrong."""
    _require_root_and_systemd()
    if wanted.user != "root":
        _make_user(wanted.user, wanted.data)
        _require_that_it_runs(wanted)
        _give_data_to(wanted.user, wanted.data)
    for path, text in wanted.files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o640)
        path.write_text(text)
    os.chown(SETTINGS, 0, grp.getgrnam(wanted.user).gr_gid)  # it may hold passwords
    UNIT.chmod(0o644)
    _link(wanted.link_to)
    _systemctl("daemon-reload")
    _systemctl("enable", SERVICE)
    if start:
        try:
            _systemctl("restart", SERVICE, seconds=START_SECONDS + STOP_SECONDS)
        except CommandError as error:
            problem, remedy = _last_error()
            raise CommandError(
                f"{SERVICE} is installed, but does not start: {problem}",
                f"{remedy}. Settings are in {SETTINGS}; systemd goes on trying",
            ) from error


def uninstall() -> None:
    """Stop the service and remove its files; data, settings and the user stay. CommandError if there is none."""
    _require_root_and_systemd()
    if not UNIT.exists():
        raise CommandError(f"there is no {UNIT}", "nothing is installed here; `bootlink install` does so")
    _systemctl("disable", "--now", SERVICE, seconds=STOP_SECONDS + _ANSWER_SECONDS)
    UNIT.unlink()
    if LINK.is_symlink():
        LINK.unlink()
    _systemctl("daemon-reload")


def _require_root_and_systemd() -> None:
    if os.geteuid() != 0:
        raise CommandError("only root may change the services of this machine", "run it as root")
    if not _RUNNING_SYSTEMD.exists():
        raise CommandError(
            "systemd does not run on this machine",
            "start `bootlink up` by what does; --print shows the unit that systemd would be given",
        )


def _make_user(user: str, home: Path) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        _run(*command, "--home-dir", str(home), "--shell", "/usr/sbin/nologin", user)


def _require_that_it_runs(wanted: Installation) -> None:
    """CommandError where the user may not reach the program: one below /root, mostly."""
    identity = pwd.getpwnam(wanted.user)
    try:
        done = subprocess.run(
            [*wanted.program, "--version"],
            user=identity.pw_uid,
            group=identity.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        raise CommandError(
            f"the user {wanted.user} cannot run {wanted.program[0]} ({why})",
            "put Bootlink where every user may read it, such as /opt/bootlink; or install with --user root",
        )


def _give_data_to(user: str, data: Path) -> None:
    """The data folder, and all in it, becomes the user's; also where another user's `up` has made it."""
    identity = pwd.getpwnam(user)
    if data.exists() and data.stat().st_uid == identity.pw_uid:
        return
    with folder.locked(data):
        for path in (data, *data.rglob("*")):
            os.chown(path, identity.pw_uid, identity.pw_gid, follow_symlinks=False)


def _link(command: Path | None) -> None:
    """Make the command found by its name, unless something of another's has that name."""
    if command is None or (LINK.exists() and not LINK.is_symlink()):
        return
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(command)


def _systemctl(*arguments: str, seconds: float = _ANSWER_SECONDS) -> None:
    _run("systemctl", *arguments, seconds=seconds)


def _run(*command: str, seconds: float = _ANSWER_SECONDS) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{' '.join(command)} did not run ({error})", "correct that, and install again") from error
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[0]
        raise CommandError(f"{' '.join(command)}: {why}", "correct that, and install again")


def _last_error() -> tuple[str, str]:
    """What was wrong and what to do, as `up` has told the journal last."""
    command = ["journalctl", "--unit", SERVICE, "--output", "cat", "--no-pager", "--lines", str(_LAST_LINES)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    problem, remedy = "it does not say why", f"look at journalctl -u {SERVICE}"
    for line in map(str.strip, said.splitlines()):
        if line.startswith(PROBLEM):
            problem = line.removeprefix(PROBLEM)
        elif line.startswith(REMEDY):
            remedy = line.removeprefix(REMEDY)
    return problem, remedy
