"""The text of a .vmx: as VMware writes it, as people edit it, as an enemy would."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backpoint_fusefs.boot.vmx_text import VMX_SIZE_MAX, parse_vmx


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('key = "value"', "value"),
        ('KEY="value"', "value"),
        ('  Key  =  "a b = c"  ', "a b = c"),
        ('key = "say |22hi|22, 7|7C8"', 'say "hi", 7|8'),
        ('key = "value" # why', "value"),
        ("key = 7", "7"),
        ('key = ""', ""),
        ('key = "a|zz"', "a|zz"),
        ('key = "gr|C3|BCn, |FC"', "grün, ü"),
        ('key = "one"\nkey = "two"', "two"),
        ('# key = "no"\n\n\tkey = "yes"\r\n', "yes"),
    ],
)
def test_a_line_is_a_key_and_its_value(line: str, value: str) -> None:
    """However it is spaced, quoted and written large or small."""
    settings = parse_vmx(line.encode())
    assert settings.text("key") == value
    assert settings.notes == ()


@pytest.mark.parametrize("encoding", ["UTF-8", "windows-1252", "Shift_JIS", "GBK"])
def test_the_encoding_it_names_is_used(encoding: str) -> None:
    """VMware writes in that of the machine where the VM was made."""
    text = "日本" if encoding in ("UTF-8", "Shift_JIS", "GBK") else "Grüße"
    data = f'.encoding = "{encoding}"\ndisplayName = "{text}"\n'.encode(encoding)
    assert parse_vmx(data).text("displayName") == text


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "utf-16", "rot13", "idna", "-Punycode"])
def test_an_encoding_that_is_none_is_passed_over(encoding: str) -> None:
    """UTF-8 then."""
    data = f'.encoding = "{encoding}"\ndisplayName = "Grüße"\n'.encode()
    assert parse_vmx(data).text("displayName") == "Grüße"


@given(st.binary(max_size=400))
@example(b'.encoding = "utf-7"\na = "+')
@example(b'key = "' + b"x" * 400)
def test_nothing_that_stands_there_raises(data: bytes) -> None:
    """Rubbish is left out, and said where it is a line."""
    settings = parse_vmx(data)
    assert all(key == key.lower() for key in settings.values)


@given(st.text(st.characters(exclude_characters='"\r\n|\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029')))
def test_every_value_comes_back(value: str) -> None:
    """Whatever a name is made of; what would end the value is escaped."""
    settings = parse_vmx(f'name = "{value}"\n'.encode("utf-8", "replace"))
    assert settings.text("name") == value.encode("utf-8", "replace").decode()


def test_too_much_of_it_is_cut_and_told() -> None:
    """Size, lines and number of keys have bounds."""
    long = parse_vmx(b'first = "1"\n' + b"#" * VMX_SIZE_MAX + b'\nlast = "1"\n')
    assert (long.text("first"), long.text("last")) == ("1", "")
    assert "cut" in long.notes[0]
    many = parse_vmx(b"".join(b"k%d=1\n" % number for number in range(30_000)))
    assert len(many.values) <= 20_000
    assert "not understood" in many.notes[0]
    assert parse_vmx(b'wide = "' + b"x" * (1 << 15) + b'"').text("wide") == ""


def test_numbers_and_switches_are_what_they_look_like() -> None:
    """And nothing where they make no sense or are out of bounds."""
    settings = parse_vmx(b'a = "TRUE"\nb = "false"\nc = "yes"\nn = " 12 "\nm = "-1"\nl = "9e9"\n')
    assert [settings.switch(key) for key in "abcx"] == [True, False, None, None]
    assert [settings.number(key, 1, 99) for key in "nmlx"] == [12, None, None, None]
    assert settings.number("n", 13, 99) is None
