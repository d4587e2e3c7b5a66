"""`bootlink install` on a machine that a real systemd runs: started, watched, restarted under a PC that goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from bootlink_events import BootId, initiator_iqn, target_iqn
from lab.blockstore import make_image
from lab.disks import MIB
from lab.iscsi import Initiator
from lab.netns import Cable, entered
from lab.systemd import SystemdHost
from lab.up import BOOTLINK, error_of

MAC = "52:54:00:12:34:56"
SERVER = "10.77.0.1"
ISCSI = 3260
BEAT_LIMIT = 3  # seconds; in place of the unit's minute


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    with Cable() as made:
        yield made


@pytest.fixture(scope="module")
def machine(cable: Cable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    """A machine on which Bootlink is installed and runs, with an image that every PC is linked to."""
    folder = tmp_path_factory.mktemp("systemd")
    with SystemdHost(cable.server, folder) as host:
        host.run(*BOOTLINK, "install", "--interface", cable.server_card)
        image = make_image(folder / "gold.img", 8 * MIB)
        host.run("mkdir", "/images")
        with image.open("rb") as data:
            subprocess.run(host.command("tee", "/images/gold.img"), stdin=data, stdout=subprocess.DEVNULL, check=True)
        host.run("bootlink", "image", "add", "gold", "/images/gold.img")
        host.run("bootlink", "link", "set", "--default", "gold")
        host.run("bootlink", "client", "add", MAC, "--name", "pc-07")
        yield host


def eventually(holds: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def test_it_is_ready_when_systemd_says_so_and_runs_as_a_user_of_its_own(machine: SystemdHost) -> None:
    assert machine.about("bootlink", "ActiveState") == "active"
    assert machine.about("bootlink", "StatusText") == "nats, postgres, registry, blockstore, tftp, dhcp ready"
    assert machine.run("systemctl", "is-enabled", "bootlink") == "enabled"
    main = machine.about("bootlink", "MainPID")
    assert machine.run("ps", "-o", "user=", "-p", main) == "bootlink"
    users = set(machine.run("ps", "-o", "user=", "--ppid", main).split())
    assert users == {"bootlink"}
    status = json.loads(machine.run("bootlink", "status", "--json"))
    assert {s["service"]: s["ready"] for s in status["services"]} == dict.fromkeys(
        ("registry", "blockstore", "tftp", "dhcp"), True
    )
    assert machine.run("stat", "-c", "%U %a", "/var/lib/bootlink/admin.token") == "bootlink 600"


def test_systemd_finds_nothing_to_complain_of_in_the_unit(machine: SystemdHost) -> None:
    done = machine.tried("systemd-analyze", "verify", "/etc/systemd/system/bootlink.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_let_do_what_it_needs_and_little_else(machine: SystemdHost) -> None:
    """Under the unit's own restrictions, image work can still be kept off the network."""
    unit = machine.run("cat", "/etc/systemd/system/bootlink.service").splitlines()
    restrictions = [part for line in unit if line.startswith(("Restrict", "SystemCall")) for part in ("-p", line)]
    inside = ("systemd-run", "--quiet", "--wait", "--pipe", "-p", "User=bootlink", "-p", "NoNewPrivileges=yes")

    def ends(*command: str) -> int:
        return machine.tried(*inside, *restrictions, *command).returncode

    assert ends("unshare", "--user", "--net", "true") == 0
    assert ends("unshare", "--user", "--mount", "true") != 0
    assert ends("python3", "-c", "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)") == 0
    assert ends("python3", "-c", "import socket; socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)") != 0
    machine.run("systemd-analyze", "security", "--threshold=40", "bootlink")  # of 100; it was 52 without these


def test_the_journal_has_the_level_of_each_line(machine: SystemdHost) -> None:
    def entries(*options: str) -> list[str]:
        lines = machine.run("journalctl", "--unit", "bootlink", "--output", "json", "--no-pager", *options)
        return [json.loads(line)["MESSAGE"] for line in lines.splitlines()]

    assert any(entry.startswith("ready: api http://127.0.0.1:8600") for entry in entries())
    told = len(entries("--priority", "err"))
    victim = machine.run("pgrep", "-f", "bootlink_tftp")
    machine.run("kill", "-9", victim)
    eventually(lambda: len(entries("--priority", "err")) > told, "an error in the journal")
    assert entries("--priority", "err")[-1].startswith("tftp: died with status -9; starts again in ")
    eventually(lambda: machine.about("bootlink", "StatusText").endswith("dhcp ready"), "all ready again")


