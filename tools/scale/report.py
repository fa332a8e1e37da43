"""The tables of `repo/SCALE.md`, as Markdown. Decides what is shown, and computes nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from tools.scale.footprint import Footprint
from tools.scale.measured import Measured
from tools.scale.prices import Prices
from tools.scale.requests import STEPS, listed, requests_of_a_day
from tools.scale.workload import Contents, Workload, contents, pages

MEASURED_CHUNKS: Final = 10_014_720
COLLECT_S: Final = 42.0
COLLECT_BYTES: Final = 834e6
"""Of that many chunks; `tools/bench/RESULTS.md`, "Lifecycle", of 2026-11-22, a loaded machine."""
PAGE_S: Final = 0.1
"""Assumed: what one answer of a listing takes."""
PAGES_AT_ONCE: Final = 16
"""`ObjectStore` asks for a long listing in so many parts."""
GIB, TIB = float(1 << 30), float(1 << 40)


def objects_table(fleet: Workload) -> Iterator[str]:
    """Of one repository."""
    held = contents(fleet.of_one())
    yield "| objects of one repository | number | bytes |"
    yield "| --- | --- | --- |"
    sizes = {"packs": held.data, "nodes": held.node_data, "index": held.index}
    for folder, number in listed(held).items():
        size = f"{sizes[folder] / GIB:,.0f} GiB" if folder in sizes else ""
        yield f"| {folder} | {number:,} | {size} |"
    yield f"| all | {held.objects:,} | {held.stored / GIB:,.0f} GiB |"


def requests_table(fleet: Workload, counted: Measured, prices: Prices) -> Iterator[str]:
    """Of all repositories together."""
    held = contents(fleet.of_one())
    verbs = ("put", "list", "get", "head", "delete")
    yield "| a day, all repositories | " + " | ".join(verbs) + " | $ |"
    yield "| --- |" + " --- |" * (len(verbs) + 1)
    days = requests_of_a_day(fleet.of_one(), held, counted)
    for step in STEPS:
        numbers = {verb: days[step][verb] * fleet.repositories for verb in verbs}
        shown = " | ".join(f"{numbers[verb]:,}" for verb in verbs)
        yield f"| {step} | {shown} | {prices.of(numbers):,.2f} |"


def splits_table(
    fleets: Sequence[Workload], counted: Measured, prices: Prices, memory: Footprint
) -> Iterator[str]:
    """The same fleet in more and more repositories."""
    yield (
        "| repositories | chunk | chunks of one | index of one | memory of a backup "
        "| one listing of packs | maps | collect | collect memory | requests a day "
        "| storage a month |"
    )
    yield "|" + " --- |" * 11
    for fleet in fleets:
        held = contents(fleet.of_one())
        days = requests_of_a_day(fleet.of_one(), held, counted)
        dollars = sum(prices.of(days[step]) for step in STEPS) * fleet.repositories
        kept = prices.of_storage(held.stored) * fleet.repositories
        share = held.chunks / MEASURED_CHUNKS
        listing = sum(listing_s(packs) for packs in (held.packs, held.node_packs))
        yield (
            f"| {fleet.repositories} | {fleet.chunk >> 10} KiB | {held.chunks / 1e6:,.1f} M "
            f"| {held.index / GIB:,.1f} GiB | {backup_memory(held, memory) / GIB:,.1f} GiB "
            f"| {listing:,.0f} s | {held.node_data / GIB:,.0f} GiB "
            f"| {share * COLLECT_S / 60:,.1f} min "
            f"| {share * COLLECT_BYTES / GIB:,.1f} GiB | ${dollars:,.2f} | ${kept:,.0f} |"
        )


def listing_s(keys: int) -> float:
    """Seconds; the first page tells whether there are more."""
    return PAGE_S * (1 + math.ceil((pages(keys) - 1) / PAGES_AT_ONCE))


def backup_memory(held: Contents, memory: Footprint) -> float:
    """Bytes that grow with the repository: what of index and listings is not mapped from a file."""
    entries = held.chunks + held.nodes
    packs = held.packs + held.node_packs
    return entries * memory.sieve + packs * memory.pack + held.points * memory.point
