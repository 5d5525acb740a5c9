"""Settings: where they come from, what is said about a wrong one, and what is never shown (R22)."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from gateway.config import Broker, ConfigError, Settings, load

FLAGS = {"data": "/nowhere/onekey"}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("ONEKEY_"):
            monkeypatch.delenv(name)


def settings(**flags: Any) -> Settings:
    return load(**{**FLAGS, **flags})


# Where they come from


def test_everything_stays_on_this_machine_unless_told_otherwise() -> None:
    plain = settings()
    assert plain.bind == "127.0.0.1"
    assert plain.people_url == "http://127.0.0.1:8080"
    assert (plain.database, plain.mqtt, plain.master_key) == (None, None, None)
    assert plain.master_key_file == Path("/nowhere/onekey/keys/master.key")


def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.toml"
    file.write_text('http_port = 1\nmqtt_port = 2\nreplica = "file"\n', encoding="utf-8")
    monkeypatch.setenv("ONEKEY_HTTP_PORT", "3")
    monkeypatch.setenv("ONEKEY_REPLICA", "environment")
    read = settings(file=file, replica="flag")
    assert (read.http_port, read.mqtt_port, read.replica) == (3, 2, "flag")


def test_a_flag_that_was_not_given_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEKEY_LOG_LEVEL", "debug")
    assert settings(log_level=None).log_level == "debug"


def test_the_file_in_the_data_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "onekey.toml").write_text("alarm_workers = 3\n", encoding="utf-8")
    assert load(data=tmp_path).alarm_workers == 3


def test_the_file_in_the_data_directory_is_read_also_where_the_environment_names_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onekey.toml").write_text('[[modems]]\npath = "/dev/null"\n', encoding="utf-8")
    monkeypatch.setenv("ONEKEY_DATA", str(tmp_path))
    assert [modem.path for modem in load().modems] == ["/dev/null"]


@pytest.mark.parametrize(
    ("modems", "words"),
    [
        ("/dev/ttyUSB0", "ONEKEY_MODEMS is no JSON"),
        ('[{"path": "a", "number": "138 000O 0001"}]', "digits only"),
        ('[{"path": "a", "number": "10086"}]', "a whole number"),
        ('[{"path": "a", "pin": 4711}]', "in quotes"),
    ],
)
def test_modems_that_are_set_wrongly_are_refused_in_words(
    modems: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEKEY_MODEMS", modems)
    with pytest.raises(ConfigError, match=words):
        load()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("ONEKEY_DATABSE", "ONEKEY_DATABASE"), ("ONEKEY_MODEM", "ONEKEY_MODEMS"), ("onekey_data_dir", "ONEKEY_DATA")],
)
def test_a_setting_that_is_misspelt_in_the_environment_is_refused_by_its_right_name(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        load()


def test_what_is_set_besides_under_a_like_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEKEY_DATABASE_PORT", "tcp://10.0.0.7:5432")  # of Kubernetes, for a service of that name
    monkeypatch.setenv("ONEKEY_MASTERKEY", "x")
    load(master_key="AAAA")


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEKEY_API_KEY", "of a script")
    monkeypatch.setenv("ONEKEY_SEATS", "4")
    load()


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(data="here").data == tmp_path / "here"


def test_nothing_changes_a_setting_afterwards() -> None:
    fixed: Any = settings()
    with pytest.raises(ValidationError):
        fixed.http_port = 1


def test_links_for_people_have_no_slash_twice() -> None:
    assert settings(public_url="https://help.example/").people_url == "https://help.example"
    assert settings(bind="::", http_port=81).people_url == "http://127.0.0.1:81"


def test_what_is_missing_is_said_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="--database"):
        settings().database_url  # noqa: B018
    with pytest.raises(ConfigError, match="--mqtt"):
        settings().broker  # noqa: B018


# What is said about a wrong one

WRONG = [
    ("http_port", "eighty"),
    ("http_port", 65_536),
    ("mqtt_port", -1),
    ("replica", "a b"),
    ("replica", ""),
    ("broker_sync", "2s"),
    ("broker_ack_wait_s", 0.1),
    ("alarm_workers", 0),
    ("party_parallel", 257),
    ("log_level", "loud"),
    ("mqtt", "http://broker.example"),
    ("mqtt", "mqtt://"),
    ("mqtt", "mqtt://broker.example:99999"),
    ("no_such_setting", "1"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_flag_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^wrong settings: {name}: "):
        settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [pair for pair in WRONG if pair[0] != "no_such_setting"])
def test_a_wrong_variable_is_named(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ONEKEY_{name.upper()}", str(value))
    with pytest.raises(ConfigError, match=f"{name}: "):
        settings()


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_line_of_the_file_is_named(name: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f"{name} = {value!r}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{name}: "):
        settings(file=file)


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(http_port="x", log_level="loud")
    assert "http_port: " in str(caught.value)
    assert "log_level: " in str(caught.value)


@pytest.mark.parametrize("content", [b"http_port =\n", b"\xff\xfe", b"[[[\n"])
def test_a_file_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        settings(file=file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.toml"):
        settings(file=tmp_path / "x.toml")


# What is never shown

# Of any password these two words are to be found nowhere, whatever stands between them.
HEAD, TAIL = "Geheimwort", "Losungswort"
secrets = st.text(st.characters(codec="utf-8", exclude_characters="\x00")).map(lambda middle: HEAD + middle + TAIL)
unquoted = st.sampled_from([HEAD + letter + TAIL for letter in " /?#@:[]%&=+;\\'\"^`{}|~"]) | secrets

ADDRESSES = [
    "postgresql://onekey:{}@db.example:5432/onekey",
    "postgresql://onekey:{}@db.example,db2.example:5433/onekey",
    "postgresql://onekey:{}@[::1]/onekey",
    "postgresql://:{}@db.example/onekey",
    "postgresql://db.example/onekey?user=onekey&password={}",
    "postgresql:///onekey?host=/run/pg&sslpassword={}",
    "host=db.example user=onekey password={}",
    "host=db.example user=onekey password='{}'",
    "{}",
]


def give_away(text: str) -> bool:
    return any(word in text for word in (HEAD, TAIL))


@pytest.mark.parametrize("address", ADDRESSES)
@given(secret=secrets)
def test_a_password_is_not_shown(address: str, secret: str) -> None:
    shown = settings(database=address.format(quote(secret, safe=""))).shown()
    assert not give_away(str(shown))


@pytest.mark.parametrize("address", ADDRESSES)
@given(secret=unquoted)
def test_a_password_that_should_have_been_quoted_is_not_shown_either(address: str, secret: str) -> None:
    assert not give_away(str(settings(database=address.format(secret)).shown()))


@pytest.mark.parametrize("name", ["master_key", "auth_seed"])
@given(secret=secrets)
@example(secret=f"{HEAD}:{TAIL}")
@example(secret=f"nats://{HEAD}/{TAIL}")
def test_a_key_is_not_shown_at_all(name: str, secret: str) -> None:
    shown = settings(**{name: secret}).shown()
    assert not give_away(str(shown))
    assert shown[name]


@given(secret=secrets)
def test_a_broker_is_shown_without_its_password(secret: str) -> None:
    shown = settings(mqtt=f"mqtt://gateway:{quote(secret, safe='')}@broker.example:1884").shown()
    assert shown["mqtt"] == "mqtt://gateway:********@broker.example:1884"


@pytest.mark.parametrize("address", ["mqtt://gateway:{}@broker.example:1883", "gateway:{}@broker.example", "{}"])
@given(secret=unquoted)
def test_a_broker_that_is_refused_is_refused_without_its_password(address: str, secret: str) -> None:
    try:
        shown = str(settings(mqtt=address.format(secret)).shown())
    except ConfigError as exc:
        shown = str(exc)
    assert not give_away(shown)


@pytest.mark.parametrize("name", ["database", "mqtt", "master_key", "auth_url", "auth_seed"])
def test_a_secret_of_the_wrong_type_is_not_quoted(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'{name} = ["{HEAD}"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=name) as caught:
        settings(file=file)
    assert not give_away(str(caught.value))


@given(secret=secrets)
def test_no_setting_gives_a_password_away_when_it_is_printed(secret: str) -> None:
    quoted = quote(secret, safe="")
    read = settings(
        database=f"postgresql://onekey:{quoted}@db.example/onekey",
        mqtt=f"mqtt://gateway:{quoted}@broker.example",
        master_key=secret,
    )
    assert not give_away(repr(read) + str(read))


def test_what_is_no_secret_is_shown() -> None:
    shown = settings(database="postgresql://onekey:x@db.example:5432/onekey", http_port=81).shown()
    assert shown["database"] == "postgresql://onekey:********@db.example:5432/onekey"
    assert shown["http_port"] == 81
    assert shown["data"] == "/nowhere/onekey"
    assert set(shown) == set(Settings.model_fields)


def test_an_address_without_password_is_shown_whole() -> None:
    address = "postgresql://onekey@/onekey?host=%2Ftmp%2Fpg"
    assert settings(database=address).shown()["database"] == address


# The broker's address

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)


@given(names, names, st.sampled_from(["mqtt", "mqtts"]), st.none() | st.integers(1, 65_535))
def test_a_broker_address_is_taken_apart(user: str, password: str, scheme: str, port: int | None) -> None:
    where = "broker.example" if port is None else f"broker.example:{port}"
    broker = Broker(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{where}")
    assert (broker.user, broker.password, broker.host) == (user, password, "broker.example")
    assert broker.tls == (scheme == "mqtts")
    assert broker.port == (port if port is not None else 8883 if broker.tls else 1883)


@given(names, names)
def test_the_public_address_of_a_broker_has_no_credentials(user: str, password: str) -> None:
    assume(user not in "mqtt://broker.example:1883")
    assume(password not in "mqtt://broker.example:1883")
    broker = Broker(f"mqtt://{quote(user, safe='')}:{quote(password, safe='')}@broker.example")
    assert broker.public() == "mqtt://broker.example:1883"


def test_a_broker_may_have_no_credentials() -> None:
    broker = settings(mqtt="mqtts://[::1]").broker
    assert (broker.host, broker.port, broker.user, broker.password) == ("::1", 8883, None, None)


def test_secrets_come_as_secrets() -> None:
    assert isinstance(settings(database="postgresql://x").database, SecretStr)
