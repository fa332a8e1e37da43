"""The sorts of value a key may have: each with its syntax, its limits, and what is said if not.

Numbers and flags are what TOML says they are: the text "4" is no number, 1 is no flag. Every number
has an upper limit, because a wait of 1e300 seconds is none. Knows no key.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
import uuid
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo

from backpoint_agent.cron import BadCron, check_cron
from backpoint_agent.settings.section import mistake
from backpoint_repo.errors import UsageError
from backpoint_repo.sizes import format_size, parse_duration, parse_size
from backpoint_repo.store.place import BucketPlace, parse_place

FOLDER: Final = "folder"
"""Key of the validation context: the folder that relative paths are relative to."""

_LONGEST_WAIT_S: Final = 30 * 86_400
_SLOWEST: Final = 64 << 10
"""Below it a single chunk takes minutes and every limit of a wait comes first."""
_NOT_IN_A_LINE: Final = {"Cc", "Cs", "Zl", "Zp"}
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?")
_NAME: Final = re.compile(r"\w[\w.-]{0,63}")
_TIME: Final = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST_SIZES: Final = {20: "SHA-1", 32: "SHA-256"}


def _one_line(text: str) -> str:
    if not text.strip():
        raise mistake("must not be empty")
    if any(unicodedata.category(char) in _NOT_IN_A_LINE for char in text):
        raise mistake("must be one line without control characters")
    return text


def _line_first(value: Any) -> Any:
    return _one_line(value) if isinstance(value, str) else value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    try:
        expanded = path.expanduser()
    except RuntimeError:
        raise mistake(f"the home of {path.parts[0]} is not known") from None
    return Path(info.context[FOLDER]) / expanded if info.context else expanded


def _repository(text: str, info: ValidationInfo) -> str:
    try:
        place = parse_place(text)
    except UsageError as error:
        raise mistake(f"is no place of a repository: {error}") from None
    return place.address if isinstance(place, BucketPlace) else str(_absolute(place, info))


def _bucket(text: str) -> str:
    try:
        place = parse_place(text)
    except UsageError as error:
        raise mistake(f"is no address of a bucket: {error}") from None
    if not isinstance(place, BucketPlace):
        raise mistake("must begin with s3://, gs:// or az://")
    return place.address


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if "://" in text:
        raise mistake('must be a host or host:port, without "https://" and a path')
    if match is None:
        raise mistake("must be a host or host:port; an IPv6 address stands in brackets")
    if match[1] is not None and not 1 <= int(match[1]) <= 65_535:
        raise mistake(f"has the port {int(match[1])}; ports are 1 to 65535")
    return text


def _thumbprint(text: str) -> str:
    digits = text.replace(":", "").replace(" ", "")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        raise mistake('must be hexadecimal bytes: "AA:BB:..."') from None
    if len(digest) not in _DIGEST_SIZES:
        sizes = " or ".join(f"{size} ({name})" for size, name in _DIGEST_SIZES.items())
        raise mistake(f"has {len(digest)} bytes; a thumbprint has {sizes}")
    return digest.hex(":").upper()


def _rate(text: str) -> str:
    try:
        size = parse_size(text)
    except UsageError as error:
        raise mistake(str(error)) from None
    if size < _SLOWEST:
        raise mistake(f"must be at least {format_size(_SLOWEST)} a second")
    return text


def _duration(text: str) -> str:
    try:
        parse_duration(text)
    except UsageError as error:
        raise mistake(str(error)) from None
    return text


def _cron(text: str) -> str:
    try:
        check_cron(text)
    except BadCron as error:
        raise mistake(str(error)) from None
    return text


def _time_of_day(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise mistake('must be a time of day from "00:00" to "23:59"')
    return text


def _table_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise mistake(
            "is a bad name: up to 64 letters, digits, dots, hyphens and underscores, "
            "the first a letter or digit"
        )
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise mistake("must be the name of an environment variable")
    return text


def _command(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise mistake(f"cannot be split into words: {str(error).lower()}") from None
    return text


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise mistake('must be a UUID: "501e4f52-8a1b-..."') from None


def _attribute(text: str) -> str:
    name, equals, pattern = text.partition("=")
    if not (name.strip() and equals and pattern.strip()):
        raise mistake('must be "name=pattern"')
    return text


Text = Annotated[str, AfterValidator(_one_line)]
Texts = tuple[Text, ...]
TableName = Annotated[Text, AfterValidator(_table_name)]
LocalPath = Annotated[Path, BeforeValidator(_line_first), AfterValidator(_absolute)]
RepositoryPlace = Annotated[Text, AfterValidator(_repository)]
BucketAddress = Annotated[Text, AfterValidator(_bucket)]
Address = Annotated[Text, AfterValidator(_address)]
Thumbprint = Annotated[Text, AfterValidator(_thumbprint)]
Rate = Annotated[Text, AfterValidator(_rate)]
Duration = Annotated[Text, AfterValidator(_duration)]
CronExpression = Annotated[Text, AfterValidator(_cron)]
TimeOfDay = Annotated[Text, AfterValidator(_time_of_day)]
EnvironmentVariable = Annotated[Text, AfterValidator(_variable)]
CommandLine = Annotated[Text, AfterValidator(_command)]
MachineUuid = Annotated[Text, AfterValidator(_uuid)]
AttributePattern = Annotated[Text, AfterValidator(_attribute)]

Flag = Annotated[bool, Strict()]
Seconds = Annotated[float, Strict(), Field(gt=0, le=_LONGEST_WAIT_S)]
Days = Annotated[float, Strict(), Field(gt=0, le=3650)]
Hours = Annotated[float, Strict(), Field(gt=0, le=8760)]
Probability = Annotated[float, Strict(), Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=1, le=1000)]
Retries = Annotated[int, Strict(), Field(ge=0, le=20)]
Kept = Annotated[int, Strict(), Field(ge=0, le=100_000)]
Port = Annotated[int, Strict(), Field(ge=1, le=65_535)]
