"""`make soak`: every rig with its full count, one after the other; figures and seeds go into docs/guarantees.md.

A row of `table.RIGS` is a name, what it shows, a count and a function of `rigs` (or of a fuzzer):

    def run(count: int, seed: int, folder: Path) -> Figures

It raises at the first violation, naming the seed and the step, and gives its figures otherwise. `folder` is its own,
empty, and removed afterwards. `python -m soak NAME ...` runs some rigs only, `--scale 0.01` with a hundredth of the
counts, `--seed N` with a seed of your own; only a whole run with full counts writes the page.
"""
