"""The configuration that NFS-Ganesha gets."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.nfs.export_terms import ExportTerms, plan_terms
from backpoint_fusefs.nfs.ganesha_config import ganesha_config

_PLACES = (Path("/run/x/mount"), Path("/run/x/clients"))


def _values(terms: ExportTerms, name: str, *, nfs3: bool = True) -> list[str]:
    text = ganesha_config(terms, *_PLACES, nfs3=nfs3)
    return re.findall(rf"^\s*{name} = (.*);$", text, re.MULTILINE)


@given(st.lists(st.ip_addresses(v=4), min_size=1), st.booleans())
def test_access_is_for_clients_named_and_for_nobody_else(
    clients: list[IPv4Address], read_only: bool
) -> None:
    """By default None, everywhere; the one exception is the list of clients."""
    terms = plan_terms("10.0.0.1", [str(client) for client in clients], read_only=read_only)
    *others, named = _values(terms, "Access_Type")
    assert set(others) == {"None"}
    assert named == ("RO" if read_only else "RW")
    assert _values(terms, "Clients") == [", ".join(f"{client}/32" for client in clients)]


def test_without_rpcbind_only_version_4_is_served() -> None:
    """NFS-Ganesha ends at its start where NFSv3 cannot be registered."""
    terms = plan_terms(None, [])
    assert set(_values(terms, "Protocols", nfs3=False)) == {"4"}
    assert set(_values(terms, "Protocols")) == {"3,4"}


def test_address_and_ports_are_those_of_the_terms() -> None:
    """They are fixed, and nothing listens on UDP."""
    terms = plan_terms("10.0.0.1", ["10.0.0.2"], nfs_port=3049, mount_port=3048)
    assert _values(terms, "Bind_Addr") == ["10.0.0.1"]
    assert _values(terms, "NFS_Port") == ["3049"]
    assert _values(terms, "MNT_Port") == ["3048"]
    assert _values(terms, "Enable_UDP") == ["false"]
