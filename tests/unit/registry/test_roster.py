"""Bulk import: what a file means, what is wrong with it, and what it takes to do it. All of it pure."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import Start
from bootlink_registry import further_disks, starts
from bootlink_registry.catalogue import Client, Link
from bootlink_registry.clients import ClientRow
from bootlink_registry.problems import Problem
from bootlink_registry.roster import Known, make_plan
from bootlink_registry.roster_text import COLUMNS, Format, Line, RosterRow, Wrong, read, write

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


def rows(text: str, form: Format = "csv") -> list[RosterRow]:
    lines, wrong = read(text, form)
    assert wrong == []
    return [line.row for line in lines]


def test_csv_names_its_columns_in_any_order_and_what_it_leaves_out_is_left_alone() -> None:
    (row,) = rows("Name, MAC ,disabled\npc-1,52-54-00-00-00-01,yes\n")
    assert (row.mac, row.name, row.disabled) == (A, "pc-1", True)
    assert row.model_fields_set == {"mac", "name", "disabled"}


def test_an_empty_cell_takes_away_and_a_name_it_leaves() -> None:
    (row,) = rows(f"mac,name,group,address,note,image,policy\n{A},,,,,,\n")
    assert row.model_fields_set == {"mac", "group", "address", "note", "image"}
    assert (row.group, row.address, row.note, row.image) == (None, None, "", None)


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeffmac,name\r\n{A},pc-1\r\n",
        f"mac;name\n{A};pc-1\n",
        f"mac,name\n\n{A},pc-1\n,\n",
        f'mac,name\n"{A}","pc-1"',
    ],
)
def test_what_spreadsheets_write_is_read(text: str) -> None:
    assert [(row.mac, row.name) for row in rows(text)] == [(A, "pc-1")]


def test_yaml_is_text_so_that_a_mac_address_without_quotes_is_no_number() -> None:
    (row,) = rows(f"- mac: {A}\n  name: 007\n  group: ~\n  note: 'null'\n  disabled: no\n  image: win11\n", "yaml")
    assert (row.mac, row.name, row.group, row.note, row.disabled) == (A, "007", None, "null", False)
    assert row.model_fields_set == {"mac", "name", "group", "note", "disabled", "image"}
    assert rows("", "yaml") == rows("# nothing\n", "yaml") == []


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_what_is_written_is_read_again(form: Format) -> None:
    full = dict.fromkeys(COLUMNS, None) | {"disabled": False, "note": ""}
    notes = [
        "'=1+1",
        "''-1",
        "'quoted'",
        "+49 30 1",
        '=SUM(1;2), "said"',
        "two\nlines",
        "- {a: b}",
        "ü # no comment",
        "null",
        "~",
    ]
    written = [
        full | {"mac": f"52:54:00:00:01:{n:02x}", "name": f"pc-{n}", "note": note} for n, note in enumerate(notes)
    ]
    linked = {"image": "win11", "version": 3, "policy": "keep", "chap": "mutual", "boot": '{"file": "EFI/a.efi"}'}
    written.append(full | {"mac": A, "name": "null", "address": IPv4Address("10.0.0.9"), "disabled": True} | linked)
    back = rows(write(written, form), form)
    assert [row.note for row in back] == [*notes, ""]
    last = back[-1]
    assert (last.name, last.address, last.disabled) == ("null", IPv4Address("10.0.0.9"), True)
    assert (last.image, last.channel, last.version, last.policy, last.chap) == ("win11", None, 3, "keep", "mutual")
    assert last.boot == Start(file="EFI/a.efi")


@pytest.mark.parametrize("note", ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(1)", "\uff1d1"])
def test_a_spreadsheet_takes_no_cell_for_a_formula(note: str) -> None:
    row = dict.fromkeys(COLUMNS, None) | {"mac": A, "name": "pc-1", "disabled": False, "note": note}
    cells = next(line for line in csv.reader(io.StringIO(write([row], "csv"))) if A in line)
    assert cells[COLUMNS.index("note")] == f"'{note}"
    assert [one.note for one in rows(f"mac,note\n{A},{note}\n")] == [note]  # as a person writes it


def test_every_wrong_row_is_named_with_its_line() -> None:
    text = "\n".join(
        [
            "mac,name,group,address,disabled,note,image,channel,version,policy",
            f"{A},pc-1,,,,,,,,",
            "52:54:00:00:00,pc-2,,,,,,,,",
            f"{B},Pc 3,Room 1,300.1.1.1,maybe,,,,,",
            f"{C},pc-4",
            f"{C},pc-4,,127.0.0.1,,,,,,",
            f"{C},pc-4,,,,,,test,,",
            f"{C},pc-4,,,,,win11,test,1,",
            f"{C},pc-4,,,,,win11,,0,super",
            f"{C},pc-4,,,,{'x' * 1001},,,,",
        ]
    )
    lines, wrong = read(text, "csv")
    assert [line.number for line in lines] == [2]
    assert [(one.line, one.problem.split(":")[0]) for one in wrong] == [
        (3, "mac"),
        (4, "address"),
        (4, "disabled"),
        (4, "group"),
        (4, "name"),
        (5, "it has 2 cells, and the header has 10"),
        (6, "address"),
        (7, "it names a channel or a version, and no image"),
        (8, "it names a channel and a version; name one of them"),
        (9, "policy"),
        (9, "version"),
        (10, "note"),
    ]


def test_every_wrong_client_of_a_yaml_list_is_named_with_its_line() -> None:
    text = f"""
