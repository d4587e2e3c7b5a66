"""The bootlink command: runs the whole system on one machine, and steers it from anywhere."""
