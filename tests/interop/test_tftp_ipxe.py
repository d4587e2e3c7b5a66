"""Debian's own iPXE, in QEMU, runs our scripts: the judge of every command, option and character in them.

The PC is on QEMU's user network, so nothing needs root: 10.0.2.2 is this machine's loopback. There is no disk behind
the portals here, so it ends at the screens; the boot from a real disk is the end-to-end test's.
"""

from __future__ import annotations

from pathlib import Path

from bootlink_events import PLANS_BUCKET, BootPlan, RefusalCause, mac_token
from bootlink_tftp.screens import SCREENS
from lab.boot_plans import MAC, plan, refused
from lab.chassis import bus_on
from lab.ipxe import ENTER, GATEWAY, pc
from lab.nats import NatsServer
from lab.tftp import address_of, serving

REFUSALS: tuple[RefusalCause, ...] = ("image_missing", "disk_full", "disabled", "shared_spindle")
CLOSED_PORT = 1  # nothing listens there


async def test_debians_ipxe_shows_each_screen_and_boots_on_as_its_plan_changes(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        bus_on(nats.url) as bus,
        serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as chassis,
    ):
        _, port = address_of(chassis)

        async def put(of: BootPlan) -> None:
            await bus.put(PLANS_BUCKET, mac_token(MAC), of.model_dump_json().encode())

        # autoexec.ipxe leads to the PC's own script, and its boot begins here.
        async with pc(f"tftp://{GATEWAY}:{port}/autoexec.ipxe") as screen:
            await screen.shows(
                "Bootlink: this PC is not known yet", f"bootlink client add {MAC}", "Trying again in 3 s"
            )
            await put(refused("no_link", "No link names an image for pc-001.", "bootlink link set pc-001 IMAGE"))
            await screen.shows(
                "Bootlink: no image is linked to this PC",
                "Cause: No link names an image for pc-001.",
                "What to do: bootlink link set pc-001 IMAGE",
                f"MAC address: {MAC}",
                "Client: pc-001",
                f"Boot server: tftp://{GATEWAY}:{port}",
            )
            for cause in REFUSALS:
                await put(refused(cause, f"What is wrong: {cause}.", f"What helps against {cause}."))
                await screen.press(ENTER)
                await screen.shows(
                    f"Bootlink: {SCREENS[cause].title}",
                    f"Cause: What is wrong: {cause}.",
                    f"What to do: What helps against {cause}.",
                    f"MAC address: {MAC}",
                    "Client: pc-001",
                    "Boot id: ",
                    "Trying again in 10 s.",
                )
            await put(plan(portals=()))
            await screen.press(ENTER)
            await screen.shows("Bootlink: no block store is ready", "See on the server: bootlink status")
            await put(plan(portals=(f"{GATEWAY}:{CLOSED_PORT}",)))
            await screen.press(ENTER)
            await screen.shows(
                "Bootlink: pc-001 boots win11 version 3, policy discard",
                "Could not open SAN device",
                "Bootlink: the disk of this PC did not answer",
            )
            await screen.shows(".attach.ipxe... ok", "Bootlink: the disk of this PC did not answer")
        assert chassis.health.counters["tftp_internal_errors"] == 0
        assert chassis.health.counters["tftp_broken_off"] == 0
