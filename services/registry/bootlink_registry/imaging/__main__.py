"""`python -m bootlink_registry.imaging`: the process that works on image files."""

from bootlink_registry.imaging.child import main

main()
