"""What every command's arguments have in common: the global options, and how its help reads.

Decides that global options may stand before or after any subcommand. Knows no command.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from backpoint_repo import version

OPENS_REPOSITORY: Final = """\
environment:
  BACKPOINT_REPO                the repository, where -r is not given
  BACKPOINT_PASSPHRASE_FILE     file whose first line is the passphrase or recovery key
  BACKPOINT_PASSPHRASE_COMMAND  command that prints it (run without a shell)
  BACKPOINT_PASSPHRASE          the passphrase itself
  BACKPOINT_CREDENTIAL          file with an agent credential, in place of a passphrase
  One of these at a time; with none of them the passphrase is asked for on the terminal.
  BACKPOINT_CACHE               folder on a local disk where a large index is kept decoded, and what
                                is read of an object store as it is stored
                                (default: backpoint in /var/cache for root, else in ~/.cache)
  BACKPOINT_CONFIG              file with a [store] table, where --settings is not given
  AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
  AWS_PROFILE, AWS_CA_BUNDLE    how s3:// is reached without that table, as AWS's tools take it;
                                GOOGLE_* for gs:// and AZURE_* for az://
"""
NEW_PASSPHRASE: Final = """\
  BACKPOINT_NEW_PASSPHRASE, BACKPOINT_NEW_PASSPHRASE_FILE, BACKPOINT_NEW_PASSPHRASE_COMMAND
                                likewise, the new passphrase
"""
EXIT_CODES: Final = """\
exit codes:
  0 done   2 wrong use   3 a source disk failed   4 the repository failed
  5 a key or passphrase is wrong or not enough   130 interrupted
"""


class CommandParser(argparse.ArgumentParser):
    """A parser that takes the global options at every level of subcommands."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        shared = self.add_argument_group("global options")
        # Suppressed defaults: a level where the option is absent must not undo one where it stood.
        absent = argparse.SUPPRESS
        shared.add_argument(
            "-r",
            "--repo",
            metavar="REPO",
            default=absent,
            help="the repository: a directory, s3://bucket/prefix, gs://... or az://...",
        )
        shared.add_argument(
            "--settings",
            metavar="FILE",
            default=absent,
            help="TOML file whose [store] table says how to reach an object store",
        )
        shared.add_argument(
            "--json", action="store_true", default=absent, help="results as JSON, sizes in bytes"
        )
        shared.add_argument(
            "-v", "--verbose", action="store_true", default=absent, help="show where an error arose"
        )
        program = f"backpoint {version.VERSION}"
        shared.add_argument("--version", action="version", version=program)


def describe(
    parser: argparse.ArgumentParser,
    description: str,
    *,
    examples: str,
    environment: str = OPENS_REPOSITORY,
    exit_codes: str = EXIT_CODES,
) -> None:
    """Set the texts of a command's --help; each a block of finished lines."""
    parser.description = description.strip()
    lines = "\n".join(f"  {line}".rstrip() for line in examples.strip().splitlines())
    parts = (f"examples:\n{lines}", environment.rstrip(), exit_codes.rstrip())
    parser.epilog = "\n\n".join(part for part in parts if part)
