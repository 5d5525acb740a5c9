"""Settings: read once, from flags, ``ONEKEY_…`` variables, a TOML file, in this order of precedence."""

import difflib
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

__all__ = ["Broker", "ConfigError", "ModemSettings", "Settings", "load"]


_MASK = "********"
_PREFIX = "ONEKEY_"
_ALIKE = 0.84
"""How much a name must be like that of a setting to be a slip of the hand."""


class ConfigError(Exception):
    """A setting is wrong; the text names it and says what would be right."""


class Broker:
    """An MQTT address taken apart. ``mqtt://user:password@host:port``, ``mqtts`` for TLS."""

    def __init__(self, url: str) -> None:
        """Parse `url`.

        Raises:
            ValueError: Not an MQTT address.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None  # what is wrong in it may be a part of its password
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("must look like mqtt://user:password@host:1883 or mqtts://…, odd characters as %40")
        self.tls = parts.scheme == "mqtts"
        self.host = parts.hostname
        self.port = port or (8883 if self.tls else 1883)
        self.user = None if parts.username is None else unquote(parts.username)
        self.password = None if parts.password is None else unquote(parts.password)

    def public(self) -> str:
        """Return the address without credentials."""
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


class ModemSettings(BaseModel):
    """One modem, or several that are alike: `path` may hold ``*``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[
        str, Field(min_length=1, description="Its serial port; a name that stays, as /dev/serial/by-id/usb-…-if02.")
    ]
    pin: Annotated[SecretStr | None, Field(description="PIN of its SIM.")] = None
    centre: Annotated[str | None, Field(description="Service centre, where the SIM has none: +8613800…500.")] = None
    number: Annotated[
        str | None,
        Field(description="Its own number: with it, it writes to itself once a day, to prove that it hears."),
    ] = None
    voice: Annotated[bool, Field(description="May it call people?")] = True
    daily_limit: Annotated[int, Field(ge=1, description="Messages a day that its SIM may send.")] = 1000
    balance_code: Annotated[str | None, Field(description="USSD code that tells the balance, as *100#.")] = None
    balance_to: Annotated[str | None, Field(description="Number that is asked for the balance by SMS, as 10086.")] = (
        None
    )
    balance_text: Annotated[str, Field(description="What it is asked, as YE.")] = "YE"
    balance_pattern: Annotated[
        str, Field(description="Regular expression that finds the amount in the answer, as its first group.")
    ] = r"(-?\d+(?:\.\d{1,2})?)\s*(?:元|yuan|CNY|RMB)"
    balance_low: Annotated[float, Field(description="Below this people are told.")] = 10.0
    power_cycle: Annotated[
        list[str], Field(description="Command that takes its power away and gives it back; {path} is its port.")
    ] = Field(default_factory=list)

    @field_validator("balance_pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as exc:
            raise ValueError(f"no regular expression: {exc}") from exc
        if groups < 1:
            raise ValueError("has no group, as (\\d+), that holds the amount")
        return value

    @field_validator("centre", "number", "balance_to")
    @classmethod
    def _dialled(cls, value: str | None, info: ValidationInfo) -> str | None:
        value = value if value is None else re.sub(r"[\s()-]", "", value)
        if value is not None and not re.fullmatch(r"\+?\d{3,15}", value):
            raise ValueError("is digits only, as +8613900000001")
        if value is not None and info.field_name == "number" and len(value) < 8:
            raise ValueError("is a whole number, as +8613900000001: its daily message goes there")
        return value

    @field_validator("pin", mode="before")
    @classmethod
    def _quoted(cls, value: object) -> object:
        if isinstance(value, int):
            raise ValueError("put the PIN in quotes: it may begin with 0")  # noqa: TRY004 # pydantic shows these
        return value

    @field_validator("pin")
    @classmethod
    def _digits(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isdecimal() and 4 <= len(value.get_secret_value()) <= 8):
            raise ValueError("a PIN has 4 to 8 digits")
        return value


class Settings(BaseSettings):
    """Everything that can be set. Defaults run the whole system on one machine, on loopback."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, validate_default=True)

    toml_file: ClassVar[Path | None] = None

    data: Annotated[Path, Field(description="Directory for everything this installation keeps.")] = Field(
        default_factory=lambda: platformdirs.user_data_path("onekey")
    )
    database: Annotated[
        SecretStr | None, Field(description="PostgreSQL 14+ to use; empty: the embedded one under the data directory.")
    ] = None
    mqtt: Annotated[SecretStr | None, Field(description="MQTT broker to use; empty: the embedded NATS server.")] = None
    master_key: Annotated[
        SecretStr | None,
        Field(description="Master key as base64; empty: the file keys/master.key in the data directory."),
    ] = None
    bind: Annotated[str, Field(description="Address on which our own servers listen.")] = "127.0.0.1"
    mqtt_port: Annotated[int, Field(ge=0, le=65535, description="Port of the embedded broker; 0: a free one.")] = 1883
    http_port: Annotated[int, Field(ge=0, le=65535, description="Port of the API; 0: a free one.")] = 8080
    public_url: Annotated[
        str | None, Field(description="Address under which people reach the API, for links in messages.")
    ] = None
    replica: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9-]{1,32}$", description="Name of this gateway; unique at its broker.")
    ] = Field(
        default_factory=lambda: "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32] or "gateway"
    )
    broker_sync: Annotated[
        Literal["1s", "always"],
        Field(
            description="When the embedded broker syncs its files; always: a PUBACK survives a power cut, at a cost."
        ),
    ] = "1s"
    broker_ack_wait_s: Annotated[
        float,
        Field(ge=0.2, le=60, description="After how long the embedded broker sends an unacknowledged message again."),
    ] = 1.0
    auth_url: Annotated[
        SecretStr | None,
        Field(description="NATS address at which this gateway answers who may connect (auth callout)."),
    ] = None
    auth_seed: Annotated[SecretStr | None, Field(description="Account seed that signs those answers.")] = None
    dns_servers: Annotated[list[str], Field(description="Name servers for webhooks; empty: those of the system.")] = (
        Field(default_factory=list)
    )
    modems: Annotated[
        list[ModemSettings],
        Field(description="GSM modems of this machine, each a table with path and, where needed, pin and others."),
    ] = Field(default_factory=list)
    alarm_workers: Annotated[int, Field(ge=1, le=64, description="Alarms stored at the same time.")] = 8
    telemetry_batch: Annotated[
        int, Field(ge=1, le=10_000, description="Most telemetry reports that are stored in one transaction.")
    ] = 2000
    telemetry_shares: Annotated[
        int,
        Field(
            ge=1,
            le=16,
            description="Parts in which several gateways store the telemetry, the same for all of them; more than one "
            "needs a broker with shared subscriptions.",
        ),
    ] = 1
    telemetry_days: Annotated[
        int, Field(ge=9, le=3660, description="Days for which heartbeats, positions and events are kept.")
    ] = 180
    party_parallel: Annotated[int, Field(ge=1, le=256, description="Sends to one party at the same time.")] = 32
    calendar: Annotated[
        Path | None,
        Field(
            description="Days that differ from the calendar of public holidays: JSON, a date to true (worked) or false."
        ),
    ] = None
    checkpoints: Annotated[
        Path | None,
        Field(
            description="File outside the database that the signed checkpoints of the journal are appended to; "
            "empty: checkpoints/journal.jsonl in the data directory."
        ),
    ] = None
    checkpoint_every_s: Annotated[
        float, Field(ge=1, le=3600, description="How often a checkpoint of what was journaled is made.")
    ] = 60.0
    report_font: Annotated[
        Path | None,
        Field(description="TrueType font with Chinese for rescue reports; empty: one of the system's, if it has any."),
    ] = None
    audit_every_s: Annotated[
        float, Field(ge=1, le=60, description="How often the auditor looks whether all that should happen does.")
    ] = 5.0
    audit_ping_url: Annotated[
        SecretStr | None,
        Field(description="Address that the auditor fetches while all is well: a dead man's switch elsewhere."),
    ] = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("mqtt")
    @classmethod
    def _mqtt_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            Broker(value.get_secret_value())
        return value

    @field_validator("data", "checkpoints", "report_font")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the file."""
        del dotenv_settings, file_secret_settings
        file = cls.toml_file
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def master_key_file(self) -> Path:
        """Where the master key is kept unless it is given."""
        return self.data / "keys" / "master.key"

    @property
    def checkpoint_file(self) -> Path:
        """Where checkpoints are kept outside the database."""
        return self.checkpoints or self.data / "checkpoints" / "journal.jsonl"

    @property
    def database_url(self) -> str:
        """The database to use.

        Raises:
            ConfigError: None is known: neither given nor running embedded.
        """
        if self.database is None:
            raise ConfigError("no database: give --database URL, or start everything with «onekey run»")
        return self.database.get_secret_value()

    @property
    def broker(self) -> Broker:
        """The broker to use.

        Raises:
            ConfigError: None is known: neither given nor running embedded.
        """
        if self.mqtt is None:
            raise ConfigError("no broker: give --mqtt URL, or start everything with «onekey run»")
        return Broker(self.mqtt.get_secret_value())

    @property
    def people_url(self) -> str:
        """Address in front of links for people."""
        host = "127.0.0.1" if self.bind in ("0.0.0.0", "::") else self.bind  # noqa: S104
        return (self.public_url or f"http://{host}:{self.http_port}").rstrip("/")

    @property
    def people_are_here(self) -> bool:
        """Do links for people lead to this machine only?"""
        host = urlsplit(self.people_url).hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")

    def shown(self) -> dict[str, Any]:
        """Return the settings as they are in force, secrets masked."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = _MASK if name in ("master_key", "auth_seed") else _masked(value.get_secret_value())
            elif name == "modems":
                value = [modem.model_dump(mode="json") for modem in self.modems]  # a PIN is a secret, and shown as one
            plain[name] = str(value) if isinstance(value, Path) else value
        return plain


_PLAIN_ADDRESS = re.compile(
    r"(?P<scheme>postgresql|postgres|mqtts?|nats|tls)://"
    r"(?:(?P<user>[\w.~%-]*)(?P<password>:[^@/?#\s:]*)?@)?(?P<place>[\w.,:\[\]-]*(?:/[\w.~-]*)?)(?:\?(?P<options>[^#@\s]*))?",
    re.ASCII,
)


def _masked(text: str) -> str:
    """Show of an address what is no secret: nothing at all of one that is not written by the book."""
    address = _PLAIN_ADDRESS.fullmatch(text)
    if address is None:
        return _MASK
    user = address["user"]
    who = "" if user is None else f"{user}{':' + _MASK if address['password'] is not None else ''}@"
    options = [option for option in (address["options"] or "").split("&") if option.startswith("host=")]
    return f"{address['scheme']}://{who}{address['place']}{'?' if options else ''}{'&'.join(options)}"


def _no_misspelt(environment: Mapping[str, str], given: Iterable[str]) -> None:
    """Refuse a variable that was surely meant for a setting: unread, it would have another database used, or none.

    Kubernetes sets variables by itself that look like ours where a service has such a name; those hold an address.

    Raises:
        ConfigError: A name is nearly that of a setting that is set neither there nor by what is `given`.
    """
    settings = [f"{_PREFIX}{name}".upper() for name in Settings.model_fields]
    known = {name.upper() for name in environment} | {f"{_PREFIX}{name}".upper() for name in given}
    for name, value in environment.items():
        if name.upper().startswith(_PREFIX) and name.upper() not in settings and not value.startswith("tcp://"):
            meant = difflib.get_close_matches(name.upper(), settings, n=1, cutoff=_ALIKE)
            if meant and meant[0] not in known:
                raise ConfigError(f"{name} in the environment is no setting: did you mean {meant[0]}?")


def load(*, file: Path | None = None, **flags: object) -> Settings:
    """Read the settings. Flags that are None do not count.

    Raises:
        ConfigError: A setting is unknown, misspelt or wrong, or the file cannot be read.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    _no_misspelt(os.environ, given)
    base = Path(str(given.get("data") or os.environ.get("ONEKEY_DATA") or platformdirs.user_data_path("onekey")))
    if file is None and (base / "onekey.toml").exists():
        file = base / "onekey.toml"
    if file is not None and not file.exists():
        raise ConfigError(f"no such settings file: {file}")
    source: type[Settings] = type("Settings", (Settings,), {"toml_file": file, "__doc__": Settings.__doc__})
    try:
        return source(**given)  # type: ignore[arg-type]  # flags come as text, validation is pydantic's
    except ValidationError as exc:
        lines = [f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()]
        raise ConfigError("wrong settings: " + "; ".join(lines)) from exc
    except SettingsError as exc:
        words = str(exc)
        if "EnvSettingsSource" in words and "modems" in words:
            words = """ONEKEY_MODEMS is no JSON: it is a list, as [{"path": "/dev/serial/by-id/usb-…-if02"}]"""
        raise ConfigError(f"wrong settings: {words}") from exc
    except ValueError as exc:
        raise ConfigError(f"{file}: {exc}") from exc
