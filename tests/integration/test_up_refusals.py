"""What `bootlink up` refuses: one line that says what is wrong, one that says what to do, and nothing left running."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.netns import Cable, tool
from lab.up import FREE_PORTS, bootlink, error_of


@pytest.fixture
def data() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="bl-up-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_dhcp_without_a_network_card_names_the_cards_there_are(data: str) -> None:
    problem, remedy = error_of(bootlink("up", "--data", data))
    assert problem == "no network card is named for dhcp"
    assert "bootlink up --interface NAME; this machine has " in remedy
    assert "--services registry,blockstore" in remedy


def test_a_card_that_is_not_there_is_named_with_those_that_are(data: str) -> None:
    problem, remedy = error_of(bootlink("up", "--interface", "nix0", "--data", data))
    assert problem == "there is no network card nix0"
    assert "this machine has " in remedy


def test_a_card_without_an_address_says_how_to_give_it_one(data: str) -> None:
    with Cable(server_address="") as cable:
        inside = Cable.inside(cable.server)
        problem, remedy = error_of(bootlink("up", "--interface", cable.server_card, "--data", data, prefix=inside))
    assert problem == "lan0 has no IPv4 address"
    assert "ip addr add 10.77.0.1/24 dev lan0" in remedy


def test_dhcp_and_tftp_without_the_privilege_say_what_to_do(data: str) -> None:
    without = [tool("setpriv", "util-linux"), "--bounding-set", "-net_bind_service,-net_raw", "--"]
    with Cable() as cable:
        inside = [*Cable.inside(cable.server), *without]
        problem, remedy = error_of(bootlink("up", "--interface", cable.server_card, "--data", data, prefix=inside))
    assert problem.startswith("dhcp and tftp may not be run by user ")
    assert "as root" in remedy
    assert "--services registry,blockstore" in remedy


def test_a_taken_nats_port_is_named_with_its_setting(data: str, taken: int) -> None:
    env = FREE_PORTS | {"BOOTLINK_NATS_PORT": str(taken)}
    problem, remedy = error_of(bootlink("up", "--services", "registry", "--data", data, env=env))
    assert f"127.0.0.1:{taken}" in problem
    assert "BOOTLINK_NATS_PORT" in remedy


def test_a_service_on_a_taken_port_ends_the_whole_with_its_own_words(data: str, taken: int) -> None:
    env = FREE_PORTS | {"BOOTLINK_BLOCKSTORE_PORT": str(taken)}
    problem, remedy = error_of(bootlink("up", "--services", "registry,blockstore", "--data", data, "--json", env=env))
    assert problem.startswith("blockstore: the iSCSI portal cannot listen on 127.0.0.1:")
    assert "BOOTLINK_BLOCKSTORE_PORT" in remedy


def test_a_setting_that_is_no_port_is_named(data: str) -> None:
    problem, _ = error_of(bootlink("up", "--services", "registry", "--data", data, env={"BOOTLINK_NATS_PORT": "x"}))
    assert "BOOTLINK_NATS_PORT" in problem


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem, remedy = error_of(bootlink("up", "--services", "registry", "--data", str(tmp_path / "file" / "data")))
    assert "cannot be used" in problem
    assert "--data" in remedy


def test_an_unknown_service_is_a_wrong_usage() -> None:
    done = bootlink("up", "--services", "registry,ftp")
    assert done.returncode == 2
    assert "no service is called ftp" in done.stderr.replace("\n", " ")
