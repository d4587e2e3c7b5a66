"""A certificate authority of a test's own, and certificates by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from bootlink.engines.nats import ServerTls


class Authority:
    """One authority, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str = "127.0.0.1", *, expired: bool = False) -> ServerTls:
        """A certificate of a server of this name."""
        ended = datetime.now(UTC) - timedelta(days=1)
        issued = (
            self._ca.issue_cert(name, not_before=ended - timedelta(days=1), not_after=ended)
            if expired
            else self._ca.issue_cert(name)
        )
        return self._files("server", issued)

    def client(self, name: str) -> ServerTls:
        """A certificate by which a client proves itself."""
        return self._files("client", self._ca.issue_cert(name))

    def _files(self, what: str, issued: trustme.LeafCert) -> ServerTls:
        cert, key = self._folder / f"{what}.pem", self._folder / f"{what}.key"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return ServerTls(cert, key)
