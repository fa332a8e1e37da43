"""How an object store is reached: what a [store] table and the environment may say, which counts,
and that no secret gets out of either. Requests are real, to a server that keeps what it was sent.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backpoint_repo.errors import KeyFault, ObjectMissing, UsageError
from backpoint_repo.secret_place import SecretPlace
from backpoint_repo.store.address import open_store
from backpoint_repo.store.place import BucketPlace
from backpoint_repo.store.settings import StoreTables, check_endpoint, read_store_file
from backpoint_repo.store.settings_environment import environment_keys, environment_settings
from object_server import ADMIN, ObjectServer

SECRET = "wJalrXUtnFEMIK7MDENG"
KEYS = {"AWS_ACCESS_KEY_ID": "ENVKEY", "AWS_SECRET_ACCESS_KEY": SECRET}


def read(folder: Path, text: str) -> StoreTables:
    path = folder / "b.toml"
    path.write_text(text)
    return read_store_file(path)


# --- the file --------------------------------------------------------------------------------


def test_a_whole_table(tmp_path: Path) -> None:
    tables = read(
        tmp_path,
        """
        [repository]
        path = "s3://bucket"    # the agent's, as all else
        [store]
        endpoint = "https://s3.example.com:9000/"
        region = "eu-1"
        ca_file = "ca.pem"
        virtual_hosted = true
        allow_http = true
        access_key_id = "key"
        secret_access_key = { file = "secret" }
        session_token = { environment = "TOKEN" }
        """,
    )
    settings = tables.default
    assert settings is not None
    assert settings.endpoint == "https://s3.example.com:9000"
    assert (settings.region, settings.virtual_hosted, settings.allow_http) == ("eu-1", True, True)
    assert settings.ca_file == tmp_path / "ca.pem"
    assert settings.secret_access_key == SecretPlace(file=tmp_path / "secret")
    assert settings.session_token == SecretPlace(environment="TOKEN")


def test_the_longest_address_that_fits_counts(tmp_path: Path) -> None:
    tables = read(
        tmp_path,
        """
        [store]
        region = "all"
        [[store.at]]
        address = "s3://buck"
        region = "bucket"
        [[store.at]]
        address = "s3://buck/off/site/"
        region = "prefix"
        """,
    )

    def region(bucket: str, prefix: str) -> str | None:
        settings = tables.settings_of(BucketPlace("s3", bucket, prefix))
        assert settings is not None
        return settings.region

    assert region("other", "") == "all"
    assert region("buck", "") == region("buck", "off") == region("buck", "off/sites") == "bucket"
    assert region("buck", "off/site") == region("buck", "off/site/x") == "prefix"
    assert StoreTables().settings_of(BucketPlace("s3", "buck", "")) is None


@pytest.mark.parametrize("text", ["", "[repository]\npath = '/srv'"])
def test_a_file_without_the_table_says_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == StoreTables()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[store", "is no TOML"),
        ("store = 1", "store must be a table"),
        ("[store]\nat = 1", "store.at must be tables"),
        ("[[store.at]]\nregion = 'x'", "store.at[0].address: must be a text"),
        ("[[store.at]]\naddress = '/srv'", "store.at[0].address: must begin with s3://"),
        ("[[store.at]]\naddress = 's3://'", "store.at[0].address: 's3://' names no bucket"),
        ("[store]\nbucket = 'x'", "store.bucket: is not known"),
        ('[store]\n"\\u001b[1m" = 1', "store.a key: is not known"),
        ("[store]\nregion = 3", "store.region: must be a text"),
        ('[store]\nregion = "a\\u0007"', "store.region: must be a text"),
        ("[store]\nallow_http = 'yes'", "store.allow_http: must be true or false"),
        ("[store]\nendpoint = 'http://s3.example.com'", "store.endpoint: is http://"),
        ("[store]\nendpoint = 'https://u:p@h'", "store.endpoint: must not hold a user"),
        ("[store]\naccess_key_id = 'a'", "store.access_key_id: needs a secret_access_key"),
        (f"[store]\naccess_key_id = 'a'\nsecret_access_key = '{SECRET}'", "do not stand in this"),
        ("[store]\naccess_key_id = 'a'\nsecret_access_key = {}", "must say where the secret is"),
        ("[store]\nsecret_access_key = { file = 'x' }", "needs an access_key_id"),
        ("[store]\nsession_token = { file = 'x' }", "needs an access_key_id"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    said = str(refused.value)
    assert said.startswith(str(tmp_path / "b.toml"))
    assert why in said
    assert SECRET not in said


def test_one_address_has_one_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="s3://buck has a table already"):
        read(tmp_path, "[[store.at]]\naddress='s3://buck'\n[[store.at]]\naddress='S3://buck/'")


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("https://s3.example.com", True),
        ("http://127.0.0.1:9000", True),
        ("http://127.8.0.1", True),
        ("http://[::1]:9000", True),
        ("http://localhost:9000", True),
        ("http://127.0.0.1.example.com", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("ftp://h", False),
        ("https://", False),
        ("https://h:70000", False),
        ("https://h?a=b", False),
        ("h:9000", False),
    ],
)
def test_plain_http_stays_on_this_machine(endpoint: str, allowed: bool) -> None:
    if allowed:
        assert check_endpoint(endpoint, allow_http=False) == endpoint
    else:
        with pytest.raises(UsageError):
            check_endpoint(endpoint, allow_http=False)
    assert check_endpoint("http://10.0.0.1", allow_http=True) == "http://10.0.0.1"


# --- secrets ---------------------------------------------------------------------------------


def test_a_secret_is_the_first_line_of_its_place(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\r\nmore\n")
    file.chmod(0o600)
    assert SecretPlace(file=file).read_ascii("it", {}) == SECRET
    assert SecretPlace(command=f"printf '%s\\n' {SECRET}").read_ascii("it", {}) == SECRET
    assert SecretPlace(environment="S").read_ascii("it", {"S": SECRET}) == SECRET


@pytest.mark.parametrize(
    "place",
    [
        SecretPlace(file=Path("/nowhere/secret")),
        SecretPlace(file=Path("/dev/null")),
        SecretPlace(command="false"),
        SecretPlace(command="/nowhere/command " + SECRET),
        SecretPlace(command=f"sh -c 'printf \"\\303\\244\"' {SECRET}"),
        SecretPlace(command="'"),
        SecretPlace(environment="NONE"),
        SecretPlace(environment="BAD"),
    ],
)
def test_a_place_without_a_secret_is_named(place: SecretPlace) -> None:
    with pytest.raises(KeyFault, match=r"^the key: ") as refused:
        place.read_ascii("the key", {"BAD": f"{SECRET}\t"})
    assert SECRET not in str(refused.value)


# --- the environment -------------------------------------------------------------------------


def test_the_variable_for_s3_goes_before_those_for_all() -> None:
    all_of_them = {
        "AWS_ENDPOINT": "https://c",
        "AWS_ENDPOINT_URL": "https://b",
        "AWS_ENDPOINT_URL_S3": "https://a",
    }
    for last in ("https://a", "https://b", "https://c"):
        assert environment_settings(all_of_them).endpoint == last
        all_of_them = {name: url for name, url in all_of_them.items() if url != last}
    assert environment_settings({"AWS_ENDPOINT_URL_S3": ""}).endpoint is None
    assert environment_settings({"AWS_DEFAULT_REGION": "x"}).region == "x"
    assert environment_settings({"AWS_DEFAULT_REGION": "x", "AWS_REGION": "y"}).region == "y"


def test_keys_of_a_profile(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = D\naws_secret_access_key = {SECRET}%x\n"
        f"[other]\naws_access_key_id=O\naws_secret_access_key={SECRET}\naws_session_token=T\n"
        "[role]\nrole_arn = arn:aws:iam::1:role/x\n"
    )
    home = {"HOME": str(tmp_path)}
    assert environment_keys(home) == ("D", f"{SECRET}%x", None)
    assert environment_keys(home | {"AWS_PROFILE": "other"}) == ("O", SECRET, "T")
    assert environment_keys(home | KEYS) == ("ENVKEY", SECRET, None)
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "other"}
    assert environment_keys(named) == ("O", SECRET, "T")
    for profile in ("role", "nobody"):
        with pytest.raises(KeyFault, match=f"AWS_PROFILE names '{profile}'") as refused:
            environment_keys(home | {"AWS_PROFILE": profile})
        assert SECRET not in str(refused.value)
    assert environment_keys({"HOME": "/nowhere"}) is None
    assert SECRET not in repr(environment_keys(home))


# --- what is sent ----------------------------------------------------------------------------


class Listener(ThreadingHTTPServer):
    """Answers every request with 404 and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.server.asked.append((self.path, headers))
        body = b"<Error><Code>NoSuchKey</Code></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def asked(
    listener: Listener, environment: dict[str, str], tables: StoreTables | None = None
) -> str:
    """How the request for an object was signed, and its path."""
    listener.asked.clear()
    with pytest.raises(ObjectMissing):
        open_store("s3://buck/pre", environment, tables).get("x")
    path, headers = listener.asked[0]
    assert SECRET not in str(listener.asked)
    return f"{path} {headers['authorization']} {headers.get('x-amz-security-token', '-')}"


