"""What FORMAT.md says of parity is enough to repair a repository without this program."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backpoint_repo.format import Kind
from backpoint_repo.repository import Repository
from repo.parity.parity_reader import (
    abscissa,
    added,
    multiplied,
    pack_path,
    power,
    read_group,
    rebuilt,
    scaled,
)
from repo.parity.parity_scene import filled_repository, keep_up
from repo.second_reader_keys import Damaged, by_passphrase
from small_repository import PASSPHRASE, assert_clean, keys_of


def written_out(repository: Repository, folder: Path) -> list[Path]:
    """The repository as a directory; its spares."""
    store = repository.sealed.store
    for found in store.list(""):
        path = folder / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(found.key))
    return [folder / key for key in keys_of(store, Kind.PARITY)]


def test_spares_are_values_of_the_packs_polynomial(tmp_path: Path) -> None:
    """By Lagrange's formula, which the page does not mention and must follow from it."""
    repository = filled_repository(3)
    keep_up(repository, (6, 3))
    spares = written_out(repository, tmp_path)
    keys = by_passphrase(tmp_path, PASSPHRASE.text)
    for path in spares:
        group, body = read_group(tmp_path, keys, path)
        names = [row[0].hex() for row in group["spares"]]
        x = abscissa(6 + names.index(path.name))
        value = bytes(len(body))
        for number, row in enumerate(group["members"]):
            weight = 1
            for other in set(range(6)) - {number}:
                weight = multiplied(weight, x ^ abscissa(other))
                weight = multiplied(weight, power(abscissa(number) ^ abscissa(other), 254))
            pack = pack_path(tmp_path, row).read_bytes().ljust(len(body), b"\0")
            value = added(value, scaled(weight, pack))
        assert value == body
    assert_clean(repository)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_second_decoder_rebuilds_lost_packs(tmp_path: Path, number: int) -> None:
    repository = filled_repository(4)
    keep_up(repository, (4, 2))
    spares = written_out(repository, tmp_path)
    keys = by_passphrase(tmp_path, PASSPHRASE.text)
    groups = [read_group(tmp_path, keys, path)[0] for path in spares]
    before = dict[str, bytes]()
    for group in groups:
        path = pack_path(tmp_path, group["members"][number])
        if path.exists():
            before[path.relative_to(tmp_path).as_posix()] = path.read_bytes()
            path.unlink()
        second = pack_path(tmp_path, group["members"][2])
        if second.exists():  # rotten at its head: another column is bad elsewhere
            second.write_bytes(random.Random(1).randbytes(500) + second.read_bytes()[500:])
    assert before
    assert rebuilt(tmp_path, keys, number) == before


def test_what_is_not_as_the_page_says_is_refused(tmp_path: Path) -> None:
    repository = filled_repository(1)
    keep_up(repository, (2, 1))
    (spare,) = written_out(repository, tmp_path)
    moved = tmp_path / "parity" / ("0" * 32)
    spare.rename(moved)
    with pytest.raises(Damaged):
        read_group(tmp_path, by_passphrase(tmp_path, PASSPHRASE.text), moved)
