"""`backpoint key`: passphrases, recovery keys and agent credentials."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import NEW_PASSPHRASE, OPENS_REPOSITORY, CommandParser, describe

if TYPE_CHECKING:
    from backpoint_repo.repository import Repository

HELP: Final = "manage passphrases, recovery keys and agent credentials"

_BOTH: Final = OPENS_REPOSITORY + NEW_PASSPHRASE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    parser.description = (
        "Each passphrase and recovery key opens one key slot, and the slot the owner's key. An "
        "agent credential makes backups and cannot read them."
    )
    level = parser.add_subparsers(
        title="what to do", metavar="ACTION", required=True, parser_class=CommandParser
    )
    _add_slot_actions(level)
    _add_file_actions(level)


def run(args: argparse.Namespace) -> int:
    """Raises OwnerKeyNeeded with the agent credential (but for `list`), UsageError, KeyFault."""
    code = args.act(args)
    assert isinstance(code, int)
    return code


def _add_slot_actions(level: argparse._SubParsersAction[CommandParser]) -> None:
    listing = level.add_parser("list", help="list key slots")
    describe(listing, "List all key slots, oldest first.", examples="backpoint key list --json")
    listing.set_defaults(act=_list)

    adding = level.add_parser("add", help="add a passphrase")
    text = "Add a key slot with a new passphrase; the others go on working."
    describe(adding, text, examples="backpoint key add --label alice", environment=_BOTH)
    adding.add_argument("--label", metavar="TEXT", default="passphrase", help="whose or what for")
    adding.set_defaults(act=_add)

    changing = level.add_parser("change", help="replace the passphrase used to open")
    text = """
Replace the passphrase that opens the repository now by a new one. The owner's key stays the same:
this does not help against somebody who has opened the repository with the old passphrase before."""
    describe(changing, text, examples="backpoint key change", environment=_BOTH)
    changing.set_defaults(act=_change)

    revoking = level.add_parser("revoke", help="remove a key slot")
    text = """
Remove a key slot: its passphrase or recovery key opens nothing any more. The last slot is kept
unless forced, because without one nobody can ever read the repository again."""
    describe(revoking, text, examples="backpoint key revoke 3fa9")
    revoking.add_argument("slot", metavar="SLOT", help="its id, or the beginning of it (see list)")
    revoking.add_argument("--force", action="store_true", help="even if it is the last one")
    revoking.set_defaults(act=_revoke)


def _add_file_actions(level: argparse._SubParsersAction[CommandParser]) -> None:
    exporting = level.add_parser("export-agent", help="write an agent credential")
    text = """
Write the agent credential to a new file of mode 0600. With BACKPOINT_CREDENTIAL=FILE a machine can
back up, list points and check structure, and cannot read one byte of any disk."""
    describe(exporting, text, examples="backpoint key export-agent -o /root/backpoint.agent")
    exporting.set_defaults(act=_export_agent)

    recovery = level.add_parser("recovery", help="make another recovery key")
    text = """
Make a recovery key, with a key slot of its own, and write it to a new file of mode 0600. Print it,
lock the paper away and delete the file."""
    describe(recovery, text, examples="backpoint key recovery -o /root/backpoint.recovery")
    recovery.set_defaults(act=_recovery)
    for parser in (exporting, recovery):
        parser.add_argument(
            "-o", "--output", metavar="FILE", type=Path, required=True, help="a file not there yet"
        )


def _open_as_owner(args: argparse.Namespace) -> Repository:
    from backpoint_repo.opening import open_from, require_owner

    repository = open_from(args)
    require_owner(repository, "managing keys")
    return repository


def _list(args: argparse.Namespace) -> int:
    from backpoint_repo.key_slots import list_slots
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.terminal import Column, print_record, print_table

    slots = list_slots(open_from(args).sealed)
    if args.json:
        records = [
            {
                "id": slot.slot_id,
                "method": slot.method,
                "label": slot.label,
                "created": slot.created,
            }
            for slot in slots
        ]
        print_record({"slots": records})
        return 0
    rows = [(slot.slot_id, slot.method, slot.label, format_time(slot.created)) for slot in slots]
    print_table([Column(name) for name in ("slot", "method", "label", "created")], rows)
    return 0


def _add(args: argparse.Namespace) -> int:
    import os

    from backpoint_repo.key_slots import ScryptCost, add_slot
    from backpoint_repo.opening import new_source

    repository = _open_as_owner(args)
    secret = new_source(os.environ).read(twice=True)
    slot = add_slot(repository.sealed, secret, args.label, ScryptCost(), repository.clock())
    return _done(args, f"key slot {slot.slot_id} added", slot=slot.slot_id)


def _change(args: argparse.Namespace) -> int:
    import os

    from backpoint_repo.errors import UsageError
    from backpoint_repo.key_slots import (
        PASSPHRASE,
        ScryptCost,
        add_slot,
        list_slots,
        open_slot,
        revoke_slot,
    )
    from backpoint_repo.opening import credential_from, new_source, require_passphrase, store_from
    from backpoint_repo.repository import open_repository

    store = store_from(args)
    current = require_passphrase(credential_from(os.environ))
    repository = open_repository(store, current)
    opened, _ = open_slot(store, repository.config, current.text)
    sealed = repository.sealed
    old = next(slot for slot in list_slots(sealed) if slot.slot_id == opened)
    if old.method != PASSPHRASE:
        raise UsageError(
            "a recovery key was given, and only a passphrase can be changed; `key add` adds a "
            "passphrase, `key recovery` another recovery key"
        )
    secret = new_source(os.environ).read(twice=True)
    # The new one first: whatever stops us here, there is a way in.
    slot = add_slot(sealed, secret, old.label, ScryptCost(), repository.clock())
    revoke_slot(sealed, old.slot_id, force=False)
    said = f"passphrase changed: slot {slot.slot_id} replaces {old.slot_id}"
    return _done(args, said, slot=slot.slot_id, revoked=old.slot_id)


def _revoke(args: argparse.Namespace) -> int:
    from backpoint_repo.key_slots import revoke_slot

    slot = revoke_slot(_open_as_owner(args).sealed, args.slot, force=args.force)
    return _done(args, f"key slot {slot.slot_id} ({slot.label}) revoked", revoked=slot.slot_id)


def _export_agent(args: argparse.Namespace) -> int:
    from backpoint_repo.credential import AgentCredential, write_credential

    repository = _open_as_owner(args)
    credential = AgentCredential.of(repository.config, repository.sealed.keyring.secret)
    write_credential(credential, args.output)
    return _done(args, f"agent credential written to {args.output}", file=str(args.output))


def _recovery(args: argparse.Namespace) -> int:
    from backpoint_repo.recovery_file import add_recovery_key

    slot = add_recovery_key(_open_as_owner(args), args.output)
    said = f"recovery key written to {args.output}: print it and lock it away"
    return _done(args, said, slot=slot.slot_id, file=str(args.output))


def _done(args: argparse.Namespace, said: str, **fields: str) -> int:
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        print_record({"type": "key", **fields})
    else:
        print_line(said)
    return 0
