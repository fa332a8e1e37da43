"""The recovery key as people write it: forgiving of looks, strict about content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import WrongPassphrase
from backpoint_repo.recovery_key import (
    ENTROPY_SIZE,
    format_recovery_key,
    new_recovery_key,
    parse_recovery_key,
)

entropies = st.binary(min_size=ENTROPY_SIZE, max_size=ENTROPY_SIZE)


@given(entropies)
def test_written_and_read_again(entropy: bytes) -> None:
    text = format_recovery_key(entropy)
    assert text.startswith("BPR-")
    assert len(text.split("-")) == 15
    assert parse_recovery_key(text) == entropy


@given(entropies)
def test_looks_do_not_matter(entropy: bytes) -> None:
    text = format_recovery_key(entropy)
    body = text[4:]
    for written in (
        text.lower(),
        f"  {text}\n",
        text.replace("-", " "),
        text.replace("-", ""),
        "BPR-" + body.replace("-", ""),
        "BPR-" + body.replace("O", "0").replace("I", "1").replace("B", "8"),
        "BPR-" + body.replace("-", " - "),
    ):
        assert parse_recovery_key(written) == entropy, written


@given(entropies, st.integers(0, 55), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_one_wrong_symbol_is_noticed(entropy: bytes, place: int, symbol: str) -> None:
    symbols = list(format_recovery_key(entropy).removeprefix("BPR-").replace("-", ""))
    if symbols[place] == symbol:
        return
    symbols[place] = symbol
    with pytest.raises(WrongPassphrase, match="mistyped"):
        parse_recovery_key("BPR-" + "".join(symbols))


@pytest.mark.parametrize(
    "text", ["BPR-", "BPR-AAAA", "BPR-!!!!", "bpr-ab=c", "BPR-" + "A" * 56, "BPR-" + "ä" * 56,
             "BPR-" + "\u0660" * 56],
)  # fmt: skip
def test_a_recovery_key_with_slips_is_no_passphrase(text: str) -> None:
    with pytest.raises(WrongPassphrase, match="mistyped"):
        parse_recovery_key(text)


@pytest.mark.parametrize("text", ["", "horse", "bpr", "bprocket science", "xBPR-AAAA", "BPR key"])
def test_passphrases_are_not_recovery_keys(text: str) -> None:
    assert parse_recovery_key(text) is None


def test_keys_are_random() -> None:
    assert len({new_recovery_key() for _ in range(50)}) == 50
