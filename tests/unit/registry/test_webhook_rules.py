"""The rules of webhooks, apart from any network: signatures, what an answer means, how long to wait, where to go."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bootlink_registry.webhooks.schedule import (
    JITTER,
    LONGEST_SECONDS,
    REFUSALS,
    Pace,
    Schedule,
    Verdict,
    seconds_of,
    verdict_of,
)
from bootlink_registry.webhooks.signing import check_secret, new_secret, signed
from bootlink_registry.webhooks.targets import check_url, why_not


@given(st.text(max_size=200), st.uuids())
def test_standard_webhooks_own_library_verifies_what_we_sign_and_nothing_else(text: str, event_id: object) -> None:
    secret, former, now = new_secret(), new_secret(), datetime.now(UTC)
    body = f'{{"a": "{text.encode("unicode_escape").decode("ascii").translate({34: "", 92: ""})}"}}'.encode()
    headers = signed(str(event_id), now, body, (secret, former))
    for key in (secret, former):
        Webhook(key).verify(body, headers)
    for wrong in ({"webhook-id": "x"}, {"webhook-timestamp": str(int(now.timestamp()) + 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | wrong)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    late = signed(str(event_id), datetime(2020, 1, 1, tzinfo=UTC), body, (secret,))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, late)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_of_another_length_is_refused_and_not_repeated(size: int) -> None:
    text = "whsec_" + base64.b64encode(bytes(size)).decode()
    with pytest.raises(ValueError, match="24 to 64 bytes") as refused:
        check_secret(text)
    assert base64.b64encode(bytes(size)).decode() not in str(refused.value) or size == 0


@pytest.mark.parametrize("text", ["", "whsec_", "secret", "whsec_???", "WHSEC_" + "A" * 32, "whsec_" + "A" * 31])
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        check_secret(text)
    assert check_secret(new_secret()) != new_secret()


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 202, 204, 299)),
        *((status, Verdict.REFUSED) for status in (300, 302, 307, 400, 401, 404, 409, 413, 422)),
        *((status, Verdict.AWAY) for status in (408, 425, 429, 500, 502, 503, 599)),
        (410, Verdict.GONE),
    ],
)
def test_a_status_means(status: int, verdict: Verdict) -> None:
    assert verdict_of(status) is verdict


def test_delays_grow_with_jitter_up_to_a_longest_and_heed_what_the_receiver_asks_for() -> None:
    random.seed(7)
    schedule = Schedule()
    for failures, middle in ((1, 5), (2, 10), (5, 80), (8, 600), (10_000, 600)):
        delays = [schedule.delay(failures) for _ in range(200)]
        assert min(delays) >= middle * (1 - JITTER)
        assert max(delays) <= middle * (1 + JITTER)
        assert len(set(delays)) > 100
    assert schedule.delay(1, retry_after=120) >= 120 * (1 - JITTER)
    assert schedule.delay(1, retry_after=1e9) <= LONGEST_SECONDS * (1 + JITTER)
    assert [seconds_of(text) for text in ("", "120", "-1", "1.5", "Tue, 24 Nov 2026 06:00:00 GMT", "٣")] == [
        *(0, 120, 0, 0, 0, 0)
    ]


def test_an_event_is_given_up_for_refusals_or_for_age() -> None:
    schedule = Schedule(hours=2)
    assert not schedule.given_up(REFUSALS - 1, 7199)
    assert schedule.given_up(REFUSALS, 0)
    assert schedule.given_up(0, 7200)


def test_a_webhook_that_takes_nothing_gets_one_request_per_rest_and_the_rests_grow() -> None:
    pace = Pace(Schedule(first=10), most=4, failing=False)
    assert pace.room(0, 1) == 3
    for _ in range(4):  # all that were under way fail: one failure
        pace.away(100, 0)
    assert pace.failing
    assert pace.room(100, 0) == 0
    first = pace.rest(100)
    assert 7.5 <= first <= 12.5
    assert (pace.room(100 + first, 0), pace.room(100 + first, 1)) == (1, 0)
    pace.away(100 + first, 0)
    assert 15 <= pace.rest(100 + first) <= 25
    pace.hurry()
    assert pace.room(100 + first, 0) == 1
    assert pace.delivered()
    assert not pace.delivered()
    assert pace.room(101 + first, 0) == 4


@pytest.mark.parametrize(
    "url",
    [
        "https://events.example/bootlink",
        "http://10.1.2.3:8080/a?b=c&d=%20",
        "https://[fd00::1]:8443/x",
        "https://events.example",
    ],
)
def test_a_url_of_a_web_server_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "events.example",
        "ftp://events.example/",
        "file:///etc/passwd",
        "https://",
        "https://user:pw@events.example/",
        "https://events.example/#x",
        "https://events.example/a b",
        "https://events.example/\r\nHost: x",
        "https://events.example:0/",
        "https://events.example:70000/",
        "https://ev\u00e9nts.example/",
        "https://[fd00::1/",
        "https://events.example/" + "x" * 2000,
    ],
)
def test_a_url_of_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        check_url(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "fe80::1%eth0"),
        *("::ffff:169.254.169.254", "224.0.0.1", "ff02::1", "240.0.0.1", "255.255.255.255"),
    ],
)
def test_an_address_of_this_machine_or_of_no_host_is_not_reached_unless_named(address: str) -> None:
    assert "BOOTLINK_REGISTRY_WEBHOOK_NETWORKS" in why_not(address, ())
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert why_not(address, everything) == ""


@pytest.mark.parametrize(
    "address", ["10.93.84.21", "192.168.211.77", "172.29.84.6", "93.184.216.34", "fd93::8", "2606::1"]
)
def test_other_addresses_private_ones_too_are_reached(address: str) -> None:
    assert why_not(address, ()) == ""
