"""What a store charges: assumptions, of the order of a large cloud's list prices for its standard
class. No price of anybody is looked up; put in your own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

GB: Final = 1e9


@dataclass(frozen=True)
class Prices:
    """In dollars. put_1000, get_1000: for a thousand requests; listings cost as puts do, deletes
    nothing. gb_month: for 10^9 bytes kept a month. assumed: when this was written down."""

    put_1000: float = 0.005
    get_1000: float = 0.0004
    gb_month: float = 0.023
    assumed: str = "2026-11"

    def of(self, requests: Mapping[str, int]) -> float:
        """Dollars for requests, by verb."""
        each = {"put": self.put_1000, "list": self.put_1000}
        each |= {"get": self.get_1000, "head": self.get_1000, "delete": 0.0}
        return sum(each[verb] * number / 1000 for verb, number in requests.items())

    def of_storage(self, stored: int) -> float:
        """Dollars for a month."""
        return stored / GB * self.gb_month
