"""Scripts of clients that start without a disk of ours, or from it in a way of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import BootPlan, Menu, MenuEntry, Start, StartMode
from bootlink_tftp.ipxe import Arguments, Efi, UnsafeValue
from bootlink_tftp.scripts import Asker, render
from lab.boot_plans import BOOT_ID, MAC, disk, plan
from lab.ipxe_script import BASE, check

CONSOLE_ROWS = 25
ASKER = Asker(MAC, BOOT_ID, BASE)
LINUX = Start(
    mode="kernel",
    kernel="linux/vmlinuz",
    initrds=("linux/initrd.img", "https://images.example/extra.cpio"),
    arguments="root=/dev/nfs nfsroot=10.0.0.1:/srv/{client} id={boot_id} mac={mac} from={server}",
)


def starting(start: Start) -> BootPlan:
    from_disk = start.mode == "disk"
    return plan(disks=None if from_disk else (), portals=("10.77.0.1:3260",) if from_disk else ()).model_copy(
        update={"start": start}
    )


def commands(start: Start) -> list[list[str]]:
    script = render(ASKER, starting(start), on_link=frozenset())
    assert script.cause is None
    assert script.kind == ("sanboot" if start.mode == "disk" else start.mode)
    return check(script.text, starts=True)


def test_a_kernel_is_fetched_with_its_initrds_and_told_its_command_line() -> None:
    found = commands(LINUX)
    here = f"{BASE}/boot/{BOOT_ID}/linux"
    assert [command for command in found if command[0] in ("imgfree", "kernel", "initrd", "boot")] == [
        ["imgfree"],
        [
            *("kernel", f"{here}/vmlinuz", "initrd=initrd0", "initrd=initrd1", "root=/dev/nfs"),
            *("nfsroot=10.0.0.1:/srv/pc-001", f"id={BOOT_ID}", f"mac={MAC}", f"from={BASE}"),
        ],
        ["initrd", "--name", "initrd0", f"{here}/initrd.img"],
        ["initrd", "--name", "initrd1", "https://images.example/extra.cpio"],
        ["boot"],
    ]
    chained = [command[3].rpartition("/")[2] for command in found if command[0] == "chain"]
    assert chained == ["52-54-00-12-34-56.fetch.ipxe", "52-54-00-12-34-56.launch.ipxe"]


def test_the_own_disk_is_left_to_uefi_and_started_on_a_bios() -> None:
    found = commands(Start(mode="local"))
    assert found[1:] == [
        ["iseq", "${platform}", "efi"],
        ["exit", "1"],
        ["sanboot", "--no-describe", "--drive", "0x80"],
        ["exit", "1"],
    ]


def test_after_the_shell_the_script_is_asked_for_again() -> None:
    names = [command[0] for command in commands(Start(mode="shell"))]
    assert names[names.index("shell") + 1] == "chain"


def test_an_efi_program_is_named_with_its_backslashes() -> None:
    for path in ("EFI/Boot/bootx64.efi", "EFI\\Boot\\bootx64.efi"):
        found = commands(Start(file=path))
        assert ["sanboot", "--filename", "EFI\\Boot\\bootx64.efi"] in found
    with pytest.raises(UnsafeValue):
        Efi("EFI/my boot.efi")


def test_a_disk_to_install_on_stays_attached_when_it_does_not_boot() -> None:
    found = commands(Start(keep_san=True))
    sanboot = found.index(["sanboot"])
    assert found[sanboot - 1] == ["set", "keep-san", "1"]
    assert found[sanboot + 2] == ["exit", "1"]
    assert ["sanunhook"] not in found
    assert ["set", "keep-san", "1"] not in commands(Start(file="EFI/a.efi"))


def test_a_menu_holds_disks_and_other_starts_side_by_side() -> None:
    entries = (
        MenuEntry(name="link", title="Own disk", start=Start(mode="local")),
        MenuEntry(name="windows", title="Windows", disks=(disk(),), start=Start(file="EFI/a.efi", keep_san=True)),
        MenuEntry(name="linux", title="Linux", start=LINUX),
        MenuEntry(name="shell", title="Shell", start=Start(mode="shell")),
    )
    offering = plan(disks=()).model_copy(
        update={"menu": Menu(entries=entries, default="link", seconds=5), "start": Start(mode="local")}
    )
    script = render(ASKER, offering, on_link=frozenset())
    assert (script.kind, script.menu) == ("sanboot", True)
    found = check(script.text, starts=True)
    assert ["set", "menu-file", "EFI\\a.efi"] in found
    assert ["sanhook", "iscsi:10.77.0.1::3260:0:${menu-target}"] in found
    assert [command[3].rpartition("/")[2].partition(".")[2] for command in found if command[0] == "chain"] == [
        *("fetch.${menu-entry}.ipxe", "launch.${menu-entry}.ipxe"),
        "${menu-entry}.ipxe",  # after the shell
        *("attach.${menu-entry}.ipxe", "start.${menu-entry}.ipxe"),
    ]
    # And a menu that has no disk at all attaches none.
    without = offering.model_copy(update={"menu": Menu(entries=(entries[0], entries[3]), default="link", seconds=5)})
    found = check(render(ASKER, without, on_link=frozenset()).text, starts=True)
    assert "sanhook" not in [command[0] for command in found]


def test_what_was_chosen_to_keep_its_disk_does_not_decide_for_what_is_chosen_next() -> None:
    entries = (
        MenuEntry(name="link", title="Install", disks=(disk(),), start=Start(keep_san=True)),
        MenuEntry(name="windows", title="Windows", disks=(disk(),)),
    )
    menu = Menu(entries=entries, default="windows", seconds=5)
    text = render(ASKER, plan().model_copy(update={"menu": menu}), on_link=frozenset()).text
    found = check(text, starts=True)
    # iPXE keeps its settings from one script to the next: after "link" failed to attach, "windows" is chosen.
    assert found.index(["clear", "keep-san"]) < next(n for n, row in enumerate(found) if row[0] == "menu")


@pytest.mark.parametrize("name", ["again", "attach", "chosen", "menu", "now", "fetch"])
def test_no_entrys_name_makes_a_label_twice(name: str) -> None:
    entries = (
        MenuEntry(name=name, title="Shell", start=Start(mode="shell")),
        MenuEntry(name="windows", title="Windows", disks=(disk(),)),
    )
    menu = Menu(entries=entries, default="windows", seconds=5)
    text = render(ASKER, plan().model_copy(update={"menu": menu}), on_link=frozenset()).text
    labels = [line for line in text.splitlines() if line.startswith(":")]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("failure", ["fetch", "launch"])
def test_a_kernels_screens_fit_the_console(failure: str) -> None:
    long = "linux/" + "k" * 190
    text = render(ASKER, starting(Start(mode="kernel", kernel=long)), on_link=frozenset()).text
    screen = text[text.index(f":start_{failure}") :].partition("chain")[0]
    assert screen.count("echo") + screen.count("prompt") <= CONSOLE_ROWS - 5


@given(
    st.sampled_from(["local", "shell", "kernel", "disk"]),
    *[st.text(st.sampled_from("ab/.:-= $\u007b\u007d|&;#`'\"\\\n\r\t<>%~mac"), max_size=20) for _ in range(4)],
)
def test_no_text_of_a_start_becomes_a_command(
    mode: StartMode, kernel: str, initrd: str, arguments: str, file: str
) -> None:
    start = Start(mode=mode, kernel=kernel, initrds=(initrd,), arguments=arguments, file=file)
    script = render(ASKER, starting(start), on_link=frozenset())
    found = check(script.text, starts=True)
    assert script.kind == "screen" or sum(command[0] == "boot" for command in found) == (mode == "kernel")
    assert sum(command[0] == "shell" for command in found) == (mode == "shell")


def test_arguments_know_their_fields_and_nothing_else() -> None:
    assert Arguments("a={mac}  b", {"mac": MAC}) == f"a={MAC} b"
    for wrong in ("{nothing}", "${net0/mac}", "a || b", "a;b", "#"):
        with pytest.raises(UnsafeValue):
            Arguments(wrong, {"mac": MAC})
