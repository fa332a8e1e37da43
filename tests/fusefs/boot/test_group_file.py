"""The file that says which VMs boot together: read whole, or refused with every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.boot.group_file import Member, Ready, read_group
from backpoint_repo.errors import UsageError


def _read(folder: Path, text: str) -> list[Member]:
    path = folder / "group.toml"
    path.write_text(text)
    return read_group(path)


def test_members_start_behind_what_they_wait_for(tmp_path: Path) -> None:
    """In the file's order else; every setting arrives."""
    members = _read(
        tmp_path,
        """
        [[vm]]
        point = "app01@-1"
        after = ["db"]
        wait = 2.5
        [[vm]]
        point = "files01"
        [[vm]]
        name = "db"
        point = "db01@latest"
        memory = "2G"
        address = "10.0.0.5"
        ready = { port = 5432, timeout = 90 }
        """,
    )
    assert [member.title for member in members] == ["files01", "db", "app01"]
    assert members[1].point == "db01@latest"
    assert members[1].memory == 2048
    assert members[1].address == "10.0.0.5"
    assert members[1].ready == Ready(port=5432, timeout=90)
    assert members[2].after == ["db"]
    assert members[2].wait == 2.5
    assert members[2].ready is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "vm: Field required"),
        ("vm = 3", "vm: Input should be a valid list"),
        ("x = [", "is no TOML"),
        ("[[vm]]\npoint = 'a'\n[[vm]]\npoint = 'a@-2'", "'a' is there twice"),
        ("[[vm]]\npoint = 'a'\nafter = ['b']", "which is not here"),
        ("[[vm]]\npoint = 'a'\nafter = ['a']", "wait for each other: 'a'"),
        ("[[vm]]\npoint = 'a'\nafter = 'b'", "after: Input should be a valid list"),
        ("[[vm]]\nname = 'a'", "point: Field required"),
        ("[[vm]]\npoint = 1", "point: Input should be a valid string"),
        ("[[vm]]\npoint = 'a'\nmemroy = '1G'", "vm number 1, memroy: Extra"),
        ("[[vm]]\npoint = 'a'\nmemory = 'much'", "vm number 1"),
        ("[[vm]]\npoint = 'a'\nmemory = '1K'", "too little memory"),
        ("[[vm]]\npoint = 'a'\nwait = -1", "wait: Input should be greater"),
        ("[[vm]]\npoint = 'a'\nwait = true", "wait: Input should be a valid number"),
        ("[[vm]]\npoint = 'a'\naddress = 'here'", "address: Expected 4 octets"),
        ("[[vm]]\npoint = 'a'\nready = { port = 80 }", "can only be asked at an `address`"),
        ("[[vm]]\npoint = 'a'\nready = { text = '(' }", "is no regular expression"),
        ("[[vm]]\npoint = 'a'\nready = { }", "needs one of"),
        ("[[vm]]\npoint = 'a'\nready = { text = 'a', screen = true }", "needs one of"),
        ("[[vm]]\npoint = 'a'\nready = 'login'", "ready: Input should be a valid dict"),
        (
            "[[vm]]\npoint = 'a'\naddress = '1.2.3.4'\nready = { port = 70000 }",
            "ready, port: Input should be less",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    """And nothing is booted of a file that has one."""
    with pytest.raises(UsageError) as refused:
        _read(tmp_path, text)
    assert said in str(refused.value)
    assert str(tmp_path / "group.toml") in str(refused.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to find the second one in the next night."""
    with pytest.raises(UsageError) as refused:
        _read(tmp_path, "[[vm]]\npoint = 'a'\nwait = -1\n[[vm]]\nmemory = 3")
    assert len(str(refused.value).splitlines()) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is a user's mistake."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_group(tmp_path / "none.toml")


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_any_order_without_circles_is_kept(
    tmp_path_factory: pytest.TempPathFactory, waits: list[list[int]]
) -> None:
    """Whatever the file's order, nobody starts before those that he waits for."""
    text = ""
    for number, after in enumerate(waits):
        # Only for those behind it in the file: no circle is possible, and every order is wrong.
        later = sorted({number + 1 + one for one in after if number + 1 + one < len(waits)})
        names = ", ".join(f"'m{one}'" for one in later)
        text += f"[[vm]]\npoint = 'm{number}'\nafter = [{names}]\n"
    members = _read(tmp_path_factory.mktemp("group"), text)
    started: set[str] = set()
    for member in members:
        assert started.issuperset(member.after)
        started.add(member.title)
    assert len(members) == len(waits)
