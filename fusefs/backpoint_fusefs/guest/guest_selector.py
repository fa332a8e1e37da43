"""`VM@POINT:PATH` as users type it: which point, and which place among its guest's files.

Pure: decides over a list of summaries. Names of VMs and times may hold a colon, so the longest
beginning that names a point is taken for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError
from backpoint_repo.point_selector import select_point


def split_selector(points: Sequence[PointSummary], text: str) -> tuple[PointSummary, bytes]:
    """The point, and the path as the guest's filesystems spell it; empty where there is none.

    Raises UsageError where no beginning of `text` names exactly one point.
    """
    ends = [at for at, letter in enumerate(text) if letter == ":"] + [len(text)]
    for end in reversed(ends):
        try:
            point = select_point(points, text[:end])
        except UsageError:
            continue
        return point, os.fsencode(text[end + 1 :])
    # The message is about what was most likely meant: what stands before the path.
    path = next((at for at in ends if text[at + 1 : at + 2] in ("", "/")), ends[0])
    select_point(points, text[:path])
    raise AssertionError("a selector that was refused is accepted")
