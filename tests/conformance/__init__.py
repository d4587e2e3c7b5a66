"""libiscsi's conformance tests against Bootlink and against tgt: `python -m conformance` writes docs/conformance.md."""
