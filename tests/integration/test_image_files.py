"""Long work on images: what it makes, what it finds, and that a failure leaves everything as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.blockstore import make_image
from lab.chain import SIZE, Chain, shown
from lab.disks import MIB, digest, qemu_img, sparse_disk
from lab.file_systems import content_of, disk_of, file_system, require_sound
from lab.nats import NatsServer
from lab.registry import Registry, registry_on, until


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


async def hashed(registry: Registry, image: str, number: int) -> str:
    """The checksum of a version's layer, once the background job has computed it."""

    async def known() -> bool:
        return (await registry.get(f"/v1/images/{image}/versions/{number}"))["sha256"] is not None

    await until(known, "the checksum")
    return str((await registry.get(f"/v1/images/{image}/versions/{number}"))["sha256"])


# -- checksums ------------------------------------------------------------------------------------------------------


async def test_a_file_that_was_added_gets_its_checksum_in_the_background(registry: Registry, tmp_path: Path) -> None:
    disk = sparse_disk(tmp_path / "gold.img", SIZE)
    await registry.add_image("gold", disk)
    assert await hashed(registry, "gold", 1) == digest(disk)


async def test_verify_finds_a_flipped_bit_and_forgives_it_when_the_file_is_restored(
    registry: Registry, tmp_path: Path
) -> None:
    chain = Chain(tmp_path, 2)
    await chain.add_to(registry)
    for number in (1, 2):
        await hashed(registry, "gold", number)
    assert (await registry.result("/v1/images/gold/verify"))["sound"] is True
    base = chain.files[0].path
    kept, times = base.read_bytes(), base.stat()
    with base.open("r+b") as file:
        file.seek(len(kept) // 2)
        file.write(bytes([kept[len(kept) // 2] ^ 1]))
    os.utime(base, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that only the checksum can tell
    result = await registry.result("/v1/images/gold/verify")
    assert result["sound"] is False
    (finding,) = [layer for layer in result["layers"] if layer["finding"]]
    assert finding["path"] == str(base)
    assert "damaged" in finding["finding"]
    # Both versions stand on it, so that neither is published.
    for number in (1, 2):
        assert (await registry.get(f"/v1/images/gold/versions/{number}"))["fault"] == "corrupt"
    answer = await registry.http.put("/v1/images/gold/channels/production", json={"version": 1})
    assert answer.status_code == 409
    base.write_bytes(kept)
    os.utime(base, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (await registry.result("/v1/images/gold/verify"))["sound"] is True
    assert (await registry.get("/v1/images/gold/versions/2"))["fault"] is None


async def test_a_damaged_file_that_was_away_is_damaged_still_when_it_is_back(
    registry: Registry, tmp_path: Path
) -> None:
    chain = Chain(tmp_path, 1)
    await chain.add_to(registry)
    await hashed(registry, "gold", 1)
    base = chain.files[0].path
    times = base.stat()
    with base.open("r+b") as file:
        file.seek(times.st_size // 2)
        file.write(bytes([base.read_bytes()[times.st_size // 2] ^ 1]))
    os.utime(base, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (await registry.result("/v1/images/gold/verify"))["sound"] is False
    away = base.rename(tmp_path / "away")
    await registry.link("default", "", "gold")  # whereupon its files are looked at
    away.rename(base)
    await registry.link("default", "", "gold")
    assert (await registry.get("/v1/images/gold/versions/1"))["fault"] == "corrupt"


async def test_verify_names_what_is_gone_or_changed(registry: Registry, tmp_path: Path) -> None:
    chain = Chain(tmp_path, 2)
    await chain.add_to(registry)
    chain.files[0].path.touch()
    chain.files[1].path.unlink()
    result = await registry.result("/v1/images/gold/verify", version=2)
    assert {layer["finding"] for layer in result["layers"]} == {
        "the file is gone",
        "the file was changed after it was added",
    }
    assert result["sound"] is False


# -- merging --------------------------------------------------------------------------------------------------------


async def test_a_merge_shows_the_same_from_one_layer_and_keeps_the_content(registry: Registry, tmp_path: Path) -> None:
    chain = Chain(tmp_path, 3)
    await chain.add_to(registry)
    before = await registry.get("/v1/images/gold/versions/3")
    result = await registry.result("/v1/images/gold/merge")
    assert (result["version"], result["layers_before"], result["layers_after"]) == (3, 3, 1)
    after = await registry.get("/v1/images/gold/versions/3")
    assert (after["content"], after["layers"], after["owned"]) == (before["content"], 1, True)
    assert after["layer"] != before["layer"]
    path = Path(after["path"])
    assert path.parent == tmp_path / "data" / "images" / "gold"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert after["sha256"] == digest(path)
    assert await shown(registry, "gold", 3) == chain.shows[2]
    qemu_img("compare", "-f", "vpc", "-F", "raw", path, write(tmp_path / "shows.img", chain.shows[2]))
    # The file of version 3 is the user's, and nothing is read from it any more; versions 1 and 2 are as they were.
    assert result["released"] == [str(chain.files[2].path)]
    assert all(file.path.exists() for file in chain.files)
    assert await shown(registry, "gold", 2) == chain.shows[1]
    assert (await registry.http.delete("/v1/images/gold/versions/2")).status_code == 204
    assert (await registry.get("/v1/images/gold/versions/3"))["parent"] == 1


async def test_a_merge_onto_a_version_leaves_that_one_below(registry: Registry, tmp_path: Path) -> None:
    chain = Chain(tmp_path, 4)
    await chain.add_to(registry)
    result = await registry.result("/v1/images/gold/merge", version=4, onto=1)
    assert (result["layers_before"], result["layers_after"]) == (4, 2)
    after = await registry.get("/v1/images/gold/versions/4")
    assert after["format"] == "vhd-differencing"
    assert after["below"] == (await registry.get("/v1/images/gold/versions/1"))["layer"]
    assert await shown(registry, "gold", 4) == chain.shows[3]
    assert (await registry.result("/v1/images/gold/verify"))["sound"] is True


async def test_what_stands_on_a_merged_version_is_read_over_the_merged_layer(
    registry: Registry, tmp_path: Path
) -> None:
    chain = Chain(tmp_path, 4)
    await chain.add_to(registry)
    result = await registry.result("/v1/images/gold/merge", version=3)
    assert result["released"] == [str(chain.files[2].path)]
    after = await registry.get("/v1/images/gold/versions/4")
    assert (after["layers"], after["path"]) == (2, str(chain.files[3].path))
    assert after["below"] == (await registry.get("/v1/images/gold/versions/3"))["layer"]
    assert await shown(registry, "gold", 4) == chain.shows[3]
    assert (await registry.result("/v1/images/gold/verify"))["sound"] is True
    for number in (2, 1):
        assert (await registry.http.delete(f"/v1/images/gold/versions/{number}")).status_code == 204
    assert await shown(registry, "gold", 4) == chain.shows[3]


async def test_what_cannot_be_merged_is_told(registry: Registry, tmp_path: Path) -> None:
    chain = Chain(tmp_path, 2)
    await chain.add_to(registry)
    for body, status, words in (
        ({"version": 1}, 409, "from one layer already"),
        ({"version": 2, "onto": 1}, 409, "one layer above version 1 already"),
        ({"version": 1, "onto": 2}, 422, "does not stand on version 2"),
        ({"version": 7}, 404, "no version 7"),
        ({"channel": "beta"}, 404, "no channel beta"),
    ):
        answer = await registry.http.post("/v1/images/gold/merge", json=body)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


# -- compacting -----------------------------------------------------------------------------------------------------


async def test_free_space_makes_a_new_version_of_a_compaction(registry: Registry, tmp_path: Path) -> None:
    part = file_system(tmp_path / "part", "ext4", {"keep": b"what matters"}, 8 * MIB)
    (start,) = disk_of(tmp_path / "gold.img", [part], "gpt")
    before = (tmp_path / "gold.img").read_bytes()
    await registry.add_image("gold", tmp_path / "gold.img")
    result = await registry.result("/v1/images/gold/compact", publish="test", note="smaller")
    assert (result["outcome"], result["new_version"], result["notes"]) == ("new version", 2, [])
    assert result["after"] < MIB < 8 * MIB < result["before"]
    assert result["free_bytes"] > 4 * MIB
    image = await registry.get("/v1/images/gold")
    assert image["channels"] == {"production": 1, "test": 2}
    new, old = image["versions"]
    assert (new["parent"], new["note"], new["layers"], new["owned"]) == (1, "smaller", 1, True)
    assert new["content"] != old["content"]
    assert await shown(registry, "gold", 1) == before
    part.write_bytes((await shown(registry, "gold", 2))[start : start + 8 * MIB])
    require_sound(part, "ext4")
    assert content_of(part, "ext4", "keep") == b"what matters"


async def test_a_compaction_of_zeros_alone_leaves_the_version_what_it_is(registry: Registry, tmp_path: Path) -> None:
    disk = make_image(tmp_path / "gold.img", 4 * MIB)
    with disk.open("ab") as file:
        file.write(bytes(4 * MIB))  # stored, and not a hole
    await registry.add_image("gold", disk)
    before = await registry.get("/v1/images/gold/versions/1")
    result = await registry.result("/v1/images/gold/compact")
    assert (result["outcome"], result["free_bytes"]) == ("replaced", 0)
    assert result["zero_bytes"] == 4 * MIB
    assert result["released"] == [str(disk)]
    (after,) = (await registry.get("/v1/images/gold"))["versions"]
    assert (after["content"], after["owned"]) == (before["content"], True)
    assert after["disk_usage"] == result["after"] < result["before"] == before["disk_usage"]
    assert await shown(registry, "gold", 1) == disk.read_bytes()
    assert (await registry.result("/v1/images/gold/compact"))["outcome"] == "nothing to gain"
    assert len(list((tmp_path / "data" / "images" / "gold").iterdir())) == 1


# -- export ---------------------------------------------------------------------------------------------------------


async def test_an_export_is_one_whole_file_of_any_version(registry: Registry, tmp_path: Path) -> None:
    chain = Chain(tmp_path, 2)
    await chain.add_to(registry)
    for number, form, qemu in ((1, "raw", "raw"), (2, "qcow2", "qcow2")):
        path = tmp_path / f"out-{number}.{form}"
        result = await registry.result("/v1/images/gold/export", path=str(path), format=form, version=number)
        assert (result["version"], result["sha256"]) == (number, digest(path))
        qemu_img("compare", "-f", qemu, "-F", "raw", path, write(tmp_path / "shows.img", chain.shows[number - 1]))
    result = await registry.result("/v1/images/gold/export", path=str(tmp_path / "p.img"), format="raw")
    assert result["version"] == 2  # the channel production
    assert not list(tmp_path.glob("*.tmp-*"))


async def test_an_export_never_replaces_a_file(registry: Registry, tmp_path: Path) -> None:
    await registry.add_image("gold", sparse_disk(tmp_path / "gold.img", SIZE))
    taken = write(tmp_path / "taken.img", b"mine")
    for path, status in (
        (taken, 409),
        (tmp_path / "no" / "folder.img", 422),
        (tmp_path / "data" / "images" / "x.img", 422),
    ):
        answer = await registry.http.post("/v1/images/gold/export", json={"path": str(path), "format": "raw"})
        assert answer.status_code == status, answer.text
    assert taken.read_bytes() == b"mine"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
