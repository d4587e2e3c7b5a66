"""The command's super clients, own layers and jobs, on a running system."""

from __future__ import annotations

import re
import uuid

import pytest

from lab.disks import MIB, sparse_disk
from lab.up import Up, error_of

MAC = "52:54:00:aa:00:02"


@pytest.fixture(scope="module")
def room(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Up:
    """The system with an image of two versions, a client and a default link."""
    folder = tmp_path_factory.mktemp("images")
    up.query("image", "add", "win11", str(sparse_disk(folder / "1.img", 4 * MIB)))
    up.query("image", "add", "win11", str(sparse_disk(folder / "2.img", 4 * MIB)), "--new-version")
    up.query("client", "add", MAC, "--name", "desk-2")
    up.query("link", "set", "--default", "win11")
    return up


def test_a_super_client_is_made_shown_and_abandoned(room: Up) -> None:
    made = room.query("client", "super", "desk-2", "--image", "win11", "--version", "2")
    assert (made["client"], made["image"], made["base"]) == ("desk-2", "win11", 2)
    assert [one["client"] for one in room.query("client", "branches")] == ["desk-2"]
    shown = room.bootlink("client", "show", "desk-2").stdout
    assert re.search(r"super client +boots win11 \(version 2\)", shown)
    assert re.search(r"boots else +win11:production \(version 1\)", shown)
    problem, remedy = error_of(room.bootlink("client", "super", "desk-2", "--image", "win11"))
    assert problem == "desk-2 is on a branch of win11 already, upon version 2"
    assert "bootlink client abandon desk-2" in remedy
    assert room.query("client", "writebacks", "desk-2") == []
    problem, _ = error_of(room.bootlink("client", "commit", "desk-2", "--note", "nothing", "--json"))
    assert problem == "desk-2 has written nothing on its branch of win11 yet"
    assert "from its next boot on" in room.bootlink("client", "abandon", "desk-2").stdout
    assert room.query("client", "branches") == []
    problem, remedy = error_of(room.bootlink("client", "commit", "desk-2"))
    assert problem == "desk-2 is no super client"
    assert remedy == "make it one: bootlink client super desk-2 --image IMAGE"


def test_what_a_client_keeps_is_given_up_only_where_its_block_store_is_silent(room: Up) -> None:
    room.query("client", "add", "52:54:00:aa:00:03", "--name", "desk-3")
    problem, remedy = error_of(room.bootlink("client", "leave-node", "desk-3"))
    assert problem == "desk-3 keeps nothing on a block store"
    assert remedy == "bootlink client show desk-3 tells where its disk comes from"


def test_a_reboot_of_which_nothing_is_held_cannot_be_undone(room: Up) -> None:
    problem, remedy = error_of(room.bootlink("client", "undo-reboot", "desk-2"))
    assert problem == "nothing that desk-2 wrote and lost at a restart is held any more"
    assert "bootlink client writebacks" in remedy


def test_an_own_layer_is_set_shown_rebased_and_thrown_away(room: Up) -> None:
    link = room.query("link", "set", "desk-2", "win11", "--own-layer", "--version", "1")
    assert (link["own_layer"], link["version"], link["policy"]) == (True, 1, "keep")
    assert re.search(r"over +win11, version 1", room.bootlink("link", "own-layer", "desk-2").stdout)
    assert room.query("link", "rebase", "desk-2", "--version", "2")["version"] == 2  # nothing is lost of nothing
    assert room.query("link", "own-layer", "desk-2")["former_version"] == 1
    assert room.query("link", "rebase", "desk-2", "--undo")["version"] == 1
    link = room.query("link", "set", "desk-2", "win11", "--own-layer", "--policy", "discard")  # by a job
    assert (link["policy"], link["version"]) == ("discard", 1)
    problem, _ = error_of(room.bootlink("link", "drop-own-layer", "desk-2"))
    assert problem == "the link of desk-2 names its own layer"
    room.query("link", "set", "desk-2", "win11")
    assert "own layer of desk-2" in room.bootlink("link", "drop-own-layer", "desk-2").stdout


def test_jobs_are_listed_shown_and_over_when_they_are(room: Up) -> None:
    jobs = room.query("job", "list", "--kind", "client.commit")
    assert [(job["subject"], job["state"]) for job in jobs] == [("desk-2", "failed")]
    shown = room.bootlink("job", "show", jobs[0]["id"]).stdout
    assert re.search(r"problem +desk-2 has written nothing", shown)
    problem, _ = error_of(room.bootlink("job", "cancel", jobs[0]["id"]))
    assert problem == f"job {jobs[0]['id']} is over: failed"
    problem, remedy = error_of(room.bootlink("job", "show", str(uuid.uuid4())))
    assert "there is no job" in problem
    assert "bootlink job list" in remedy
    listing = room.bootlink("job", "list").stdout
    assert re.search(r"client\.commit +desk-2 +failed", listing)
