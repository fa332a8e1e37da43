"""The policies that the project hands out (`repo/policies`), filled in for a test's bucket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent.parent / "repo" / "policies"
PLACEHOLDERS: Final = ("ACCOUNT", "AGENT", "MAINTAINER", "BUCKET", "PREFIX")


def policy(name: str, **given: str) -> Any:
    """A policy's JSON, with what it says in capitals replaced; nothing may be left in capitals."""
    text = (FOLDER / name).read_text()
    for word, value in given.items():
        text = text.replace(word, value)
    left = [word for word in PLACEHOLDERS if word in text]
    assert not left, left
    return json.loads(text)
