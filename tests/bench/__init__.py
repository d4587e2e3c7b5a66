"""`make bench`: how fast the block store is, beside its peers and in one run; written to docs/performance.md.

`servers` starts the targets, `load` the client, both in C where they must not be the limit; each measure is a module
of its own, and `report` writes what they found.
"""
