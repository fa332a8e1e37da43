"""What trying one level of a point came to. A value; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backpoint_repo.boot_trace import TracedRange


@dataclass(frozen=True)
class Trial:
    """What one level came to. sign, sign_s, accelerator, screenshot and trace: of a boot."""

    ok: bool
    detail: str
    notes: tuple[str, ...] = ()
    sign: str = ""
    sign_s: float | None = None
    accelerator: str = ""
    screenshot: bytes | None = None
    trace: Sequence[TracedRange] = field(default=(), repr=False)
