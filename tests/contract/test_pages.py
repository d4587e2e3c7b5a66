"""What the pages name is there: files, headings, tests, code, settings, targets of make, events and spans."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from bootlink_events.subjects import EVENTS, PREFIX

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
FOLDERS = "tests|libs|services|cli|deploy|docs|tools|requirements"

_BLOCKS = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")  # a name may be broken at the end of a line
_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in [file.stem, *re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)]
}
_MADE = "deploy/secrets/"  # by deploy/secrets.sh


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def code_of(page: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return [" ".join(code.split()) for code in _CODE.findall(_BLOCKS.sub("", text_of(page)))]


def anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub has it."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _BLOCKS.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, part = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if part else []
        assert not part or part in map(anchor, headings), target


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_tests_that_a_page_names_are_there(page: str) -> None:
    for code in code_of(page):
        for path in re.findall(rf"(?<![\w/.<-])(?:{FOLDERS})/[\w./*-]*\w", code):
            assert path.startswith(_MADE) or list(ROOT.glob(path)), path
        for name in re.findall(r"\btest_\w+\b", code):
            assert name in _TESTS or any(test.startswith(name) for test in _TESTS if name.endswith("_")), name
    for number in re.findall(r"\bADR (\d+)", text_of(page)):
        assert list((ROOT / "docs" / "adr").glob(f"{int(number):04}-*.md")), number


def test_the_code_that_the_walkthrough_names_is_in_the_file_that_it_names() -> None:
    text = " ".join(text_of("docs/boot-walkthrough.md").split())
    found = re.findall(r"`([\w/]+\.py)`[:,] ((?:`[\w.]+`(?:, | and | → )?)+)", text)
    assert len(found) > 20
    for file, names in found:
        code = [path.read_text() for part in ("libs", "services") for path in (ROOT / part).rglob(Path(file).name)]
        for name in re.findall(r"`([\w.]+)`", names.partition(".py`")[0]):
            if name.endswith(".py"):
                continue
            defined = [rf"^ *(?:class|(?:async )?def) {word}\b|^ *{word}\b.* = " for word in name.split(".")]
            assert any(all(re.search(word, text, re.MULTILINE) for word in defined) for text in code), (file, name)


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_and_targets_that_a_page_names_are_there(page: str) -> None:
    settings = set(re.findall(r"BOOTLINK_[A-Z_]*[A-Z]", text_of("docs/settings.md") + text_of("compose.yaml")))
    for service in ("DHCP", "TFTP", "BLOCKSTORE", "REGISTRY"):
        settings |= {f"BOOTLINK_{service}_HEALTH_{what}" for what in ("HOST", "PORT")}
    for name in re.findall(r"BOOTLINK_[A-Z_]*[A-Z](?![A-Z_<*])", text_of(page)):
        assert name in settings or name == "BOOTLINK_EVENTS", name  # the last is a stream of NATS
    lines = [*code_of(page), *(line.strip() for block in _BLOCKS.findall(text_of(page)) for line in block.splitlines())]
    for line in lines:
        if made := re.match(r"make ([a-z-]+)", line):
            assert made[1] in _TARGETS, line


@pytest.mark.parametrize("page", [page for page in PAGES if "/adr/" not in page])
def test_the_events_and_spans_that_a_page_names_are_there(page: str) -> None:
    events = {kind.type.removeprefix(f"{PREFIX}.") for kind in EVENTS}
    spans = set(re.findall(r"`([a-z]+\.[a-z_]+)`", text_of("docs/traces.md")))
    kinds = "|".join({event.partition(".")[0] for event in events})
    for name in code_of(page):
        if re.fullmatch(rf"(?:{kinds})\.[a-z_]+", name) and not name.endswith((".py", ".md")):
            assert name in events | spans, name
    for name in re.findall(r"[Ss]pans? `([^`]+)`", text_of(page)):
        assert name == "boot" or name in spans, name


@pytest.mark.parametrize("service", ["dhcp", "tftp", "blockstore", "registry"])
def test_the_architecture_names_what_each_service_publishes(service: str) -> None:
    row = next(line for line in text_of("ARCHITECTURE.md").splitlines() if line.startswith(f"| `{service}` |"))
    patterns = re.findall(r"`([^`]+)`", row.split("|")[4])
    published = {kind.type.removeprefix(f"{PREFIX}.") for kind in EVENTS if service in kind.publishers}
    for event in published:
        assert any(fnmatchcase(event, pattern) for pattern in patterns), event
    for pattern in patterns:
        assert any(fnmatchcase(event, pattern) for event in published), pattern


def test_the_page_of_containers_names_all_that_compose_reads_from_the_environment() -> None:
    named = set(re.findall(r"`([A-Z_]+)`", text_of("docs/containers.md")))
    assert set(re.findall(r"\$\{([A-Z_]+)", text_of("compose.yaml"))) <= named
