"""Hostile iSCSI. The one invariant: never an exception that nobody foresaw, never more memory than the named limits; a
wrong PDU gets the RFC's reject or a closed connection, and another client's reads go on (see `rigs.pdus`)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.session import _HANDLERS as HANDLERS
from bootlink_blockstore.session import Session
from lab.session_bench import MemoryDisk
from rigs import pdus
from rigs.figures import Violation

DISK = MemoryDisk(pdus.DISK_SIZE)


@settings(max_examples=300)
@given(st.randoms(use_true_random=False))
def test_no_conversation_breaks_a_session(random: Random) -> None:
    pdus.case(random, DISK)


def test_a_thousand_conversations_and_another_client_that_reads_meanwhile(tmp_path: Path) -> None:
    figures = pdus.run(1_000, 20261124, tmp_path)
    assert int(figures["logins"]) > 200, "most of what is fuzzed lies behind the login"
    assert int(figures["rejects"]) > 20
    assert int(figures["PDUs mutated"]) > 500
    assert int(figures["reads of another client meanwhile"]) >= pdus.READS


def test_the_rig_finds_a_session_that_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bug(*_: object) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(Session, "_nop_out", bug)
    monkeypatch.setitem(HANDLERS, 0, bug)
    with pytest.raises(Violation, match="planted"):
        pdus.run(300, 1, tmp_path)


def test_the_rig_finds_a_session_that_keeps_too_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pdus, "HELD_LIMIT", 4096)  # any write that waits for its data holds more
    with pytest.raises(Violation, match="holds"):
        pdus.run(300, 1, tmp_path)
