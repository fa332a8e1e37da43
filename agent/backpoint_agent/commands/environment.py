"""What the help of the agent's subcommands says of the environment; for `describe`."""

from __future__ import annotations

from typing import Final

CONFIGURATION: Final = """\
environment:
  BACKPOINT_CONFIG              the configuration, where -c is not given
"""
CONFIGURATION_AND_KEY: Final = f"""\
{CONFIGURATION}\
  BACKPOINT_PASSPHRASE_FILE, BACKPOINT_PASSPHRASE_COMMAND, BACKPOINT_PASSPHRASE,
  BACKPOINT_CREDENTIAL          as for other commands, where the configuration says neither the
                                repository's credential nor its passphrase
"""
