"""What goes wrong at vCenter, in the network and in the storage, as a test asks.

A rule that has caught `count` calls is forgotten; `FOREVER` never is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vcsim.controlled import FOREVER, Controlled


class Faults(Controlled):
    """Methods are SOAP methods, or `GET /folder`, `PUT /folder`, `GET /nfc`, `POST /rest`, ..."""

    def fault(
        self,
        method: str,
        fault: str,
        *,
        vm: str = "",
        message: str = "",
        count: int = 1,
        after: int = 0,
        soap: bool = False,
        **fields: Any,
    ) -> None:
        """Let `method` fail with the fault type `fault`, its properties being `fields`.

        A task fails as a task unless `soap`; other methods always fail in the call.
        """
        rule = {"vm": vm, "message": message, "count": count, "after": after, "soap": soap}
        self.control("fault", method=method, fault=fault, fields=fields, **rule)

    def refuse_privilege(self, privilege: str, *, refused: bool = True) -> None:
        """Answer what needs `privilege` with NoPermission, or grant it again."""
        self.control("refuse_privilege", privilege=privilege, refused=refused)

    def slow_tasks(
        self, method: str, seconds: float, *, vm: str = "", count: int = FOREVER
    ) -> None:
        """Let tasks run for so long before they take effect; they can be cancelled."""
        self.control("slow_tasks", method=method, seconds=seconds, vm=vm, count=count)

    def hang_tasks(self, method: str, *, vm: str = "", count: int = FOREVER) -> None:
        """Let tasks run until they are cancelled or `release_tasks`."""
        self.control("slow_tasks", method=method, seconds=-1, vm=vm, count=count)

    def release_tasks(self) -> None:
        """Let every waiting task take effect now, and no further one wait."""
        self.control("release_tasks")

    def question(
        self, vm: str, text: str, choices: Sequence[str], *, on_task: str = "", default: int = 0
    ) -> None:
        """Let the VM ask, now or while the task `on_task` runs; choices have the keys "0", "1".

        vm "": the next one of which that task is asked.
        """
        fields = {"text": text, "choices": list(choices), "method": on_task, "default": default}
        self.control("question" if vm else "question_any", vm=vm, **fields)

    def answers(self, vm: str) -> list[str]:
        """The keys of the choices that this VM's questions got."""
        return list(self.control("answers", vm=vm)["answers"])

    def expire_sessions(self) -> None:
        """Forget every session, as when they were idle for too long."""
        self.control("expire_sessions")

    def drop_connections(self, count: int, method: str = "", *, after_effect: bool = False) -> None:
        """Cut connections instead of answering, before or after the call took effect."""
        mode = "lose" if after_effect else "drop"
        self.control("answer", mode=mode, method=method, count=count)

    def garbage(self, count: int, method: str = "") -> None:
        """Answer 200 with something that is no SOAP; nothing takes effect."""
        self.control("answer", mode="garbage", method=method, count=count)

    def http_status(self, status: int, count: int, method: str = "") -> None:
        """Answer with this status; nothing takes effect."""
        self.control("answer", mode="status", status=status, method=method, count=count)

    def slow_calls(self, seconds: float, count: int, method: str = "") -> None:
        """Let calls wait before they take effect."""
        self.control("answer", mode="slow", seconds=seconds, method=method, count=count)

    def read_fault(
        self, pattern: str, offset: int, *, cut: bool = False, count: int = FOREVER
    ) -> None:
        """Fail reads, by /folder and NFC, of the byte `offset` of files whose path has `pattern`.

        The answer is 500, or the connection ends there with `cut` (or if the answer began).
        """
        self.control("read_fault", path=pattern, offset=offset, cut=cut, count=count)

    def lease_timeout(self, seconds: float) -> None:
        """End NFC leases made from now on when their client told no progress for so long."""
        self.control("lease_timeout", seconds=seconds)

    def lock_live_files(self) -> None:
        """Refuse /folder on disks that a running VM writes, as VMFS does (500)."""
        self.control("lock_live_files")
