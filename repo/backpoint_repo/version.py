"""The program's own version, as recorded in points."""

from typing import Final

VERSION: Final = "0.1.0"
