"""The journal: what was written is there after a restart, and a torn or corrupt line costs itself alone."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_dhcp import journal as journal_module
from bootlink_dhcp.journal import Journal


def save(journal: Journal) -> None:
    journal.write(journal.take())


def test_the_latest_value_of_each_key_survives(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    save(journal)
    journal.put("lease", "a", {"n": 1})
    journal.put("lease", "b", {"n": 2})
    journal.put("boot", "a", {"n": 3})
    save(journal)
    journal.put("lease", "a", {"n": 4})
    journal.put("lease", "b", None)
    save(journal)
    again = Journal(tmp_path / "j")
    assert list(again.of_kind("lease")) == [("a", {"n": 4})]
    assert list(again.of_kind("boot")) == [("a", {"n": 3})]
    assert again.unreadable == 0


def test_values_come_back_in_the_order_of_their_last_change(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    for key in "abca":
        journal.put("boot", key, {"at": 1})
        save(journal)
    assert [key for key, _ in Journal(tmp_path / "j").of_kind("boot")] == ["b", "c", "a"]


def test_a_file_cut_anywhere_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    for n in range(3):
        journal.put("lease", str(n), {"n": n})
    save(journal)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = list(Journal(path).of_kind("lease"))
        complete = len([line for line in whole[:cut].decode().split("\n") if line.endswith("]")])
        assert kept == [(str(n), {"n": n}) for n in range(complete)]


@given(st.binary(max_size=300))
def test_garbage_is_counted_and_skipped(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "j"
    path.write_bytes(b'["lease","a",{"n":1}]\n' + data + b'\n["lease","b",{"n":2}]\n')
    kept = dict(Journal(path).of_kind("lease"))
    assert kept["a"] == {"n": 1}
    assert kept["b"] == {"n": 2}


@pytest.mark.parametrize("line", ["{}", "[]", '["lease",1,{}]', '["lease","a",7]', "nonsense", '["a","b","c","d"]'])
def test_a_line_of_another_shape_is_counted(tmp_path: Path, line: str) -> None:
    (tmp_path / "j").write_text(line + "\n")
    assert Journal(tmp_path / "j").unreadable == 1


def test_the_file_is_rewritten_before_it_outgrows_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SLACK_LINES", 20)
    path = tmp_path / "j"
    journal = Journal(path)
    for n in range(1000):
        journal.put("lease", str(n % 3), {"n": n})
        save(journal)
        assert len(path.read_text().splitlines()) <= journal_module.SLACK_FACTOR * 3 + 20
    assert dict(Journal(path).of_kind("lease")) == {"0": {"n": 999}, "1": {"n": 997}, "2": {"n": 998}}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_failed_write_was_given_is_written_the_next_time(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    journal = Journal(folder / "j")
    journal.put("lease", "a", {"n": 1})
    batch = journal.take()
    with pytest.raises(OSError):
        journal.write(batch)
    journal.failed()
    assert journal.pending
    folder.mkdir()
    save(journal)
    assert dict(Journal(folder / "j").of_kind("lease")) == {"a": {"n": 1}}
    assert not journal.pending


def test_memory_is_bounded_while_a_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not return (a dead NFS server, say) while packets under forged names come in."""
    monkeypatch.setattr(journal_module, "SLACK_LINES", 100)
    journal = Journal(tmp_path / "j")
    hanging = journal.take()
    tracemalloc.start()
    try:
        for n in range(20_000):
            journal.put("boot", str(n % 5), {"n": n})
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100_000
    journal.write(hanging)
    save(journal)
    assert dict(Journal(tmp_path / "j").of_kind("boot")) == {str(n): {"n": 19_995 + n} for n in range(5)}
