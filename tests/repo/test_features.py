"""A program that does not know what a repository demands reads it, and does not write to it."""

from __future__ import annotations

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.errors import UnknownFormat
from backpoint_repo.repository import Repository


def test_unknown_demands_stop_writers_not_readers(repository: Repository) -> None:
    repository.sealed.store.put("requires/holds", [b"any content"])
    with pytest.raises(UnknownFormat, match=r"requires holds"):
        repository.begin_backup("vm")
    assert repository.catalog.refresh() == []
    assert check_repository(repository, read_share=1.0).clean
