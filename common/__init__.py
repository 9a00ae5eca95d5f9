"""What the coordinator and the institutions share. Everything but `common.io` is pure."""

from typing import Final

__version__: Final = "0.1.0"
