"""Boot plans for tests: one that boots, and one that says why not."""

from __future__ import annotations

from bootlink_events import BootId, BootPlan, DiskPlan, LayerPlan, Refusal, RefusalCause, target_iqn

MAC = "52:54:00:12:34:56"
BOOT_ID = BootId.parse("01a206f2-72e2-7b5b-b3af-df7cc1fbeb41")


def layer() -> LayerPlan:
    return LayerPlan(id="l", path="/images/l.vhd", format="raw", virtual_size=512, file_size=512, mtime_ns=0)


def disk(lun: int = 0, image: str = "win11") -> DiskPlan:
    return DiskPlan(lun=lun, image=image, version=3, layers=(layer(),))


def plan(
    *,
    client: str = "pc-001",
    portals: tuple[str, ...] = ("10.77.0.1:3260",),
    disks: tuple[DiskPlan, ...] | None = None,
    target: str | None = None,
) -> BootPlan:
    """A plan that boots, but for what is asked to be different."""
    return BootPlan(
        mac=MAC,
        client=client,
        revision=1,
        target=target_iqn(MAC) if target is None else target,
        portals=portals,
        disks=(disk(),) if disks is None else disks,
    )


def refused(cause: RefusalCause, detail: str = "No link names an image.", remedy: str = "Link one.") -> BootPlan:
    """A plan that says why not."""
    refusal = Refusal(cause=cause, detail=detail, remedy=remedy)
    return BootPlan(mac=MAC, client="pc-001", revision=1, target=target_iqn(MAC), refusal=refusal)
