"""D2: a block store that is killed loses nothing that it has acknowledged."""

from __future__ import annotations

from pathlib import Path

from rigs import kills

RECONNECTS = 50.0  # seconds that iPXE tries for: the least patient of the initiators (PROTOCOLS 2.1)


def test_what_was_acknowledged_survives_kill_9_and_the_client_goes_on_within_its_own_patience(tmp_path: Path) -> None:
    figures = kills.run(4, 20261123, tmp_path)
    assert float(figures["longest until the client reads again, seconds"]) < RECONNECTS
    assert int(figures["trims sent"]) > 0
    assert int(figures["acknowledged writes and trims"]) > 0
