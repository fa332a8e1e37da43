"""`backpoint init`: make a repository, and if asked its recovery key."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.policy import Policy
    from backpoint_repo.store.contract import Store

HELP: Final = "make a repository"
_CHUNK_AVG: Final = "64K"

_DESCRIPTION: Final = """
Make a repository in a directory, which may be missing or must be empty, or below a prefix of a
bucket. An object store is tried first, and refused where it cannot keep two writers apart. The
passphrase is asked for twice, or taken from the environment. It opens the owner's key; without a
passphrase or recovery key nobody can ever read the backups, so let --recovery-key write one and
lock its print-out away.

The chunk average is fixed for ever: smaller finds more duplicates and costs more index. The minimum
age can later be raised (`backpoint protect`) and never lowered. Parity is kept up by `backpoint
parity`: with 10+2, of each group of 10 packs any 2 can be lost, for a fifth more space.

With --like the place becomes a replica of another repository: it has the same keys, so that `copy`
and `tail` bring it points as they are sealed, with no more than an agent credential, and what opens
one opens the other. It begins without points, and has a minimum age and parity of its own.
Passphrases and recovery keys that are added later are brought by the same command, run again. It
revokes none: a passphrase that is revoked has to be revoked at both (`backpoint -r REPO2 key
revoke`). A key that has leaked opens both.
"""
_EXAMPLES: Final = """
backpoint -r /srv/backups init --recovery-key /root/backpoint.recovery
backpoint -r s3://bucket/backups init --recovery-key /root/backpoint.recovery
backpoint -r /srv/backups init --chunk-avg 32K
backpoint -r /srv/backups init --min-age 14d --parity 10+2
backpoint -r s3://bucket/offsite init --like /srv/backups
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument(
        "--chunk-avg",
        metavar="SIZE",
        help="average chunk, a power of two from 16K to 4M (default 64K)",
    )
    parser.add_argument(
        "--recovery-key",
        metavar="FILE",
        type=Path,
        help="also make a recovery key and write it to this new file",
    )
    parser.add_argument(
        "--min-age",
        metavar="TIME",
        help="no point can be removed before it is so old, like 14d (default: none)",
    )
    parser.add_argument(
        "--parity",
        metavar="DATA+SPARE",
        help="packs of a group, and spare ones made for it, like 10+2 (default: no parity)",
    )
    parser.add_argument(
        "--like", metavar="REPO", help="make a replica of this repository, with the same keys"
    )


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where something is there already, KeyFault and what a store raises."""
    import os

    from backpoint_repo.chunking import ChunkParameters
    from backpoint_repo.opening import first_passphrase, store_from
    from backpoint_repo.policy import Policy, put_policy
    from backpoint_repo.recovery_file import add_recovery_key
    from backpoint_repo.repository import create_repository
    from backpoint_repo.sizes import parse_size
    from backpoint_repo.store.probe import probe_new
    from backpoint_repo.terminal import print_line, print_record, warn

    if args.like is not None:
        return _make_replica(args)
    chunks = ChunkParameters.with_average(parse_size(args.chunk_avg or _CHUNK_AVG))
    policy = _policy(args)
    store = store_from(args)
    _refuse_foreign(store)
    if args.recovery_key is not None:
        _refuse_existing(args.recovery_key)
    probe_new(store)
    repository = create_repository(store, first_passphrase(os.environ), chunks)
    repository_id = repository.config.repository_id.hex()
    if policy != Policy():
        put_policy(repository.sealed, policy, repository.clock)
    if args.recovery_key is not None:
        add_recovery_key(repository, args.recovery_key)
    if args.recovery_key is None:
        warn("there is no recovery key: with the passphrase lost, all backups are lost")
    if args.json:
        record = {"type": "repository", "repository": repository_id, "address": store.address}
        print_record(record)
        return 0
    print_line(f"repository {repository_id} made at {store.address}")
    if args.recovery_key is not None:
        print_line(f"recovery key written to {args.recovery_key}: print it and lock it away")
    return 0


def _make_replica(args: argparse.Namespace) -> int:
    """Or bring the key slots of one up to date. Raises as `run`."""
    import os
    from dataclasses import replace

    from backpoint_repo.config import read_config
    from backpoint_repo.errors import NotARepository, UsageError
    from backpoint_repo.opening import credential_from, store_at, store_from
    from backpoint_repo.policy import Policy, put_policy
    from backpoint_repo.replica import replicate
    from backpoint_repo.repository import open_repository
    from backpoint_repo.store.probe import probe_new
    from backpoint_repo.terminal import print_line, print_record, warn

    if args.chunk_avg is not None or args.recovery_key is not None:
        raise UsageError(
            "with --like all keys and the chunk average are those of the other repository: "
            "--chunk-avg and --recovery-key have no place here"
        )
    policy, store, like = _policy(args), store_from(args), store_at(args, args.like)
    repository = open_repository(like, credential_from(os.environ))
    try:
        read_config(store)
    except NotARepository:
        _refuse_foreign(store)
        probe_new(store)
    done = replicate(repository, store)
    if policy != Policy():
        put_policy(replace(repository.sealed, store=store), policy, repository.clock)
    for name in done.spoiled:
        warn(f"key slot {name} of {like.address} opens nothing any more and was left out")
    for name in done.surplus:
        warn(
            f"key slot {name} is in {store.address} only; if it was revoked in {like.address}, "
            f"revoke it here, too: backpoint -r {store.address} key revoke {name}"
        )
    repository_id = repository.config.repository_id.hex()
    if args.json:
        record = {"type": "repository", "repository": repository_id, "address": store.address}
        slots = {"added": done.added, "surplus": done.surplus, "spoiled": done.spoiled}
        print_record({**record, "like": like.address, "made": done.made, "slots": slots})
    elif done.made:
        print_line(f"replica of {like.address} made at {store.address}: repository {repository_id}")
    else:
        print_line(
            f"{store.address} is a replica of {like.address}; key slots added: {len(done.added)}"
        )
    return 0


def _policy(args: argparse.Namespace) -> Policy:
    """Raises UsageError, before anything is made."""
    from backpoint_repo.policy import Policy, checked, parse_parity
    from backpoint_repo.sizes import parse_duration

    min_age_s = parse_duration(args.min_age) if args.min_age is not None else 0.0
    parity = parse_parity(args.parity) if args.parity is not None else None
    return checked(Policy(min_age_s, parity))


def _refuse_foreign(store: Store) -> None:
    """A repository is not mixed with other files: nobody could tell later what belongs to it."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.format import CONFIG_KEY, FOLDERS, Kind
    from backpoint_repo.store.place import is_address
    from backpoint_repo.store.probe import PROBES

    # What an init that was cut short leaves behind does not stop the next one.
    ours = (f"{FOLDERS[Kind.SLOT]}/", PROBES)
    need = "prefix" if is_address(store.address) else "directory"
    for found in store.list(""):
        if found.key == CONFIG_KEY:
            raise UsageError(f"there is a repository at {store.address} already")
        if not found.key.startswith(ours):
            raise UsageError(
                f"{store.address} is not empty (it has {found.key}); a repository needs a "
                f"{need} of its own"
            )


def _refuse_existing(path: Path) -> None:
    from backpoint_repo.errors import UsageError

    if path.exists():
        raise UsageError(f"{path} exists; it is not overwritten")
