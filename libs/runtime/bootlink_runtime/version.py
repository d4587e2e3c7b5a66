"""The version of Bootlink that is installed."""

from importlib.metadata import version
from typing import Final

__version__: Final = version("bootlink-runtime")
