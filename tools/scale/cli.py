"""`python -m tools.scale`: the tables of `repo/SCALE.md`, computed and measured anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final

from tools.scale.footprint import footprint
from tools.scale.measured import measure
from tools.scale.prices import Prices
from tools.scale.report import objects_table, requests_table, splits_table
from tools.scale.workload import Workload

_SPLITS: Final = ((1, 64), (1, 1024), (16, 64), (16, 256), (64, 64), (64, 256), (256, 64))
"""(repositories, KiB of a chunk)."""
_ENTRIES: Final = 1 << 19


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables. words: arguments, default those of the process."""
    args = _parser().parse_args(words)
    fleet = _given(args, Workload())
    prices = Prices(args.put_1000, args.get_1000, args.gb_month)
    counted, memory = measure(), footprint(args.entries)
    print("measured: bytes of an index entry", f"{memory.entry:.1f},", "of the sieve", end=" ")
    print(f"{memory.sieve:.2f}, of a listed pack {memory.pack:.0f}, of a listed point", end=" ")
    print(f"{memory.point:.0f}; {memory.found_per_s / 1e6:.1f} M ids found a second\n")
    print(*objects_table(fleet), "", sep="\n")
    print(*requests_table(fleet, counted, prices), "", sep="\n")
    splits = [replace(fleet, repositories=n, chunk=kib << 10) for n, kib in _SPLITS]
    print(*splits_table(splits, counted, prices, memory), sep="\n")
    return 0


def _given(args: argparse.Namespace, fleet: Workload) -> Workload:
    chosen = {field.name: getattr(args, field.name) for field in fields(fleet)}
    return replace(fleet, **chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tools.scale", description=__doc__)
    for field in fields(Workload):
        name, default = f"--{field.name.replace('_', '-')}", field.default
        if isinstance(default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(name, type=type(default), default=default)
    for field in fields(Prices)[:3]:
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=float, default=field.default)
    parser.add_argument("--entries", type=int, default=_ENTRIES, help="of the synthetic index")
    return parser
