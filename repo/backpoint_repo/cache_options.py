"""--cache, --cache-size, --no-cache: what commands that read a repository's data say of its cache.

Decides who has a cache unasked: a repository for which each request waits for a network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backpoint_repo.block_place import BlockPlace


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """The options; `block_place(args, ...)` reads them."""
    group = parser.add_argument_group("local cache")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="keep what is fetched, sealed as it is stored, in this folder on a local disk, which "
        "only you may write to; mounts and commands share it, and it may be deleted at any time "
        "(default: for a repository in an object store the folder that BACKPOINT_CACHE tells)",
    )
    where.add_argument("--no-cache", action="store_true", help="keep nothing on this machine")
    group.add_argument(
        "--cache-size",
        metavar="SIZE",
        help="how much of that disk it may take for this repository, at least 16M; metadata stays "
        "longest (default: a tenth of what is free there, at most 10G)",
    )


def block_place(
    args: argparse.Namespace, environment: Mapping[str, str], *, remote: bool, keeps_data: bool
) -> BlockPlace | None:
    """Where blocks are cached; None: nowhere. remote: each request waits for a network.

    keeps_data: also of data, where nobody names a folder. Raises UsageError.
    """
    from backpoint_repo.block_place import LIMIT_MIN, BlockPlace
    from backpoint_repo.errors import UsageError
    from backpoint_repo.segment_cache import cache_place
    from backpoint_repo.sizes import format_size, parse_size
    from backpoint_repo.terminal import say, warn

    named: Path | None = getattr(args, "cache", None)
    text: str | None = getattr(args, "cache_size", None)
    none = getattr(args, "no_cache", False)
    limit = None if text is None else parse_size(text)
    if limit is not None and limit < LIMIT_MIN:
        raise UsageError(f"--cache-size must be at least {format_size(LIMIT_MIN)}")
    if limit is not None and (none or (named is None and not remote)):
        raise UsageError("--cache-size is of no use without a cache: name one by --cache DIR")
    if none or (named is None and not remote):
        return None
    if named is not None:
        return BlockPlace(named.absolute(), limit, named=True, tell=warn)
    found = cache_place(environment)
    if found is None:
        return None
    return BlockPlace(
        found.root, limit, keeps_data=keeps_data, tell=say if args.verbose else lambda _: None
    )