async def test_a_pc_goes_on_with_what_it_wrote_when_the_service_is_restarted(
    machine: SystemdHost, cable: Cable
) -> None:
    boot, mine = BootId.mint(), b"mine" * 1024
    who = {"name": initiator_iqn(MAC, boot), "target": target_iqn(MAC)}
    with entered(cable.server):
        pc = await Initiator.logged_in(SERVER, ISCSI, **who)
        await pc.write(MIB, mine)
        before = machine.about("bootlink", "MainPID")
        await asyncio.to_thread(machine.run, "systemctl", "restart", "bootlink")
        assert await pc.gone()
        await pc.close()
        assert machine.about("bootlink", "MainPID") != before
        again = await Initiator.logged_in(SERVER, ISCSI, **who)
        assert await again.read(MIB, len(mine)) == mine
        await again.close()
    assert machine.about("bootlink", "Result") == "success"  # it stopped by itself, within its time


def test_a_supervisor_that_hangs_is_started_anew_with_all_its_children(machine: SystemdHost) -> None:
    machine.run("mkdir", "-p", "/run/systemd/system/bootlink.service.d")
    shorter = f"printf '[Service]\\nWatchdogSec={BEAT_LIMIT}\\n' > /run/systemd/system/bootlink.service.d/watchdog.conf"
    machine.run("sh", "-c", shorter)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "bootlink")
    hung = machine.about("bootlink", "MainPID")
    machine.run("kill", "-STOP", hung)
    eventually(
        lambda: (
            machine.about("bootlink", "MainPID") not in ("0", hung)
            and machine.about("bootlink", "ActiveState") == "active"
        ),
        "another supervisor",
    )
    assert len(machine.run("pgrep", "-f", "bootlink_blockstore").split()) == 1
    machine.run("rm", "-r", "/run/systemd/system/bootlink.service.d")
    machine.run("systemctl", "daemon-reload")


def test_the_same_command_installs_anew_and_keeps_the_settings(machine: SystemdHost, cable: Cable) -> None:
    machine.run("sh", "-c", "echo BOOTLINK_LOG_LEVEL=debug >> /etc/bootlink/bootlink.env")
    machine.run(*BOOTLINK, "install", "--interface", cable.server_card, "--no-start")
    settings = machine.run("cat", "/etc/bootlink/bootlink.env").splitlines()
    assert [line for line in settings if not line.startswith("#")] == [
        "BOOTLINK_DATA=/var/lib/bootlink",
        f"BOOTLINK_DHCP_INTERFACE={cable.server_card}",
        "BOOTLINK_LOG_LEVEL=debug",
    ]
    assert [i["name"] for i in json.loads(machine.run("bootlink", "image", "list", "--json"))] == ["gold"]


def test_a_service_that_cannot_start_says_why_at_once(machine: SystemdHost, cable: Cable) -> None:
    machine.run("sed", "-i", "s/^BOOTLINK_LOG_LEVEL=.*/BOOTLINK_DHCP_POOL=nonsense/", "/etc/bootlink/bootlink.env")
    problem, remedy = error_of(machine.tried(*BOOTLINK, "install", "--interface", cable.server_card))
    assert problem == "bootlink.service is installed, but does not start: dhcp: 'nonsense' is no pool"
    assert remedy.startswith("write it like 10.77.0.100-10.77.0.199. Settings are in /etc/bootlink/bootlink.env")
    machine.run("sed", "-i", "/BOOTLINK_DHCP_POOL/d", "/etc/bootlink/bootlink.env")
    eventually(lambda: machine.about("bootlink", "ActiveState") == "active", "the next try of systemd")


def test_it_goes_away_and_leaves_what_is_the_users(machine: SystemdHost) -> None:
    machine.run(*BOOTLINK, "uninstall")
    assert machine.tried("systemctl", "cat", "bootlink").returncode != 0
    assert machine.run("pgrep", "-c", "-u", "bootlink", check=False) == "0"
    assert machine.tried("test", "-e", "/usr/local/bin/bootlink").returncode == 1
    machine.run("test", "-e", "/etc/bootlink/bootlink.env", "-a", "-d", "/var/lib/bootlink/postgres")
    problem, _ = error_of(machine.tried(*BOOTLINK, "uninstall"))
    assert problem == "there is no /etc/systemd/system/bootlink.service"
