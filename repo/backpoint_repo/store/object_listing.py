"""Long listings of an object store, asked for in several parts at once.

A store lists a thousand keys at a time and the next thousand only when asked, so 100,000 would take
a hundred round trips one after another. Decides how the keys behind the first page are divided:
names are hex digits, evenly spread, so equal parts of the digits hold about equally many. Whatever
the names are, every key is in exactly one part. Knows what a page is, and nothing of requests.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from backpoint_repo.store.contract import StoredObject
from backpoint_repo.store.detached_call import begin

PAGE: Final = 1000
_DIGITS: Final = 4
_NAMES: Final = 16**_DIGITS
_HEX: Final = re.compile(r"[0-9a-f]{0,4}")

Page = list[StoredObject]
AskPage = Callable[[str], Page]
"""The first `PAGE` objects behind a key, in the order of their keys; fewer only at the end."""


class Part(NamedTuple):
    """The keys behind `after`, up to and with `last`, or all."""

    after: str
    last: str | None = None


def plan_parts(folder: str, first: Page, lanes: int) -> list[Part]:
    """Of everything behind a full first page; as many as it seems to need pages, up to `lanes`.

    folder: what the keys begin with, up to where their digits are.
    """
    after = first[-1].key
    digits = _HEX.match(after.removeprefix(folder))
    assert digits is not None
    listed = int(digits[0].ljust(_DIGITS, "0"), 16)
    left = _NAMES - listed
    count = min(lanes, math.ceil(left / max(listed, 1)))
    ends = [f"{folder}{listed + left * part // count:0{_DIGITS}x}" for part in range(1, count)]
    bounds = [after, *(end for end in ends if end > after), None]
    return [Part(low, high) for low, high in pairwise(bounds) if low is not None]


def list_parts(ask: AskPage, parts: list[Part], lanes: int) -> Iterator[Page]:
    """Pages as they come, no more than `lanes` of them asked for or waiting to be taken. Whoever
    wants no more of them does not wait for what has been asked for."""
    waiting, under_way = deque(parts), dict[Future[Page], Part]()
    while waiting or under_way:
        while waiting and len(under_way) < lanes:
            part = waiting.popleft()
            under_way[begin(partial(ask, part.after))] = part
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for answer in done:
            part, page = under_way.pop(answer), answer.result()
            inside = [found for found in page if part.last is None or found.key <= part.last]
            if len(inside) == PAGE:
                waiting.append(part._replace(after=page[-1].key))
            yield inside


def is_ordered(page: Page) -> bool:
    """Whether a part of a listing can be told by the keys it lies between."""
    return all(one.key < next_.key for one, next_ in pairwise(page))
