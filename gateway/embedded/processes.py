"""Child processes that do not outlive us, and locks that last exactly as long as they do.

On Linux the kernel signals every child when our process ends, however it ends. Elsewhere a child may be left over
after a kill -9; its lock then still says so.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = [
    "Account",
    "BusyError",
    "Process",
    "ServerError",
    "address",
    "check_port",
    "free_port",
    "is_locked",
    "locked",
    "make_reachable",
    "reachable",
    "rotate",
    "spawn",
    "stop",
    "tail",
    "write_private",
]

Process = subprocess.Popen[bytes]

_PR_SET_PDEATHSIG = 1
_LARGEST_LOG_BYTES = 20_000_000

# The kernel sends the signal when the *thread* that forked ends, so all children come from one that lasts.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


class ServerError(Exception):
    """A server of ours does not run; the text says why and what to do."""


class BusyError(Exception):
    """Another process holds the lock. ``pid`` is that process where it is known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is in use by process {pid or 'unknown'}")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int


@contextmanager
def locked(path: Path, *, patience_s: float) -> Iterator[int]:
    """Hold the lock on `path` and yield its handle; children that get the handle hold the lock as well.

    Raises:
        BusyError: Somebody else still holds it after `patience_s` seconds.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = os.pread(handle, 32, 0)
                    raise BusyError(path, int(text) if text.strip().isdigit() else None) from None
                time.sleep(0.05)
        note_holder(handle, os.getpid())
        yield handle
    finally:
        os.close(handle)  # Not unlocked: a child that got it goes on holding it.


def is_locked(path: Path) -> bool:
    """Does anybody hold the lock on `path`?"""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def note_holder(handle: int, pid: int) -> None:
    """Write into a lock file who holds it, for the message to whoever finds it held."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, b"%d\n" % pid, 0)


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    on_our_death: signal.Signals,
    account: Account | None = None,
    lock: int | None = None,
) -> Process:
    """Start `command` in a session of its own, so that Ctrl-C reaches only us. Its output is appended to `log`.

    Raises:
        ServerError: It cannot be executed.
    """

    def fork(output: IO[bytes]) -> Process:
        return subprocess.Popen(  # noqa: S603  the commands are ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/" if account else None,  # That user need not be allowed to enter ours.
            env=dict(environment),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=() if lock is None else (lock,),
            preexec_fn=_death_signal(on_our_death),
        )

    with open_log(log) as output:
        try:
            process = _forker.submit(fork, output).result()
        except PermissionError as exc:
            who = f"user {account.name}" if account else "this user"
            raise ServerError(
                f"{who} may not execute {command[0]}: chmod -R o+rX {Path(command[0]).parents[1]}"
            ) from exc
        except OSError as exc:
            raise ServerError(f"cannot execute {command[0]}: {exc.strerror}") from exc
    if lock is not None:
        note_holder(lock, process.pid)
    return process


def _death_signal(number: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # We died before it asked.
            os._exit(1)

    return ask


def stop(process: Process | None, *steps: tuple[signal.Signals, float]) -> None:
    """Send one signal after the other, each with so many seconds to end, and SIGKILL at last."""
    if process is None:
        return
    for number, patience_s in steps:
        process.send_signal(number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def check_port(bind: str, port: int, *, what: str, flag: str) -> None:
    """See that `port` can be listened on, before a server hides in its log that it cannot.

    Raises:
        ServerError: It cannot; the text names the port and the `flag` that gives another.
    """
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as exc:
            raise ServerError(
                f"cannot listen for {what} on {address(bind, port)} ({exc.strerror}): "
                f"end what uses that port, or give another one with {flag}"
            ) from exc


def address(host: str, port: int) -> str:
    """Return host and port in one, as URLs have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(bind: str) -> str:
    """Return the host under which this machine reaches a server that listens on `bind`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104


def make_reachable(path: Path, account: Account) -> None:
    """Let `account` pass through the directories above `path`, to it and no further."""
    for directory in {*path.parents, *path.resolve().parents}:
        entry = directory.stat()
        if (
            entry.st_uid == account.uid
            or entry.st_mode & 0o001
            or (entry.st_gid == account.gid and entry.st_mode & 0o010)
        ):
            continue
        try:
            directory.chmod((entry.st_mode & 0o7777) | 0o001)
        except OSError as exc:
            raise ServerError(f"user {account.name} cannot reach {path}: chmod o+x {directory}") from exc


def free_port(bind: str) -> int:
    """Return a TCP port that is free on `bind` now."""
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        probe.bind((bind, 0))
        port: int = probe.getsockname()[1]
        return port


def open_log(log: Path) -> IO[bytes]:
    """Open `log` for appending, readable by nobody else."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def rotate(log: Path) -> None:
    """Move what is in a large log aside, to ``….1``. Processes that write to it just go on."""
    if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
        shutil.copy(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def tail(log: Path) -> str:
    """Return the last lines of `log`, indented, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = file.read().decode("utf-8", "replace").splitlines()[-12:]
    return "".join(f"\n    {line}" for line in lines)


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
