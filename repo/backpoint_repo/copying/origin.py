"""Who a point really is: the repository and the id under which it first came to be.

Copies get ids of their own, and say in their capture whose copies they are; a copy of a copy says
the same as the copy. So points are held against each other by identity, whichever way they came.
"""

from __future__ import annotations

from backpoint_repo.capture import Capture
from backpoint_repo.catalog import PointSummary
from backpoint_repo.point import COPY, ORIGIN_SIZE, Point


def identity_of(repository_id: bytes, point: Point | PointSummary) -> bytes:
    """32 bytes, for a point that lies in this repository."""
    return point.origin or repository_id + point.point_id


def capture_of_copy(capture: Capture, identity: bytes) -> Capture:
    """What a copy of this point records."""
    assert len(identity) == ORIGIN_SIZE
    half = ORIGIN_SIZE // 2
    return {**capture, COPY: {"repository": identity[:half].hex(), "point": identity[half:].hex()}}
