"""Test hosts: real servers and LANs that a test makes and takes away again."""
