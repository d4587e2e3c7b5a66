"""How this process proves to NATS who it is, and how it knows that the server is the right one.

Who it is: an nkey, an Ed25519 key of which the server holds the public half (ADR-8 of NATS), or a `.creds` file, which
carries a JWT besides, as servers with an operator want it. The server sends a nonce and gets it signed, so the key
itself never travels. What each may do is in `bootlink_events.access`. User and password in the URL work as well, and
a server that asks for nothing is asked for nothing.

Each key has inboxes of its own, `_INBOX.<public key>`: answers to one are not for the eyes of another.

The server: with a CA, or an address that begins with `tls:`, the connection is TLS or there is none. nats-py by itself
would speak to a server in clear that asks for no TLS (seen in 2.16), whoever that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import nkeys
from nats.aio.client import Client, RawCredentials
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from bootlink_runtime.errors import StartupError

INBOX: Final = "_INBOX"
CREDENTIALS_LIMIT: Final = 64 * 1024  # bytes; a JWT with many permissions has some thousands
_SEED: Final = re.compile(r"\bSU[A-Z2-7]{56}\b")
_SEED_BYTES: Final = 32  # an Ed25519 seed, RFC 8032, section 5.1.5
_CLOSE_SECONDS: Final = 0.5  # for the end of a connection over which nothing will be sent any more
_JWT_MARK: Final = "BEGIN NATS USER JWT"
_TLS_SCHEMES: Final = ("tls", "wss")


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """What is shown to a NATS server, and asked of it. Nothing of it shows in a `repr`."""

    seed: str = field(default="", repr=False)  # of an nkey
    creds: str = field(default="", repr=False)  # the text of a .creds file, which has a seed, too
    public_key: str = ""
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def inbox(self) -> str:
        """What the subjects of all answers to this process begin with."""
        return f"{INBOX}.{self.public_key}" if self.public_key else INBOX

    def client(self) -> Client:
        """A NATS client that is not connected yet, for `options`."""
        return _TlsClient() if self.tls is not None else Client()

    def options(self) -> dict[str, Any]:
        """For `connect` of that client."""
        told: dict[str, Any] = {"inbox_prefix": self.inbox}
        if self.creds:
            told["user_credentials"] = RawCredentials(self.creds)
        elif self.seed:
            told["nkeys_seed_str"] = self.seed
        if self.tls is not None:
            told["tls"] = self.tls
        return told


ANYBODY: Final = NatsAccess()
"""For a server that asks for nothing, or for the user and password in its URL."""


class _TlsTransport(TcpTransport):
    """nats-py's own, which after a handshake that failed waits for ever that the connection is closed (seen in 2.16):
    a bus would never try again, and a command never end."""

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await super().wait_closed()  # type: ignore[no-untyped-call]


class _TlsClient(Client):
    """One that goes on with a server only if that asks for TLS, at the first connection and at each later one."""

    async def _connect_to_server(self, s: Any) -> None:
        await super()._connect_to_server(s)
        if type(self._transport) is TcpTransport:  # it makes its own, whatever was there
            bounded = _TlsTransport()  # type: ignore[no-untyped-call]
            vars(bounded).update(vars(self._transport))
            self._transport = bounded

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        wss = self._current_server is not None and self._current_server.uri.scheme == "wss"
        if initial_connection and not wss and not info.get("tls_required"):
            raise NatsError("the server does not speak TLS")
        await super()._process_info(info, initial_connection)


def access(
    *,
    url: str,
    credentials: str = "",
    credentials_file: Path | None = None,
    name: str = "",
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> NatsAccess:
    """What settings mean. `credentials` is the text of an nkey's or a .creds file; where it is empty, what that file
    says, or in a folder the file of this name; without either: none.

    StartupError, which names the setting, if one of them cannot be used.
    """
    setting = "BOOTLINK_NATS_CREDENTIALS"
    if not credentials and credentials_file is not None:
        credentials = _credentials_in(credentials_file, name)
        setting += f"_FILE ({credentials_file})"
    seed = creds = public_key = ""
    if text := credentials.strip():
        found = _SEED.search(text)
        if found is None:
            raise StartupError(
                f"{setting} holds no key of a NATS user",
                "give it what `bootlink nats keys` makes, which begins with SU, or a .creds file",
            )
        try:
            public_key = public_key_of(found[0])
        except ValueError as error:
            raise StartupError(
                f"{setting} holds no key of a NATS user", "copy it anew: it was cut or changed"
            ) from error
        seed, creds = ("", text) if _JWT_MARK in text else (found[0], "")
    return NatsAccess(seed=seed, creds=creds, public_key=public_key, tls=_tls(url, ca, cert, key))


def new_key() -> str:
    """The seed of a new key of a user."""
    return str(nkeys.encode_seed(os.urandom(_SEED_BYTES), nkeys.PREFIX_BYTE_USER).decode())


def public_key_of(seed: str) -> str:
    """What a server is told of this seed. ValueError if it is none, or not as it was made.

    The nkeys library does not look at a seed's checksum (seen in 0.2): a slip of the pen would be another key.
    """
    try:
        prefix, raw = nkeys.decode_seed(seed.encode())
        if nkeys.encode_seed(raw, prefix).decode() != seed:
            raise ValueError("the checksum of the nkey's seed is wrong")
        return str(nkeys.from_seed(bytearray(seed.encode())).public_key.decode())
    except nkeys.NkeysError as error:
        raise ValueError("no seed of an nkey") from error


def _credentials_in(path: Path, name: str) -> str:
    """What a file says, or the file NAME.nk of a folder. StartupError if it cannot be read."""
    file = path / f"{name}.nk" if path.is_dir() else path
    try:
        with file.open() as opened:
            return opened.read(CREDENTIALS_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"the NATS credentials {file} cannot be read ({error})",
            "let the service's user read them, or correct BOOTLINK_NATS_CREDENTIALS_FILE",
        ) from error


def _tls(url: str, ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if not (ca or cert or urlsplit(url).scheme in _TLS_SCHEMES):
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise StartupError(
            f"the CA certificate {ca} cannot be used ({error})", "name a PEM file in BOOTLINK_NATS_CA_FILE"
        ) from error
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except (OSError, ValueError) as error:
            raise StartupError(
                f"the certificate {cert} cannot be used with the key {key or cert} ({error})",
                "name PEM files that belong together in BOOTLINK_NATS_CERT_FILE and BOOTLINK_NATS_KEY_FILE",
            ) from error
    return context


def refusal(error: Exception) -> str:
    """What to do about a connection that was not made or was ended because of this error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return "the server's certificate has expired: renew it, and restart the server"
        if error.verify_code in _OTHER_NAME:
            return "the server's certificate is for another name: make one with the name in BOOTLINK_NATS_URL"
        return "the server's certificate is of another CA: name the right one in BOOTLINK_NATS_CA_FILE"
    said = str(error).lower()
    if "does not speak tls" in said:
        return (
            "have the server speak TLS, or use it in clear: unset BOOTLINK_NATS_CA_FILE, and begin its URL with nats:"
        )
    if isinstance(error, ssl.SSLError):
        return "is it a NATS server with TLS? Does it want a certificate of ours (BOOTLINK_NATS_CERT_FILE)?"
    if "authorization violation" in said or "authentication" in said:
        return (
            "name a key that the server knows in BOOTLINK_NATS_CREDENTIALS_FILE; `bootlink up` keeps them in "
            "nats/keys of its data folder, the command's is command.nk"
        )
    return "start it, or correct BOOTLINK_NATS_URL"


def without_password(url: str) -> str:
    """The address as it may be logged."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
