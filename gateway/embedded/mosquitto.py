"""Files for Mosquitto 2: everything this gateway promises needs a configuration that is not the default.

Clients on the terminals' port get their user name as client id, so nobody can throw off another one (D14).
"""

import base64
import binascii
import hashlib
import hmac
import os
import pwd
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, urlsplit

from gateway.embedded.processes import Account, make_reachable, write_private
from gateway.site.model import MqttEntry, Site
from protocols.okc.topics import Down, Up, down_topic, notice_topic, party_user, up_topic

__all__ = ["hashed", "matches", "without_password", "write"]

GATEWAY = "~gateway"

_ITERATIONS = 101
"""Mosquitto's own number. Secrets of terminals are random: a slow hash would only slow down reconnecting (D6)."""

_CONFIGURATION = """\
# Written by onekey. Changes in here are lost when it is written again.

# What is queued survives a restart; a crash can cost the seconds since the last save. The gateway itself tells a
# terminal when a press is safe, and the terminal repeats it until then.
persistence true
persistence_location {directory}/
autosave_interval 10

# No limits that drop messages silently while the gateway is away. Not 0, which should mean none: versions before 2.0.22
# then cut off every client that publishes where it may not, 2.0.16 drops every message, 2.0.2 those with QoS 0
# (mosquitto issues 3244, 2879, 1956).
max_queued_messages 1000000000
max_queued_bytes 0
max_inflight_messages 1000
max_packet_size 4194304

# retain_available stays on: switched off, Mosquitto cuts the connection of an MQTT 3.1.1 terminal that publishes
# its alarm with the retain flag, and the alarm is gone.

allow_anonymous false
password_file {directory}/passwords
acl_file {directory}/acl
{user}
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false

# Terminals and the platforms of parties
listener {port} {bind}
use_username_as_clientid true

# The gateway, which has several connections under one user name
listener {gateway_port} 127.0.0.1
"""


def write(
    directory: Path,
    *,
    site: Site | None = None,
    bind: str = "127.0.0.1",
    port: int = 1883,
    gateway_port: int = 1884,
    gateway_password: str | None = None,
) -> str:
    """Write ``mosquitto.conf``, ``acl`` and ``passwords``, and return the address for the gateway, with its password.

    Terminals and platforms of `site` whose secret stands there get it as password. Everybody else who has one already
    keeps it; so does the gateway, unless `gateway_password` gives another. As root, the files belong to the user
    ``mosquitto`` where there is one, since the broker becomes that user before it reads them.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    url_file = directory / "gateway.url"
    if gateway_password is None:
        known = urlsplit(url_file.read_text(encoding="utf-8").strip()).password if url_file.exists() else None
        gateway_password = known or secrets.token_urlsafe(32)
    url = f"mqtt://{GATEWAY}:{quote(gateway_password, safe='')}@127.0.0.1:{gateway_port}"
    passwords = _read_passwords(directory / "passwords")
    for user, secret in [*_secrets(site), (GATEWAY, gateway_password)]:
        if user not in passwords or not matches(secret, passwords[user]):
            passwords[user] = hashed(secret, salt=secrets.token_bytes(12))
    account = _account()
    files = {
        "mosquitto.conf": _CONFIGURATION.format(
            directory=directory,
            user=f"user {account.name}" if account else "",
            port=port,
            bind=bind,
            gateway_port=gateway_port,
        ),
        "acl": _acl(passwords),
        "passwords": "".join(f"{user}:{word}\n" for user, word in sorted(passwords.items())),
        "gateway.url": url + "\n",
    }
    for name, text in files.items():
        write_private(directory / name, text)
    if account is not None:
        for path in (directory, *(directory / name for name in files)):
            os.chown(path, account.uid, account.gid)
        make_reachable(directory, account)
    return url


def without_password(directory: Path, site: Site) -> list[str]:
    """Return the terminals of `site` that cannot connect: the file has no secret for them and they had none before."""
    known = _read_passwords(directory / "passwords")
    return [terminal.id for terminal in site.terminals if terminal.id not in known]


def hashed(password: str, *, salt: bytes) -> str:
    """Return `password` as Mosquitto 2 keeps it: ``$7$``, iterations, salt, PBKDF2 with SHA-512."""
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def matches(password: str, kept: str) -> bool:
    """Is `kept` the hash of `password`?"""
    try:
        _, kind, iterations, salt, key = kept.split("$")
        if kind != "7":
            return False
        made = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt, validate=True), int(iterations))
        return hmac.compare_digest(made, base64.b64decode(key, validate=True))
    except (ValueError, binascii.Error):
        return False


def _read_passwords(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {user: word for user, colon, word in (line.partition(":") for line in lines) if colon}


def _secrets(site: Site | None) -> Iterable[tuple[str, str]]:
    if site is None:
        return
    for terminal in site.terminals:
        if terminal.secret is not None:
            yield terminal.id, terminal.secret
    for party in site.parties:
        for channel in party.channels:
            if isinstance(channel, MqttEntry):
                yield party_user(party.id), channel.secret


def _acl(users: Iterable[str]) -> str:
    """Return what each may do. Terminals share one pattern: the list is searched at every connect."""
    ups, downs, notices = _all_of(up_topic("%u", Up.ALARM)), _all_of(down_topic("%u", Down.ACK)), notice_topic("+")
    lines = [
        f"pattern write {ups}",
        f"pattern read {downs}",
        "",
        f"user {GATEWAY}",
        f"topic readwrite {ups.split('/')[0]}/#",
        f"topic readwrite {notices.split('/')[0]}/#",
    ]
    for user in sorted(users):
        if user.startswith(party_user("")):
            lines += ["", f"user {user}", f"topic read {notice_topic(user.removeprefix(party_user('')))}"]
    return "\n".join(lines) + "\n"


def _all_of(topic: str) -> str:
    return topic.rpartition("/")[0] + "/+"


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("mosquitto")
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
