"""`backpoint export`: the repository over NFS, for machines that cannot mount it themselves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backpoint_fusefs.commands.live_commands.opening import LIVE_ENVIRONMENT, add_live_option
from backpoint_fusefs.memory_size import add_memory_size, parse_memory_size
from backpoint_repo.cache_options import add_cache_options
from backpoint_repo.command_parser import EXIT_CODES, OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from backpoint_fusefs.nfs.export_terms import ExportTerms
    from backpoint_fusefs.nfs.running_export import RunningExport
    from backpoint_fusefs.nfs.supervisor import ExportPlan
    from backpoint_repo.repository import Repository

HELP: Final = "serve restore points and live sessions over NFS"
_NO_EXPORT: Final = 1

_DESCRIPTION: Final = """
Serve the repository over NFS, versions 3 and 4: what `mount` shows, with the live sessions below
live/, writable. It runs until SIGTERM or an interrupt, as root, and starts again what dies of its
parts: a mount of its own and an NFS-Ganesha over it (packages nfs-ganesha and nfs-ganesha-vfs).
Clients that have files open go on after that.

Only this machine has access. For others, name one of its addresses (--listen) and who may come
(--allow, any number of times): there is no other protection, NFS carries no password and no
encryption, and whoever is root on an allowed machine is root there, which ESXi needs. Everybody
else is refused, and so is a client with a port above 1023, which any user of its machine can have.

