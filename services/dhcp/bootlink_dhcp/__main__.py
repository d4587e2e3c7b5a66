"""`python -m bootlink_dhcp`: what a container runs, and `bootlink up` too."""

from bootlink_dhcp import SERVICE
from bootlink_runtime import main

main(SERVICE)
