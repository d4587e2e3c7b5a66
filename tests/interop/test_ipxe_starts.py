"""QEMU's own PXE ROM (iPXE of 2019) starts a PC in all the ways a link can ask for, other than from a disk of ours: a
kernel with initrds and its command line (over HTTP), the PC's own disk, the shell. Nothing here needs root."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from bootlink.engines.nats import free_port
from bootlink_events import (
    PLANS_BUCKET,
    BootDiskAttached,
    BootDiskDetached,
    BootPlan,
    Menu,
    MenuEntry,
    Start,
    mac_token,
)
from bootlink_runtime import Bus
from guest.demo import CACHE
from guest.kernel import unpack_kernel
from guest.stage import make_directories
from guest.toolbox import run
from lab.blockstore import plan as disk_plan
from lab.blockstore import serving as blockstore_serving
from lab.boot_plans import MAC, plan
from lab.chassis import bus_on
from lab.ipxe import DOWN, ENTER, GATEWAY, pc
from lab.nats import NatsServer
from lab.registry import speaking_disk
from lab.speaking_kernel import speaking_kernel
from lab.tftp import address_of, loaders, serving

LINUX = Start(
    mode="kernel",
    kernel="linux/vmlinuz",
    initrds=("linux/initrd.img", "tiny"),
    arguments="console=ttyS0 host={client} boot={mac}",
)


PROMPT_ARGUMENTS = "console=ttyS0 quiet host={client}"
PROMPT = "kernel-link#"
KERNEL_SECONDS = 200.0  # a kernel starts in ten seconds of emulation, on a busy machine in many times that
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
cat /proc/cmdline
PS1='{PROMPT}' exec sh -i
"""


def shell_initrd(folder: Path) -> bytes:
    """An initramfs of BusyBox, whose init says what the kernel was told and is a shell."""
    folder.mkdir()
    make_directories(folder)
    shutil.copy("/bin/busybox", folder / "bin" / "busybox")
    (folder / "init").write_text(INIT)
    (folder / "init").chmod(0o755)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    archive = folder.with_suffix(".cpio")
    run("cpio", "-o", "-H", "newc", "-O", archive, cwd=folder, stdin="\n".join(names).encode())
    return archive.read_bytes()


async def put(bus: Bus, of: BootPlan) -> None:
    await bus.put(PLANS_BUCKET, mac_token(MAC), of.model_dump_json().encode())


def starting(start: Start, menu: Menu | None = None) -> BootPlan:
    return plan(disks=(), portals=(), client="pc-07").model_copy(update={"start": start, "menu": menu})


async def test_a_kernel_is_started_with_its_command_line_and_its_initrds_or_says_what_is_missing(
    nats: NatsServer, tmp_path: Path
) -> None:
    linux = loaders(tmp_path) / "linux"
    linux.mkdir()
    (linux / "vmlinuz").write_bytes(speaking_kernel())
    port = free_port("127.0.0.1")
    over_http = {"http_port": port, "script_urls": "http"}
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url, advertise=GATEWAY, **over_http) as chassis:
        await put(bus, starting(LINUX))
        # From the first script, which comes by TFTP, on to HTTP.
        async with pc(f"tftp://{GATEWAY}:{address_of(chassis)[1]}/autoexec.ipxe") as screen:
            await screen.shows(
                "Bootlink: pc-07 boots the kernel linux/vmlinuz",
                "Bootlink: a boot file of this PC is missing",
                "Cause: The kernel linux/vmlinuz or one of its initrds could not be fetched.",
                f"MAC address: {MAC}",
                "Boot id: ",
                f"Boot server: http://{GATEWAY}:{port}",
            )
            (linux / "initrd.img").write_bytes(b"initrd" * 1000)
            await screen.press(ENTER)
            await screen.shows(
                ".fetch.ipxe... ok",
                "/linux/vmlinuz... ok",
                "/linux/initrd.img ... ok",
                "/tiny... ok",
                f"ok initrd=initrd0 initrd=initrd1 console=ttyS0 host=pc-07 boot={MAC}+",
            )
        assert chassis.health.counters["http_requests"] >= 5
        assert chassis.health.counters["http_internal_errors"] == chassis.health.counters["tftp_broken_off"] == 0


