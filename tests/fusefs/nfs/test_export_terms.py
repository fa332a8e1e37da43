"""To whom a repository is served, and to whom it is not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.nfs.export_terms import plan_terms
from backpoint_repo.errors import UsageError

_OTHERS = st.ip_addresses(v=4).filter(lambda address: not address.is_loopback)


def test_by_default_only_this_machine_has_access() -> None:
    """Neither the address nor the networks reach beyond loopback."""
    terms = plan_terms(None, [])
    assert terms.address.is_loopback
    assert all(network.is_loopback for network in terms.allowed)


@given(_OTHERS)
def test_an_address_that_others_reach_needs_networks(address: IPv4Address) -> None:
    """No default opens an address of the network, 0.0.0.0 included."""
    with pytest.raises(UsageError, match="--allow"):
        plan_terms(str(address), [])


@given(_OTHERS, st.lists(st.ip_addresses(v=4), min_size=1))
def test_only_what_was_named_is_allowed(address: IPv4Address, names: list[IPv4Address]) -> None:
    """Nothing is added to the networks, not even this machine."""
    terms = plan_terms(str(address), [str(name) for name in names])
    assert terms.address == address
    assert terms.allowed == tuple(IPv4Network(name) for name in names)


def test_a_network_is_taken_from_any_of_its_addresses() -> None:
    """10.0.1.7/24 is the network that it is in, as other tools have it."""
    assert plan_terms("10.0.0.1", ["10.0.1.7/24"]).allowed == (IPv4Network("10.0.1.0/24"),)


def test_everybody_is_told_as_such() -> None:
    """A network of everybody is open to all; a smaller one is not."""
    assert plan_terms("10.0.0.1", ["10.0.0.0/8", "0.0.0.0/0"]).open_to_all
    assert not plan_terms("10.0.0.1", ["10.0.0.0/8"]).open_to_all


@pytest.mark.parametrize(
    ("listen", "allow", "ports", "said"),
    [
        ("host.example", ["10.0.0.1"], (2049, 20048), "--listen host.example"),
        ("::1", ["10.0.0.1"], (2049, 20048), "IPv4"),
        ("10.0.0.1", ["10.0.0.0/33"], (2049, 20048), "--allow 10.0.0.0/33"),
        ("10.0.0.1", ["*"], (2049, 20048), "--allow"),
        ("10.0.0.1", ["1.1.1.1; }"], (2049, 20048), "--allow"),
        (None, ["10.0.0.1"], (2049, 20048), "--listen"),
        (None, [], (0, 20048), "--port"),
        (None, [], (2049, 65536), "--mount-port"),
        (None, [], (2049, 2049), "differ"),
    ],
)
def test_what_makes_no_sense_is_refused(
    listen: str | None, allow: list[str], ports: tuple[int, int], said: str
) -> None:
    """The message names the option that is wrong."""
    with pytest.raises(UsageError, match=said.replace("*", r"\*")):
        plan_terms(listen, allow, nfs_port=ports[0], mount_port=ports[1])
