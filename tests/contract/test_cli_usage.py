"""What the command says when it is used wrongly, or when nothing runs that it could speak to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

import bootlink_runtime
from bootlink import app
from bootlink.app import NOUNS
from lab.up import bootlink, error_of

Run = Callable[..., "CompletedProcess[str]"]

ABSENT = {"BOOTLINK_API": "http://127.0.0.1:9", "BOOTLINK_NATS_URL": "nats://127.0.0.1:9"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, which spares a second per case; nothing runs that it could speak to."""
    monkeypatch.setattr(
        bootlink_runtime, "configure", lambda *_: None
    )  # logs are the whole process's, other tests' too
    for name, value in ABSENT.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["bootlink", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        out, errors = capsys.readouterr()
        return CompletedProcess(arguments, int(end.value.code or 0), out, errors)

    return run


@pytest.mark.parametrize("command", ["image list", "client show pc-1 --json", "link set --default win11", "boot show"])
def test_an_absent_api_is_named_with_the_way_to_start_it(command: str) -> None:
    done = bootlink(*command.split(), env=ABSENT)
    problem, remedy = error_of(done)
    assert problem == "the registry's API does not answer at http://127.0.0.1:9"
    assert "bootlink up --interface IF" in remedy
    assert "BOOTLINK_API=" in remedy
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["status", "status --json", "cache", "events", "events --follow"])
def test_an_absent_nats_is_named_with_the_way_to_start_it(command: str) -> None:
    problem, remedy = error_of(bootlink(*command.split(), env=ABSENT))
    assert problem == "no NATS server at nats://127.0.0.1:9"
    assert "bootlink up" in remedy


@pytest.mark.parametrize("url", ["localhost:8600", "ftp://127.0.0.1", "http://[", "nonsense"])
def test_an_api_address_that_is_none_is_named(here: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BOOTLINK_API", url)
    problem, remedy = error_of(here("image", "list"))
    assert "BOOTLINK_API" in remedy
    assert url in problem


@pytest.mark.parametrize(
    "command",
    [
        "link set",
        "link set win11",
        "link set pc-1 win11 extra",
        "link set --default --group g win11",
        "link set --default win11:test --version 3",
        "link set --default win11 --policy never",
        "link show",
        "boot show 1 --client pc-1",
        "boot list --limit 0",
        "events --since yesterday",
        "events --subject boot..x",
        "image add only-a-name",
        "up --services nothing",
        "no-such-command",
    ],
)
def test_a_wrong_usage_is_status_2_and_says_nothing_on_stdout(here: Run, command: str) -> None:
    done = here(*command.split())
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Usage: " in done.stderr


def test_the_version_is_told() -> None:
    done = bootlink("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("bootlink ")


@pytest.mark.parametrize(
    "command", ["", "up", "image", "image add", "client", "link set", "boot show", "events", "status", "cache"]
)
def test_help_is_there_for_every_command(here: Run, command: str) -> None:
    done = here(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout


@pytest.mark.parametrize("command", ["", *NOUNS, "group option", "group loader", "link menu"])
def test_help_fits_80_columns_and_cuts_no_sentence(here: Run, command: str) -> None:
    lines = here(*command.split(), "--help").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    commands = lines[lines.index("Commands:") + 1 :] if "Commands:" in lines else []
    assert not [line for line in commands if line.endswith("...")]


@pytest.mark.parametrize(
    "command",
    [
        "image publish golden",
        "image publish :2",
        "image show golden:test",
        "image unpublish golden:2",
        "image add other file.img --channel test",
        "image import other file.img --channel test",
        "link set --default golden:test --version 2",
        "link set --default golden:1 --version 2",
    ],
)
def test_a_reference_that_is_none_is_a_wrong_usage(here: Run, command: str) -> None:
    assert here(*command.split()).returncode == 2