def test_a_table_stands_for_itself(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an endpoint nor a token of the environment joins it, not even by the library."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "ENVTOKEN")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    tables = read(
        tmp_path,
        f"""
        [store]
        endpoint = "{listener.url}"
        region = "mars-1"
        access_key_id = "TABLEKEY"
        secret_access_key = {{ environment = "TABLESECRET" }}
        """,
    )
    environment = KEYS | {"AWS_SESSION_TOKEN": "ENVTOKEN", "TABLESECRET": "s3cret"}
    sent = asked(listener, environment, tables)
    assert sent.startswith("/buck/pre/x ")
    assert "Credential=TABLEKEY/" in sent
    assert "/mars-1/s3/" in sent
    assert sent.endswith(" -")


def test_a_table_without_keys_takes_those_of_the_environment(
    tmp_path: Path, listener: Listener
) -> None:
    tables = read(tmp_path, f'[store]\nendpoint = "{listener.url}"')
    sent = asked(listener, KEYS | {"AWS_SESSION_TOKEN": "T"}, tables)
    assert "Credential=ENVKEY/" in sent
    assert "/us-east-1/" in sent
    assert sent.endswith(" T")


def test_the_file_is_found_by_the_environment(tmp_path: Path, listener: Listener) -> None:
    read(tmp_path, f'[store]\nendpoint = "{listener.url}"')
    sent = asked(listener, KEYS | {"BACKPOINT_CONFIG": str(tmp_path / "b.toml")})
    assert sent.startswith("/buck/pre/x ")


def test_the_environment_alone(listener: Listener) -> None:
    sent = asked(listener, KEYS | {"AWS_ENDPOINT_URL": listener.url, "AWS_REGION": "eu-9"})
    assert "Credential=ENVKEY/" in sent
    assert "/eu-9/s3/" in sent


def test_two_stores_with_other_credentials_at_once(tmp_path: Path, server: ObjectServer) -> None:
    """As a copy has them; the one that the environment is for has none that the server knows."""
    secret = tmp_path / "secret"
    secret.write_text(ADMIN[1])
    secret.chmod(0o600)
    prefix = f"s3://tests/{secrets.token_hex(8)}"
    tables = read(
        tmp_path,
        f"""
        [store]
        endpoint = "{server.endpoint}"
        [[store.at]]
        address = "{prefix}/offsite"
        endpoint = "{server.endpoint}"
        access_key_id = "{ADMIN[0]}"
        secret_access_key = {{ file = "secret" }}
        """,
    )
    offsite = open_store(f"{prefix}/offsite/deep", KEYS, tables)
    offsite.put("a", [b"1"])
    assert offsite.get("a") == b"1"
    with pytest.raises(Exception, match=r"ENVKEY|access key"):
        open_store(prefix, KEYS, tables).get("a")
