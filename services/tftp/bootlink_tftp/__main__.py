"""`python -m bootlink_tftp` runs the service."""

from bootlink_runtime import main
from bootlink_tftp import SERVICE

main(SERVICE)
