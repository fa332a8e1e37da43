"""Which advanced settings (`extraConfig`) belong to a VM, and which only to one instance of it.

Pure; decides by the key alone, so what it does not know is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LENGTH_MAX: Final = 1 << 16
_COUNT_MAX: Final = 2048

# Settings that name files, ids or moments of one instance, or that VMware writes by itself. The
# password of a VNC console and the id of an encryption key must not come back either.
_OF_THE_INSTANCE: Final = re.compile(
    r"""nvram | extendedConfigFile | uuid\. | vc\.uuid | sched\.swap\. | migrate\. | vmotion\.
    | checkpoint\. | snapshot\. | ctkEnabled | .+\.ctkEnabled | .+\.redo | .+\.fileName
    | .+\.pciSlotNumber | .+\.generatedAddress.* | pciBridge\d | tools\.(remindInstall|upgrade)
    | guestinfo\.(vmtools|appInfo|toolsInstallErrCode|driverVersion|detailed) | vmware\.tools\.
    | RemoteDisplay\.vnc\. | encryption\. | dataFileKey | monitor\.phys_bits | viv\.moid
    | vmxstats\. | cleanShutdown | softPowerOff | numa\.autosize | hpet0\.present | svga\.present
    | policy\.vm | backpoint\. | replay\. | toolsInstallManager\. | vmci\d+\.id | displayName""",
    re.IGNORECASE | re.VERBOSE,
)


def keep_settings(settings: Iterable[tuple[str, str]]) -> tuple[dict[str, str], int]:
    """The settings that belong to the machine, and how many of them are too long or too many."""
    kept: dict[str, str] = {}
    dropped = 0
    for key, value in settings:
        if _OF_THE_INSTANCE.match(key) or not value:
            continue
        if len(kept) == _COUNT_MAX or len(key) + len(value) > _LENGTH_MAX:
            dropped += 1
        else:
            kept[key] = value
    return kept, dropped
