"""The dhcp service: who is this PC, and where does it boot from."""

from bootlink_dhcp.service import SERVICE
from bootlink_dhcp.settings import DhcpSettings

__all__ = ["SERVICE", "DhcpSettings"]