NFSv3 (ESXi, QEMU's nfs://) needs rpcbind: one that runs is used, otherwise one is started, on TCP
port 111 of the export's address alone. Where it is not installed only NFSv4 is served. ESXi expects
the NFS server at port 2049. Give QEMU's nfs:// drives cache=writethrough: its client does not write
again what a server that died had not committed.

--print-exports serves nothing: it prints what /etc/exports takes for the kernel's own NFS server
and a mount at the place of --at. --status tells of a running export; exit code 1 if there is none.
"""
_EXAMPLES: Final = """
backpoint export --nfs
backpoint export --nfs --listen 10.0.0.5 --allow 10.0.0.21 --allow 10.0.1.0/24
backpoint export --print-exports --at /mnt/backups --listen 10.0.0.5 --allow 10.0.0.21
backpoint export --status --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    environment = OPENS_REPOSITORY + LIVE_ENVIRONMENT
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=environment,
        exit_codes=EXIT_CODES.replace("0 done ", "0 done   1 not exported (--status) "),
    )
    doing = parser.add_mutually_exclusive_group(required=True)
    doing.add_argument("--nfs", action="store_true", help="serve until told to end")
    doing.add_argument(
        "--print-exports", action="store_true", help="print lines for /etc/exports instead"
    )
    doing.add_argument(
        "--status", action="store_true", help="tell how the repository is exported now"
    )
    parser.add_argument(
        "--listen", metavar="ADDR", help="address of this machine (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--allow",
        metavar="NET",
        action="append",
        default=[],
        help="an address or network that has access, as root (default: this machine)",
    )
    parser.add_argument(
        "--read-only", action="store_true", help="points only: no sessions, no writing"
    )
    add_live_option(parser)
    parser.add_argument(
        "--port", metavar="N", type=int, default=2049, help="of NFS (default: %(default)s)"
    )
    parser.add_argument(
        "--mount-port",
        metavar="N",
        type=int,
        default=20048,
        help="of NFSv3's mount protocol (default: %(default)s)",
    )
    parser.add_argument(
        "--at",
        metavar="DIR",
        type=Path,
        help="for --print-exports: where the repository is mounted",
    )
    add_memory_size(parser)
    add_cache_options(parser)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError, KeyFault, ExportFailed, and what a store raises."""
    if args.status:
        return _tell_status(args)
    from backpoint_fusefs.nfs.export_terms import plan_terms

    terms = plan_terms(
        args.listen,
        args.allow,
        read_only=args.read_only,
        nfs_port=args.port,
        mount_port=args.mount_port,
    )
    if args.print_exports:
        return _print_exports(args, terms)
    return _serve(args, terms)


def _tell_status(args: argparse.Namespace) -> int:
    from backpoint_fusefs.nfs.running_export import find_export
    from backpoint_repo.terminal import print_fields, print_record, say

    export = find_export(_repository_id(args))
    if export is None:
        say("this repository is not exported on this machine")
        return _NO_EXPORT
    if args.json:
        print_record(export.as_json())
        return 0
    print_fields(
        [
            ("address", f"{export.address} port {export.nfs_port}"),
            ("path", export.path),
            ("NFS versions", ", ".join(map(str, export.versions))),
            ("access", ("read-only: " if export.read_only else "") + ", ".join(export.allowed)),
            ("sessions", export.sessions or "not exported"),
            ("process", str(export.pid)),
            ("restarts", str(export.restarts)),
        ]
    )
    return 0


def _print_exports(args: argparse.Namespace, terms: ExportTerms) -> int:
    from backpoint_fusefs.nfs.kernel_exports import exports_hints, exports_line
    from backpoint_repo.errors import UsageError
    from backpoint_repo.terminal import print_line, print_record

    if args.at is None:
        raise UsageError("--print-exports needs --at DIR: where the repository is mounted")
    line = exports_line(terms, args.at, _repository_id(args))
    hints = exports_hints(terms, args.at)
    if args.json:
        print_record({"type": "exports", "line": line, "hints": hints})
        return 0
    for text in [*hints, line]:
        print_line(text)
    return 0


def _repository_id(args: argparse.Namespace) -> bytes:
    """Without a passphrase."""
    from backpoint_repo.config import read_config
    from backpoint_repo.opening import store_from

    return read_config(store_from(args)).config.repository_id


def _serve(args: argparse.Namespace, terms: ExportTerms) -> int:
    from contextlib import ExitStack

    from backpoint_fusefs.mount_log import open_log
    from backpoint_fusefs.nfs.export_folder import taken
    from backpoint_fusefs.nfs.stop_signals import undisturbed, until_stopped
    from backpoint_fusefs.nfs.supervisor import Export
    from backpoint_fusefs.nfs.tools_check import check_tools
    from backpoint_repo.opening import open_cached_from, require_owner
    from backpoint_repo.process_tuning import tune_for_chunks
    from backpoint_repo.terminal import say

    check_tools()
    memory = parse_memory_size(args.memory)
    repository = open_cached_from(args)
    require_owner(repository, "exporting")
    tune_for_chunks()  # not before: what scrypt took would be kept too
    plan = _plan(args, terms, repository, memory)
    os.close(open_log(plan.nfs_log))  # private before NFS-Ganesha writes to it
    output = open_log(plan.log)
    parts = ExitStack()
    try:
        with until_stopped():
            parts.enter_context(taken(plan.folder))
            export = parts.enter_context(Export(plan, say, output))
            export.start()
            _report(args, export.running, terms)
            export.keep()
    finally:
        with undisturbed():
            parts.close()
    say("the export has ended")
    return 0


def _plan(
    args: argparse.Namespace, terms: ExportTerms, repository: Repository, memory: int
) -> ExportPlan:
    from backpoint_fusefs.mount_log import log_path
    from backpoint_fusefs.nfs.export_folder import folder_of
    from backpoint_fusefs.nfs.supervisor import ExportPlan
    from backpoint_repo.errors import UsageError

    if args.read_only and args.live is not None:
        raise UsageError("--read-only exports no sessions, so --live has no use")
    sessions = None if args.read_only else _sessions(args.live, repository)
    folder = folder_of(repository.config.repository_id)
    log = log_path(folder.mount).with_name(f"{folder.root.name}.log")
    return ExportPlan(
        repository,
        terms,
        folder,
        sessions,
        memory,
        log,
        log.with_name(f"{log.stem}-nfs.log"),
    )


def _sessions(given: Path | None, repository: Repository) -> Path:
    from backpoint_fusefs.live.session_home import default_home

    return given.absolute() if given is not None else default_home(repository)


def _report(args: argparse.Namespace, export: RunningExport, terms: ExportTerms) -> None:
    from backpoint_fusefs.nfs.client_commands import client_commands
    from backpoint_repo.terminal import print_record, say, warn

    if terms.open_to_all:
        warn("--allow names everybody: whoever reaches the address has access")
    if args.json:
        print_record(export.as_json())
        return
    say(f"serving NFS at {terms.address} port {terms.nfs_port}, path {export.path}")
    for what, command in client_commands(terms, export.versions):
        say(f"{what}: {command}")
    say("SIGTERM or an interrupt ends it")