- name: pc-1
- mac: {A}
  mac: {B}
- {A}
- mac: {A}
  tags: [a, b]
- mac: {A}
  colour: red
- mac: {A}
  policy: keep
- mac: {B}
"""
    lines, wrong = read(text, "yaml")
    assert [line.number for line in lines] == [12]
    assert [(one.line, one.problem) for one in wrong] == [
        (2, "mac: it is not there"),
        (3, "mac: it is there twice"),
        (5, "it is no mapping of names to values"),
        (6, "tags: it is no single value"),
        (8, "'colour' is nothing that a client has"),
        (10, "policy: it says how an image is linked, and none is named"),
    ]


@pytest.mark.parametrize(
    ("text", "form", "told"),
    [
        ("", "csv", "mac is not among them"),
        ("name,group\na,b\n", "csv", "mac is not among them"),
        ("mac,colour\n", "csv", "no column is called 'colour'"),
        ("mac,mac\n", "csv", "twice: mac"),
        ("mac,policy\n", "csv", "how an image is linked"),
        (f'mac,note\n{A},"open', "csv", "no CSV"),
        ("mac: x", "yaml", "no list of clients"),
        ("- a\n---\n- b", "yaml", "no YAML"),
        ("- {", "yaml", "no YAML"),
        ("- *gone", "yaml", "no YAML"),
        ("- \x00", "yaml", "no YAML"),
    ],
)
def test_what_is_no_table_at_all_is_told(text: str, form: Format, told: str) -> None:
    with pytest.raises(Problem) as caught:
        read(text, form)
    assert told in caught.value.detail


def test_aliases_make_no_more_of_a_file_than_its_lines() -> None:
    bomb = "- &a [x, x]\n" + "".join(f"- &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20))
    _, wrong = read(bomb, "yaml")
    assert len(wrong) == 21


@given(st.text(max_size=300), st.sampled_from(["csv", "yaml"]))
def test_any_text_is_read_or_refused(text: str, form: Format) -> None:
    for start in ("", f"mac,name\n{A},", "- mac: "):
        with contextlib.suppress(Problem):
            read(start + text, form)


# What an import does

NOW = datetime.now(UTC)


def known(*clients: Client, links: tuple[Link, ...] = ()) -> Known:
    return Known(
        clients={c.mac: ClientRow(c, enrolled=False, note="old", created=NOW) for c in clients},
        links={link.key: link for link in links},
        images=frozenset({"win11"}),
        channels=frozenset({("win11", "production")}),
        versions=frozenset({("win11", 1)}),
    )


def wants(*wanted: dict[str, object]) -> list[Line]:
    return [Line(number, RosterRow.model_validate(one)) for number, one in enumerate(wanted, 2)]


def test_new_clients_are_added_and_others_changed_where_the_file_says_otherwise() -> None:
    there = known(Client(A, "pc-1", "room-1"), Client(B, "pc-2", "room-1"))
    plan = make_plan(wants({"mac": A, "group": "room-2"}, {"mac": B, "name": "pc-2"}, {"mac": C, "note": "new"}), there)
    assert plan.wrong == []
    assert [(row.client.name, after.group, note) for row, after, note in plan.changed] == [("pc-1", "room-2", "old")]
    assert plan.added == [(Client(C, ""), "new")]
    assert plan.unchanged == 1


def test_two_clients_may_swap_their_names_and_addresses_in_one_file() -> None:
    one, two = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    there = known(Client(A, "pc-1", None, one), Client(B, "pc-2", None, two))
    swapped = wants({"mac": A, "name": "pc-2", "address": two}, {"mac": B, "name": "pc-1", "address": one})
    plan = make_plan(swapped, there)
    assert plan.wrong == []
    assert len(plan.changed) == 2


def test_all_clashes_are_named_within_the_file_and_with_what_is_there() -> None:
    there = known(Client(A, "pc-1", None, IPv4Address("10.0.0.1")))
    plan = make_plan(
        wants(
            {"mac": B, "name": "pc-1", "address": "10.0.0.1"},
            {"mac": C, "name": "pc-3", "address": "10.0.0.3"},
            {"mac": C, "name": "pc-4"},
            {"mac": "52:54:00:00:00:04", "name": "pc-3", "address": "10.0.0.3"},
        ),
        there,
    )
    assert sorted(plan.wrong) == [
        Wrong(2, "address: 10.0.0.1: it is reserved for pc-1 already"),
        Wrong(2, f"name: pc-1: {A} is called so already"),
        Wrong(4, f"mac: {C} is on line 3 already"),
        Wrong(5, "address: 10.0.0.3: line 3 has it already"),
        Wrong(5, "name: pc-3: line 3 has it already"),
    ]


def test_own_links_are_set_changed_and_taken_away() -> None:
    held = Link("client", A, "win11", "production", None, "keep", "mutual", title="Windows")
    there = known(Client(A, "pc-1"), Client(B, "pc-2"), links=(held,))
    same = make_plan(wants({"mac": A, "image": "win11"}, {"mac": B, "image": None}), there)
    assert (same.linked, same.unlinked, same.unchanged) == ([], [], 2), "policy and CHAP are not named, so they stay"
    other = make_plan(wants({"mac": A, "image": None}, {"mac": B, "image": "win11", "version": 1}), there)
    assert other.unlinked == [held]
    assert other.linked == [Link("client", B, "win11", None, 1)]


def test_how_a_pc_starts_is_a_word_or_what_is_to_be_said_of_it() -> None:
    kernel = Start(mode="kernel", kernel="linux/vmlinuz", initrds=("a", "b"), arguments="quiet host={client}")
    for start in (None, Start(mode="local"), Start(mode="shell"), kernel, Start(file="EFI/a.efi", keep_san=True)):
        assert starts.read(starts.written(start)) == start
    assert starts.written(Start(mode="local")) == "local"
    wrong = ('{"mode": "kernel", "kernel": "../x"}', '{"arguments": "a || b"}', '{"x": 1}')
    for text in ("nowhere", "{", "[]", *wrong, "[" * 9999):
        with pytest.raises(ValueError, match=r"neither local|no boot file|means something"):
            starts.read(text)


def test_an_own_link_without_an_image_is_set_kept_and_taken_away() -> None:
    own = Link("client", A, "", None, None, start=Start(mode="local"))
    there = known(Client(A, "pc-1"), Client(B, "pc-2"), links=(own,))
    local = "local"
    same = make_plan(wants({"mac": A, "image": None, "boot": local}, {"mac": B, "image": None, "boot": local}), there)
    assert same.unchanged == 1
    assert same.linked == [Link("client", B, "", None, None, start=Start(mode="local"))]
    changed = make_plan(wants({"mac": A, "image": "win11"}), there)
    assert changed.linked == [Link("client", A, "win11", "production", None)]
    assert make_plan(wants({"mac": A, "image": None}), there).unlinked == [own]
    wrong = make_plan(wants({"mac": A, "image": "win11", "boot": local}), there).wrong
    assert "no disk to boot" in wrong[0].problem


def test_a_link_to_what_is_not_there_is_named() -> None:
    own = Link("client", A, "win11", None, 1, own_layer=True)
    there = known(Client(A, "pc-1"), links=(own,))
    plan = make_plan(
        wants(
            {"mac": A, "image": "win11"},
            {"mac": B, "image": "win7"},
            {"mac": C, "image": "win11", "channel": "test"},
            {"mac": "52:54:00:00:00:04", "image": "win11", "version": 9},
        ),
        there,
    )
    assert [(one.line, one.problem.split(":")[0]) for one in plan.wrong] == [
        (2, "image"),
        (3, "image"),
        (4, "channel"),
        (5, "version"),
    ]
    assert "link rebase" in plan.wrong[0].problem


@pytest.mark.parametrize(
    "cell", ["", "1=games", "1=games 2=scratch:3/keep 7=win11:test 254=none", "1=none:production", "1=games:4"]
)
def test_further_disks_are_one_cell_that_is_read_as_it_was_written(cell: str) -> None:
    assert further_disks.write(further_disks.read(A, cell)) == cell
    assert further_disks.write(further_disks.read(A, "1=games:production")) == "1=games"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("games", "'games' is no disk"),
        ("0=games", "the column image"),
        ("255=games", "not from 1 to 254"),
        ("1=games 1=none", "LUN 1 is there twice"),
        ("1=none/keep", ""),
        ("1=Games", "is no name"),
        ("1=games:test:keep", "is no disk"),
        ("1=games:Test", "is no name"),
    ],
)
def test_a_cell_that_names_no_disks_is_told(cell: str, told: str) -> None:
    lines, wrong = read(f"mac,disks\n{A},{cell}\n", "csv")
    if not told:  # an image may be called none, and then something is said of it
        assert [link.image for link in lines[0].row.further()] == ["none"]
        return
    assert lines == []
    assert wrong[0].line == 2
    assert told in wrong[0].problem


@given(st.text(max_size=60))
def test_any_cell_is_read_or_refused(cell: str) -> None:
    with contextlib.suppress(ValueError):
        held = further_disks.read(A, cell)
        assert further_disks.read(A, further_disks.write(held)) == held


def test_own_links_for_further_disks_are_set_kept_and_taken_away() -> None:
    games = Link("client", A, "win11", "production", None, lun=1)
    own = Link("client", B, "win11", None, 1, "keep", lun=2, own_layer=True)
    there = dataclasses.replace(known(Client(A, "pc-1"), Client(B, "pc-2")), further={A: {1: games}, B: {2: own}})
    same = make_plan(wants({"mac": A, "disks": "1=win11"}, {"mac": B, "disks": "2=win11:1/keep"}), there)
    assert (same.linked, same.unlinked, same.unchanged, same.wrong) == ([], [], 2, [])
    assert make_plan(wants({"mac": A}, {"mac": B}), there).unchanged == 2, "without the column they stay"
    other = make_plan(wants({"mac": A, "disks": "2=win11:1 3=none"}), there)
    assert other.unlinked == [games]
    assert other.linked == [
        Link("client", A, "win11", None, 1, lun=2),
        Link("client", A, "", None, None, lun=3, start=Start(mode="none")),
    ]
    wrong = make_plan(wants({"mac": A, "disks": "1=win7"}, {"mac": B, "disks": ""}), there).wrong
    assert [(one.line, one.problem.partition(" of")[0]) for one in wrong] == [
        (2, "disks: LUN 1: there is no image 'win7'"),
        (3, "disks: LUN 2"),
    ]
