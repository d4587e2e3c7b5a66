"""A script as iPXE takes it apart, and what one of ours may hold."""

from __future__ import annotations

import re

BASE = "tftp://10.77.0.1"  # of the server that the scripts of tests name
# Commands of Debian's iPXE of 2019 (read from the strings of snponly.efi) that our scripts use.
START_COMMANDS = {"iseq", "exit", "shell", "imgfree", "kernel", "initrd", "boot"}
COMMANDS = {"echo", "set", "clear", "sanhook", "sanboot", "sanunhook", "prompt", "chain", "goto", "isset", "dhcp"}
MENU_COMMANDS = {"menu", "item", "choose", "iseq", "exit"}
MENU_SETTINGS = {"${menu-entry}", "${menu-target}", "${menu-image}", "${menu-file}", "${keep-san}"}


def commands(text: str) -> list[list[str]]:
    """A script as iPXE takes it apart (src/image/script.c, src/core/exec.c): tokens of each command in turn."""
    first, *lines = text.split("\n")
    assert first == "#!ipxe"
    found: list[list[str]] = []
    for line in lines:
        assert not line.endswith("\\")
        tokens = line.split()
        if tokens and tokens[0].startswith(":"):
            tokens = tokens[1:]
        command: list[str] = []
        for token in [*tokens, ";"]:
            assert not token.startswith("#")
            if token in ("||", "&&", ";"):
                if command:
                    found.append(command)
                command = []
            else:
                command.append(token)
    return found


def check(text: str, *, starts: bool = False) -> list[list[str]]:
    """Only our commands, only the settings that we mean, every goto has its label, echo takes no option. `starts`: what
    starts without a disk, too."""
    text.encode("ascii")
    assert "\r" not in text
    found = commands(text)
    settings = {"${netX/mac:hexhyp}", "${netX/ip}"}
    asks = any(command[0] == "menu" for command in found)
    more = (MENU_COMMANDS if asks else set()) | (START_COMMANDS if starts else set())
    assert {command[0] for command in found} <= COMMANDS | more
    settings |= (MENU_SETTINGS if asks else set()) | ({"${platform}"} if starts else set())
    assert set(re.findall(r"\$\{[^}]*\}?", text)) <= settings
    assert "@menu" not in text
    labels = re.findall(r"^:(\S+)", text, re.MULTILINE)
    assert len(labels) == len(set(labels))
    for command in found:
        if command[0] == "goto":
            assert command[1].replace("${menu-entry}", "link") in labels
        if command[0] == "item":
            assert command[1] in [label.removeprefix("entry_") for label in labels]
            assert not [*command, ""][2].startswith("-")
        if command[0] == "echo":
            assert not [*command, ""][1].startswith("-")
        if command[0] == "chain":
            assert command[1:3] == ["--autofree", "--replace"]
            assert command[3].startswith(BASE)
    return found