@pytest.mark.timeout(400)
async def test_a_kernel_link_boots_linux_to_a_prompt(nats: NatsServer, tmp_path: Path) -> None:
    """Debian's kernel, which the demo's PCs boot from their disk, with an initrd of a shell: over HTTP, and no disk."""
    kernel = await asyncio.to_thread(unpack_kernel, CACHE, print)
    (linux := loaders(tmp_path) / "linux").mkdir()
    shutil.copy(kernel.image, linux / "vmlinuz")
    (linux / "initrd.img").write_bytes(shell_initrd(tmp_path / "initrd"))
    start = Start(mode="kernel", kernel="linux/vmlinuz", initrds=("linux/initrd.img",), arguments=PROMPT_ARGUMENTS)
    over_http = {"http_port": free_port("127.0.0.1"), "script_urls": "http"}
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url, advertise=GATEWAY, **over_http) as chassis:
        await put(bus, starting(start))
        async with pc(f"tftp://{GATEWAY}:{address_of(chassis)[1]}/autoexec.ipxe") as screen:
            await screen.shows("Bootlink: pc-07 boots the kernel linux/vmlinuz", "/linux/initrd.img")
            await screen.shows("initrd=initrd0 console=ttyS0 quiet host=pc-07", PROMPT, seconds=KERNEL_SECONDS)
            await screen.press(b"echo up $((40 + 2)) on $(uname -r)\r")
            await screen.shows(f"up 42 on {kernel.release}")


async def test_a_menu_leads_to_the_shell_and_to_the_own_disk(nats: NatsServer, tmp_path: Path) -> None:
    own = speaking_disk(tmp_path / "own.img", "Hello from the PC's own disk.")
    entries = (
        MenuEntry(name="link", title="Own disk", start=Start(mode="local")),
        MenuEntry(name="shell", title="iPXE shell", start=Start(mode="shell")),
    )
    menu = Menu(entries=entries, default="link", seconds=0)
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as chassis:
        _, port = address_of(chassis)
        await put(bus, starting(Start(mode="local"), menu))
        async with pc(f"tftp://{GATEWAY}:{port}/autoexec.ipxe", disk=own) as screen:
            await screen.shows("Bootlink: pc-07", "Own disk", "iPXE shell")
            await screen.press(DOWN)
            await screen.press(ENTER)
            await screen.shows("Bootlink: the shell of pc-07", "iPXE>")
            await put(bus, starting(Start(mode="local")))
            await screen.press(b"exit\r")
            await screen.shows("Bootlink: pc-07 boots from its own disk", "Hello from the PC's own disk.")


async def test_a_pc_without_a_disk_of_its_own_goes_on_to_what_its_firmware_boots_next(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with bus_on(nats.url) as bus, serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as chassis:
        _, port = address_of(chassis)
        await put(bus, starting(Start(mode="local")))
        async with pc(f"tftp://{GATEWAY}:{port}/autoexec.ipxe") as screen:
            await screen.shows("Bootlink: pc-07 boots from its own disk", "No bootable device.")


async def test_a_disk_to_install_on_stays_attached_while_the_firmware_goes_on(nats: NatsServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(512) + b"EFI PART" + bytes((16 << 20) - 520))  # a disk, and nothing that a BIOS starts
    async with (
        bus_on(nats.url) as bus,
        blockstore_serving(tmp_path) as store,
        serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as chassis,
    ):
        whole = disk_plan(empty, mac=MAC)
        disks = tuple(disk.model_copy(update={"policy": "keep"}) for disk in whole.disks)
        installing = whole.model_copy(
            update={"portals": (f"{GATEWAY}:{store.port}",), "disks": disks, "start": Start(keep_san=True)}
        )
        store.plans[MAC] = installing
        await put(bus, installing)
        async with pc(f"tftp://{GATEWAY}:{address_of(chassis)[1]}/autoexec.ipxe") as screen:
            await screen.shows("Bootlink: nothing starts from this disk. It stays attached", "No bootable device.")
            # The BIOS itself has looked for a boot sector there, through a session that iPXE opened anew for it.
            attached, detached = store.told.of(BootDiskAttached), store.told.of(BootDiskDetached)
            assert len(attached) - len(detached) == 1
