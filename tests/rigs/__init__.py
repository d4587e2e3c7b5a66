"""Rigs: what breaks the product on purpose, as functions of a count and a seed.

`make test` calls each with a small count (tests/adversity), `make soak` with the full one (tests/soak).
"""
