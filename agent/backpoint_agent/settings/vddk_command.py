"""What may stand in the command line that serves a disk through the operator's VDDK.

Decides which placeholders and transport modes there are; who puts the values in knows the rest.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_agent.settings.section import mistake

PLACEHOLDERS: Final = frozenset(
    {
        "socket",
        "pidfile",
        "libdir",
        "server",
        "user",
        "password_file",
        "thumbprint",
        "moref",
        "snapshot",
        "transports",
        "compression",
        "file",
    }
)
_MODES: Final = frozenset({"file", "san", "hotadd", "nbdssl", "nbd"})
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


def check_word(word: str) -> str:
    """One word of the command. Refuses placeholders nobody fills."""
    for name in _PLACEHOLDER.findall(word):
        if name not in PLACEHOLDERS:
            known = ", ".join(sorted(PLACEHOLDERS))
            raise mistake(f"has the unknown placeholder {{{name}}}; there are: {known}")
    return word


def check_transport_modes(modes: str) -> str:
    """VDDK's own transport modes, in order, with colons between them."""
    for mode in modes.split(":"):
        if mode not in _MODES:
            raise mistake(f'has the unknown mode "{mode}"; there are: {", ".join(sorted(_MODES))}')
    return modes
