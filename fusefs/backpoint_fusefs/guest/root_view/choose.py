"""Which system's view `guest/root/` shows: one Unix or one Windows.

Decides between them where a machine has both: a Unix with an /etc/fstab is shown first, since its
fstab also says where the Windows volumes appear; a volume that only looks like a Unix root yields
to a Windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backpoint_fusefs.guest.root_view.guest_files import CarefulFiles, GuestFiles
from backpoint_fusefs.guest.root_view.plan import RootPlan, limited
from backpoint_fusefs.guest.root_view.unix_root import Evidence, find_unix_roots, plan_unix
from backpoint_fusefs.guest.root_view.windows_root import find_windows_roots, plan_windows
from backpoint_fusefs.guest.volume import Volume


def plan_root(volumes: Sequence[Volume], files: GuestFiles) -> RootPlan:
    """Raises nothing but what `files` raises besides GuestError."""
    careful = CarefulFiles(files)
    plan = _plan(volumes, careful)
    return replace(plan, notes=limited([*plan.notes, *careful.notes]))


def _plan(volumes: Sequence[Volume], files: CarefulFiles) -> RootPlan:
    unix = find_unix_roots(volumes, files)
    if unix and unix[0].evidence < Evidence.HAS_FOLDERS:
        return plan_unix(unix, volumes, files)
    if windows := find_windows_roots(volumes, files):
        return plan_windows(windows, volumes, files)
    if unix:
        return plan_unix(unix, volumes, files)
    return RootPlan("none", (), tuple(_why_none(volumes)))


def _why_none(volumes: Sequence[Volume]) -> list[str]:
    notes = [
        "No installed system was found: no volume has an /etc/fstab, the folders of a Unix root, "
        "or a folder Windows/System32."
    ]
    unreadable = [volume.name for volume in volumes if volume.problem]
    if unreadable:
        names = ", ".join(unreadable[:10]) + (", ..." if len(unreadable) > 10 else "")
        notes.append(f"It may be on one that cannot be read: {names}.")
    return notes
