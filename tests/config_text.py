"""A short configuration that is right, ways to spoil it, and what reading it says."""

from __future__ import annotations

from pathlib import Path

from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import examine_settings

FOLDER = Path("/etc/backpoint")

VALID = """\
[repository]
path = "/srv/backpoint"
credential = "agent.credential"

[vcenters.main]
address = "vc1.example.com"
user = "backup"
password = { file = "password" }

[jobs.nightly]
select = { names = ["*"] }
"""
OF_MAIN = '[vcenters.main]\naddress = "vc1.example.com"\nuser = "backup"\n'


def with_job(text: str) -> str:
    """The valid file with these lines behind the job's."""
    return VALID + text


def with_vcenter(text: str) -> str:
    """The valid file with these lines behind the vCenter's password."""
    return VALID.replace("\n\n[jobs", f"\n{text}\n[jobs")


def right(text: str) -> Settings:
    """What a file without mistakes says."""
    found = examine_settings(text, FOLDER)
    assert isinstance(found, Settings), found
    return found


def wrong(text: str) -> list[str]:
    """The mistakes as they are told."""
    found = examine_settings(text, FOLDER)
    assert isinstance(found, list), "there is no mistake"
    assert found == sorted(found)
    return [mistake.told("f") for mistake in found]
