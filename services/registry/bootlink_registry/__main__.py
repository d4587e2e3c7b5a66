"""`python -m bootlink_registry`: the registry as a process."""

from bootlink_registry import SERVICE
from bootlink_runtime import main

main(SERVICE)
