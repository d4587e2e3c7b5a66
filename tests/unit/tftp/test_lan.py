"""What the kernel's tables say, from text as /proc shows it."""

from __future__ import annotations

from ipaddress import IPv4Network

from bootlink_tftp.lan import OnLink, connected, neighbour

ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
br0	00004D0A	00000000	0001	0	0	0	0000FFFF	0	0	0
br0	00004E0A	01004D0A	0003	0	0	0	0000FFFF	0	0	0
wg0	0500A8C0	00000000	0005	0	0	0	FFFFFFFF	0	0	0
eth9	00000A0A	00000000	0200	0	0	0	00FFFFFF	0	0	0
nonsense
"""

NEIGHBOURS = """\
IP address       HW type     Flags       HW address            Mask     Device
10.77.0.50       0x1         0x2         52:54:00:12:34:56     *        br0
10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        br0
10.77.0.52       0x1         0x2         ff:ff:ff:ff:ff:ff     *        br0
10.77.0.53       0x1         0x0         00:00:00:00:00:00     *        br0
10.77.0.53       0x1         0x2         52:54:00:12:34:57     *        br1
"""


def test_the_networks_on_the_link_are_those_without_a_gateway() -> None:
    assert connected(ROUTES) == (IPv4Network("192.0.2.0/24"), IPv4Network("10.77.0.0/16"))
    assert connected("") == ()


def test_two_addresses_are_together_only_in_one_network() -> None:
    on_link = OnLink((IPv4Network("10.77.0.0/24"), IPv4Network("10.78.0.0/24")))
    assert on_link.together("10.77.0.50", "10.77.0.1")
    assert not on_link.together("10.77.0.50", "10.78.0.1")
    assert not on_link.together("10.77.0.50", "storage.example")
    assert not OnLink(()).together("10.77.0.50", "10.77.0.1")


def test_a_neighbours_mac_address_is_known_once_it_has_answered() -> None:
    assert neighbour(NEIGHBOURS, "10.77.0.50") == "52:54:00:12:34:56"
    assert neighbour(NEIGHBOURS, "10.77.0.51") is None
    assert neighbour(NEIGHBOURS, "10.77.0.52") is None
    assert neighbour(NEIGHBOURS, "10.77.0.53") == "52:54:00:12:34:57"
    assert neighbour(NEIGHBOURS, "10.77.0.5") is None
