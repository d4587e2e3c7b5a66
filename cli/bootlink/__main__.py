"""`bootlink`, and `python -m bootlink`."""

import gc
from typing import Final

# Loading modules and reading a listing allocate much and free little: looking for garbage as often as Python does
# (every 700 objects) takes a tenth of a short command's time.
ALLOCATIONS: Final = 100_000


def main() -> None:
    """Run the command that the arguments name."""
    gc.set_threshold(ALLOCATIONS)
    from bootlink import app

    app.main()


if __name__ == "__main__":
    main()
