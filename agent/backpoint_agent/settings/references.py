"""What one table of the file says of another: which vCenter, which transports, whose name.

Works on tables that nobody has checked yet, so that these mistakes come out together with all
others. Decides nothing on a key alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from backpoint_agent.settings.section import KeyPath, look

_NEEDS: Final = {
    "vddk": ("vddk", "[transports.vddk]"),
    "hotadd": ("hotadd", "[transports.hotadd]"),
    "datastore": ("datastores", "an entry in [transports.datastores]"),
}


def reference_mistakes(given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """given: the whole file as it was written. Each mistake with the key to blame."""
    vcenters, jobs = _tables(given, "vcenters"), _tables(given, "jobs")
    for kind, tables in (("vcenters", vcenters), ("jobs", jobs)):
        yield from _name_mistakes(kind, tables)
    yield from _address_mistakes(vcenters)
    for name, job in jobs.items():
        for path, text in _job_mistakes(given, job, list(vcenters)):
            yield ("jobs", name, *path), text


def _tables(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    tables = given.get(key)
    return tables if isinstance(tables, Mapping) else {}


def _name_mistakes(kind: str, tables: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    seen: dict[str, str] = {}
    for name, table in tables.items():
        # Run records and locks are named after them, maybe on a disk that folds case.
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            yield (kind, name), f'differs from "{first}" in capital letters only'
        if isinstance(table, Mapping) and "name" in table:
            yield (kind, name, "name"), f'unknown key; the name is the table\'s: "{name}"'


def _address_mistakes(vcenters: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    seen: dict[str, str] = {}
    for name, table in vcenters.items():
        address = look(table, "address")
        if isinstance(address, str):
            # Two agents' limits would add up on one server, and its VMs be backed up twice.
            first = seen.setdefault(address.lower().removesuffix(":443"), name)
            if first != name:
                yield ("vcenters", name, "address"), f'is the vCenter "{first}" again'


def _job_mistakes(
    given: Mapping[str, Any], job: object, vcenters: list[str]
) -> Iterator[tuple[KeyPath, str]]:
    named = look(job, "vcenter")
    known = ", ".join(vcenters)
    if named is None and len(vcenters) > 1:
        yield ("vcenter",), f"is missing, and there are several: {known}"
    if isinstance(named, str) and vcenters and named not in vcenters:
        near = get_close_matches(named, vcenters, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are: {known}"
        yield ("vcenter",), f"has no table [vcenters.{named}]; {hint}"
    chosen = isinstance(job, Mapping) or "transports" in getattr(job, "model_fields_set", ())
    transports = look(job, "transports") if chosen else None
    for place, name in enumerate(transports if isinstance(transports, list | tuple) else ()):
        if isinstance(name, str) and name in _NEEDS:
            key, table = _NEEDS[name]
            found = look(given, "transports", key)
            if found is None or (key == "datastores" and not found):
                yield ("transports", place), f'"{name}" needs {table}'
