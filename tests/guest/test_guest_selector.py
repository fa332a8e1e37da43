"""`VM@POINT:PATH` as users type it, with colons in every part."""

from __future__ import annotations

import pytest

from backpoint_fusefs.guest.guest_selector import split_selector
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError


def point(vm: str, seconds: float, point_id: str) -> PointSummary:
    return PointSummary(
        bytes.fromhex(point_id.ljust(32, "0")), vm, seconds, 0, 0, "", 1, 0, 0, 0, 0
    )


POINTS = [
    point("web", 1_795_140_000, "aaaa"),  # 2026-11-20T02-00-00Z
    point("web", 1_795_140_060, "bbbb"),  # 2026-11-20T02-01-00Z
    point("a:b@c", 1_795_140_000, "cccc"),
    point("a", 1_795_140_000, "dddd"),
]


@pytest.mark.parametrize(
    ("text", "chosen", "path"),
    [
        ("web@latest:/etc/fstab", "bbbb", b"/etc/fstab"),
        ("web@-2:disk0-p1/etc", "aaaa", b"disk0-p1/etc"),
        ("web@latest:", "bbbb", b""),
        ("web@latest", "bbbb", b""),
        ("web:/etc", "bbbb", b"/etc"),
        ("web@2026-11-20T02:00:/etc", "aaaa", b"/etc"),
        ("web@2026-11-20T02:01:00Z:/etc", "bbbb", b"/etc"),
        ("web@2026-11-20T02:01", "bbbb", b""),
        ("web@latest:/with:colon@and:", "bbbb", b"/with:colon@and:"),
        ("web@latest:/x@web:/y", "bbbb", b"/x@web:/y"),
        ("web@aaaa::", "aaaa", b":"),
        ("a:b@c:/etc", "cccc", b"/etc"),
        ("a:b@c@latest:vg-root", "cccc", b"vg-root"),
        ("a:b", "dddd", b"b"),
        ("web:/bad\udcffname", "bbbb", b"/bad\xffname"),
    ],
)
def test_point_and_path(text: str, chosen: str, path: bytes) -> None:
    """The longest beginning that names a point is the point."""
    found, rest = split_selector(POINTS, text)
    assert (found.point_id.hex()[:4], rest) == (chosen, path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("web@2026-11-20:/etc", "web@2026-11-20 is ambiguous"),
        ("web@2026-11-20T02:/a:b", "web@2026-11-20T02 is ambiguous"),
        ("web@2025:/etc", "web@2025 names no point"),
        ("mail:/etc", "no points of a VM named 'mail'"),
        ("mail@latest:disk0", "no points of a VM named 'mail'"),
        (":/etc", "no points of a VM named ''"),
        ("", "no points of a VM named ''"),
    ],
)
def test_what_names_no_point_is_told_of_the_point(text: str, told: str) -> None:
    """The message is about what stands before the path."""
    with pytest.raises(UsageError, match=told):
        split_selector(POINTS, text)
