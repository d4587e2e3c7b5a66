"""The database's password from a file, as containers are given it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import StartupError

URL = "postgresql://bootlink@postgres/bootlink"


def database(url: str, file: Path | None) -> str:
    return RegistrySettings(database_url=url, database_password_file=file).database()


def test_the_password_gets_into_the_url_whatever_characters_it_has(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a/b@c:d %\n")
    assert database(URL, file) == "postgresql://bootlink:a%2Fb%40c%3Ad%20%25@postgres/bootlink"


def test_without_a_file_the_url_is_what_it_is() -> None:
    assert database("postgresql:///bootlink", None) == "postgresql:///bootlink"
    assert database("postgresql://a:b@c/d", None) == "postgresql://a:b@c/d"


@pytest.mark.parametrize("url", ["postgresql:///bootlink", "postgresql://a:b@c/d"])
def test_a_url_that_the_password_does_not_fit_is_refused(url: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    with pytest.raises(StartupError, match="BOOTLINK_DATABASE_URL must name a user"):
        database(url, file)


def test_an_empty_or_missing_file_is_refused_and_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with pytest.raises(StartupError, match="cannot be read"):
        database(URL, file)
    file.touch()
    with pytest.raises(StartupError, match="is empty"):
        database(URL, file)
