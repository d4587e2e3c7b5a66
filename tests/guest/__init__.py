"""The demo PC: its disk (`disk`), its boot LAN (`lan`), the machine (`pc`) and its serial console (`console`)."""
