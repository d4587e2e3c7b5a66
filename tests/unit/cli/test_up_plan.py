"""What `up` runs, with which environment; and that one folder has one `up`."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bootlink.supervisor import folder
from bootlink.supervisor.plan import UpPlan, make_plan
from bootlink.supervisor.program import Program
from bootlink.supervisor.settings import ALL_SERVICES, UpSettings, services_named
from bootlink_runtime import StartupError

SETTINGS = UpSettings.model_validate({"data": "/srv/bl", "nats_port": 0})


def program(plan: UpPlan, name: str) -> Program:
    return next(p for p in plan.programs if p.name == name)


def test_services_get_the_engines_addresses_and_json_logs_and_only_the_registry_the_database() -> None:
    plan = make_plan(SETTINGS, ("registry", "blockstore"), {"PATH": os.environ["PATH"], "HTTP_PROXY": "x"})
    assert [p.name for p in plan.programs] == ["nats", "postgres", "registry", "blockstore"]
    registry, blockstore = program(plan, "registry").environment, program(plan, "blockstore").environment
    assert registry["BOOTLINK_NATS_URL"] == blockstore["BOOTLINK_NATS_URL"] == plan.nats_url
    assert registry["BOOTLINK_DATA"] == blockstore["BOOTLINK_DATA"] == "/srv/bl"
    assert registry["BOOTLINK_LOG_FORMAT"] == "json"
    assert registry["BOOTLINK_DATABASE_URL"].startswith("postgresql://")
    assert "BOOTLINK_DATABASE_URL" not in blockstore
    assert blockstore["HTTP_PROXY"] == "x"


def test_a_log_level_that_the_user_asks_for_is_also_shown() -> None:
    plan = make_plan(SETTINGS, ("blockstore",), {"BOOTLINK_LOG_LEVEL": "debug"})
    assert (program(plan, "nats").shown_level, program(plan, "blockstore").shown_level) == ("warning", "debug")


def test_servers_of_the_users_own_are_used_instead_of_embedded_ones() -> None:
    own = UpSettings.model_validate({"nats_url": "nats://far:4222", "database_url": "postgresql://far/bl"})
    plan = make_plan(own, ("registry", "blockstore"), {"BOOTLINK_DATABASE_URL": "postgresql://far/bl"})
    assert [p.name for p in plan.programs] == ["registry", "blockstore"]
    assert program(plan, "registry").environment["BOOTLINK_DATABASE_URL"] == "postgresql://far/bl"
    assert "BOOTLINK_DATABASE_URL" not in program(plan, "blockstore").environment


def test_the_cluster_key_is_for_those_who_derive_secrets_from_it() -> None:
    plan = make_plan(SETTINGS, ("registry", "blockstore"), {"PATH": os.environ["PATH"]})
    assert plan.secrets["BOOTLINK_CLUSTER_KEY"] == Path("/srv/bl/cluster.key")
    assert program(plan, "blockstore").environment["BOOTLINK_CLUSTER_KEY_FILE"] == "/srv/bl/cluster.key"
    assert "BOOTLINK_CLUSTER_KEY_FILE" not in program(plan, "registry").environment
    assert list(make_plan(SETTINGS, ("registry",), {"PATH": os.environ["PATH"]}).secrets) == ["BOOTLINK_ADMIN_TOKEN"]


def test_a_cluster_key_of_the_users_own_is_used_and_shown_to_nobody_else() -> None:
    plan = make_plan(
        SETTINGS, ("registry", "blockstore"), {"PATH": os.environ["PATH"], "BOOTLINK_CLUSTER_KEY": "k" * 32}
    )
    assert "BOOTLINK_CLUSTER_KEY" not in plan.secrets
    assert program(plan, "blockstore").environment["BOOTLINK_CLUSTER_KEY"] == "k" * 32
    assert "BOOTLINK_CLUSTER_KEY_FILE" not in program(plan, "blockstore").environment
    assert "BOOTLINK_CLUSTER_KEY" not in program(plan, "registry").environment


def test_the_administrators_token_is_the_registrys_and_the_commands_own_token_nobodys() -> None:
    environment = {"PATH": os.environ["PATH"], "BOOTLINK_TOKEN": "t", "BOOTLINK_TOKEN_FILE": "/t"}
    plan = make_plan(SETTINGS, ("registry", "blockstore"), environment)
    assert plan.token_file == Path("/srv/bl/admin.token")
    assert program(plan, "registry").environment["BOOTLINK_ADMIN_TOKEN_FILE"] == "/srv/bl/admin.token"
    assert "BOOTLINK_ADMIN_TOKEN_FILE" not in program(plan, "blockstore").environment
    for name in ("registry", "blockstore"):
        assert not {"BOOTLINK_TOKEN", "BOOTLINK_TOKEN_FILE"} & program(plan, name).environment.keys()
    own = make_plan(SETTINGS, ("registry", "blockstore"), environment | {"BOOTLINK_ADMIN_TOKEN": "a" * 32})
    assert own.token_file is None
    assert program(own, "registry").environment["BOOTLINK_ADMIN_TOKEN"] == "a" * 32
    assert "BOOTLINK_ADMIN_TOKEN" not in program(own, "blockstore").environment


def test_the_cluster_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    folder.keep_secret(path, instead="BOOTLINK_CLUSTER_KEY")
    first = path.read_text()
    folder.keep_secret(path, instead="BOOTLINK_CLUSTER_KEY")
    assert path.read_text() == first
    assert len(bytes.fromhex(first)) == folder.SECRET_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StartupError, match=r"cluster\.key"):
        folder.keep_secret(tmp_path / "missing" / "cluster.key", instead="BOOTLINK_CLUSTER_KEY")


def test_without_a_registry_there_is_no_postgresql() -> None:
    assert [p.name for p in make_plan(SETTINGS, ("blockstore",), {}).programs] == ["nats", "blockstore"]


def test_the_block_store_serves_this_machine_alone_unless_told_otherwise() -> None:
    assert program(make_plan(SETTINGS, ("blockstore",), {}), "blockstore").environment["BOOTLINK_BLOCKSTORE_HOST"] == (
        "127.0.0.1"
    )
    told = make_plan(SETTINGS, ("blockstore",), {"BOOTLINK_BLOCKSTORE_HOST": "10.1.2.3"})
    assert program(told, "blockstore").environment["BOOTLINK_BLOCKSTORE_HOST"] == "10.1.2.3"


def test_the_registry_stops_after_the_other_services_and_before_the_engines() -> None:
    tiers = {p.name: p.tier for p in make_plan(SETTINGS, ("registry", "blockstore"), {}).programs}
    assert tiers["nats"] < tiers["postgres"] < tiers["registry"] < tiers["blockstore"]


def test_services_are_named_with_commas_and_come_in_the_order_of_their_start() -> None:
    assert services_named("tftp, registry") == ("registry", "tftp")
    assert services_named(",".join(ALL_SERVICES)) == ALL_SERVICES
    for wrong in ("", ",", "registry,ftp"):
        with pytest.raises(ValueError, match="no service is called"):
            services_named(wrong)


def test_a_folder_has_one_up_at_a_time_and_is_free_again_afterwards(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    with folder.locked(data):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # another process: the same one may take its own flock anew
            try:
                with folder.locked(data):
                    os._exit(0)
            except StartupError as error:
                os.write(writer, error.problem.encode())
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert os.read(reader, 500).decode() == f"another `bootlink up` (process {os.getpid()}) is using {data}"
        os.close(reader)
        os.close(writer)
    with folder.locked(data):
        pass


def test_leftover_processes_of_a_killed_up_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LEFTOVER_SECONDS", 0.2)
    leftover = os.open(tmp_path / "up.lock", os.O_RDWR | os.O_CREAT)
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    os.write(leftover, f"{gone}\n".encode())  # the killed `up`; a child of its still holds the lock
    fcntl.flock(leftover, fcntl.LOCK_EX)
    with pytest.raises(StartupError, match="processes of a former"), folder.locked(tmp_path):
        pass
    os.close(leftover)
    with folder.locked(tmp_path):
        pass
