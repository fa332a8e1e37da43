"""A secret out of the place that the agent's configuration names, as text.

Decides which text vSphere can take. Refuses to know what a secret opens; keeps none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from backpoint_agent.settings.model import SecretSettings
from backpoint_repo.errors import KeyFault
from backpoint_repo.secret_place import COMMAND_LIMIT_S, SecretPlace


def read_secret(
    settings: SecretSettings,
    what: str,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float = COMMAND_LIMIT_S,
) -> str:
    """The secret; what: how messages call it ("the password of vCenter dc1").

    environment: the process's own by default. limit_s: for a command. Raises KeyFault where the
    place is missing, empty, hangs, or holds no text; the message names the place, never the secret.
    """
    given = [place for place in (settings.file, settings.command, settings.environment) if place]
    if len(given) != 1:
        raise KeyFault(f"{what}: give exactly one of file, command and environment")
    place = SecretPlace(settings.file, settings.command, settings.environment)
    return _text(*place.read(what, os.environ if environment is None else environment, limit_s))


def _text(line: bytes, where: str) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise KeyFault(f"{where} gives something that is not UTF-8 text") from None
    if not text.isprintable():
        raise KeyFault(f"{where} gives a line with control characters, which vSphere cannot take")
    return text
