"""The HTTP machine: requests of boot clients whole, byte by byte and in a row; ranges; and what is turned away."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_tftp.exchange import HEAD_MAX, Exchange, Posted, Rejected, Span, Unsatisfiable, Wanted, span_of
from bootlink_tftp.hello import BODY_MAX

IPXE = (
    b"GET /boot/x/vmlinuz HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/1.0.0+\r\nHost: 10.0.0.1:8080\r\n\r\n"
)
EDK2 = b"HEAD /boot/x/snponly.efi HTTP/1.1\r\nHost: 10.0.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n"


def answered(exchange: Exchange, content: bytes, *, name: str = "x", span: Span | None = None) -> bytes:
    return exchange.head(name, len(content), span) + exchange.body(content) + exchange.end()


def test_a_request_is_read_whole_and_byte_by_byte() -> None:
    for request, wanted in (
        (IPXE, Wanted(b"/boot/x/vmlinuz", head=False)),
        (EDK2, Wanted(b"/boot/x/snponly.efi", head=True)),
    ):
        assert Exchange().receive(request) == wanted
        slowly = Exchange()
        found = [slowly.receive(request[at : at + 1]) for at in range(len(request))]
        assert found[:-1] == [None] * (len(request) - 1)
        assert found[-1] == wanted


def test_two_requests_of_one_connection_are_answered_in_turn() -> None:
    exchange = Exchange()
    assert exchange.receive(IPXE + EDK2) == Wanted(b"/boot/x/vmlinuz", head=False)
    sent = answered(exchange, b"kernel")
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nkernel")
    assert b"Content-Length: 6\r\n" in sent
    assert not exchange.over
    assert exchange.following() == Wanted(b"/boot/x/snponly.efi", head=True)
    head = answered(exchange, b"loader", name="snponly.efi")
    assert b"Content-Length: 6\r\n" in head
    assert b"Content-Type: application/efi\r\n" in head
    assert head.endswith(b"\r\n\r\n"), "HEAD has no content"


def test_a_client_of_http_1_0_is_answered_and_left() -> None:
    exchange = Exchange()
    assert exchange.receive(b"GET /a HTTP/1.0\r\n\r\n") == Wanted(b"/a", head=False)
    assert answered(exchange, b"a").startswith(b"HTTP/1.1 200 OK\r\n")
    assert exchange.over


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/a?x=1", b"/a"),
        (b"/a%20b", b"/a b"),
        (b"/%2e%2e/%2e%2e/etc/passwd", b"/../../etc/passwd"),  # and `names` refuses that
        (b"/%252e", b"/%2e"),  # decoded once
        (b"http://10.0.0.1/boot/a", b"/boot/a"),
        (b"/a%00b", b"/a\0b"),
    ],
)
def test_the_name_is_the_targets_path_decoded_once(target: bytes, name: bytes) -> None:
    request = b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    assert Exchange().receive(request) == Wanted(name, head=False)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"GET /a HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),  # no Host
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", HTTPStatus.BAD_REQUEST),  # TLS
        (b"GET /" + b"a" * HEAD_MAX + b" HTTP/1.1\r\n", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_what_is_no_boot_clients_request_gets_its_status_and_the_end(request_bytes: bytes, status: HTTPStatus) -> None:
    exchange = Exchange()
    rejected = exchange.receive(request_bytes)
    assert isinstance(rejected, Rejected)
    assert rejected.status == status
    sent = exchange.refusal(rejected.status, rejected.text)
    assert sent.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in sent
    assert exchange.over


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        (b"bytes=0-", Span(0, 100)),
        (b"bytes=10-19", Span(10, 20)),
        (b"bytes=90-200", Span(90, 100)),
        (b"bytes=-10", Span(90, 100)),
        (b"bytes=-200", Span(0, 100)),
        (b"bytes=99-99", Span(99, 100)),
        (b" bytes=1-1 ", Span(1, 2)),
        # RFC 9110 section 14.2: what is no range, or more than one, may be ignored.
        (b"bytes=-", None),
        (b"bytes=5-3", None),
        (b"bytes=0-1,5-6", None),
        (b"lines=0-1", None),
        (b"bytes=a-b", None),
        (b"bytes=" + b"9" * 30 + b"-", None),
    ],
)
def test_a_range_is_the_part_that_it_names(header: bytes | None, span: Span | None) -> None:
    assert span_of(header, 100) == span


@pytest.mark.parametrize("header", [b"bytes=100-", b"bytes=100-200", b"bytes=-0"])
def test_a_range_behind_the_end_cannot_be_had(header: bytes) -> None:
    with pytest.raises(Unsatisfiable):
        span_of(header, 100)


def test_a_part_says_where_it_lies() -> None:
    exchange = Exchange()
    exchange.receive(IPXE)
    sent = exchange.head("vmlinuz", 100, Span(10, 13)) + exchange.body(b"abc") + exchange.end()
    assert sent.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert b"Content-Range: bytes 10-12/100\r\n" in sent
    assert b"Content-Length: 3\r\n" in sent


@given(
    st.lists(
        st.binary(min_size=1, max_size=64) | st.sampled_from([IPXE, EDK2, b"\r\n", b"GET / HTTP/1.1\r\n"]), max_size=20
    )
)
def test_nothing_that_is_sent_raises(pieces: list[bytes]) -> None:
    exchange = Exchange()
    for piece in pieces:
        request = exchange.receive(piece)
        while isinstance(request, Wanted):
            answered(exchange, b"")
            if exchange.over:
                return
            request = exchange.following()
        if isinstance(request, Rejected):
            exchange.refusal(request.status, request.text)
            return


@given(st.binary(max_size=40), st.integers(0, 1000))
def test_a_range_never_leaves_the_file(header: bytes, size: int) -> None:
    for text in (header, b"bytes=" + header):
        try:
            span = span_of(text, size)
        except Unsatisfiable:
            continue
        assert span is None or 0 <= span.start < span.stop <= size


# -- a guest's hello --

HELLO = b"POST /hello HTTP/1.1\r\nHost: 10.0.0.1\r\nContent-Length: 11\r\n\r\ninitiator=x"
POWERSHELL = HELLO.replace(b"Host: ", b"Expect: 100-continue\r\nHost: ")


def test_a_hello_is_read_whole_and_byte_by_byte_and_the_connection_goes_on() -> None:
    for request in (HELLO, HELLO.replace(b"/hello", b"http://10.0.0.1/hello")):
        slowly = Exchange()
        found = [slowly.receive(request[at : at + 1]) for at in range(len(request))]
        assert found[:-1] == [None] * (len(request) - 1)
        assert found[-1] == Exchange().receive(request) == Posted(b"initiator=x")
        assert slowly.taken() == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert not slowly.over
        assert slowly.following() is None
        assert slowly.receive(IPXE) == Wanted(b"/boot/x/vmlinuz", head=False)


def test_whoever_waits_to_be_asked_for_the_body_is_asked_once() -> None:
    head, _, body = POWERSHELL.partition(b"\r\n\r\n")
    exchange = Exchange()
    assert exchange.receive(head + b"\r\n\r\n") is None
    assert exchange.interim() == b"HTTP/1.1 100 \r\n\r\n"
    assert exchange.interim() == b""
    assert exchange.receive(body) == Posted(b"initiator=x")


def test_a_hello_that_is_too_long_is_turned_away_before_it_has_come() -> None:
    long = HELLO.replace(b"11", b"99999") + b"x" * BODY_MAX
    answer = Exchange().receive(long)
    assert isinstance(answer, Rejected)
    assert answer.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
