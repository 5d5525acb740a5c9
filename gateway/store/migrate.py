"""Migrations: numbered SQL files, forward only, applied under a lock.

Each file runs in one transaction together with its row in ``migration``. A file that was changed after it was
applied is an error, as is a database that knows migrations which this version does not.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources

import psycopg
from psycopg import Connection, sql

__all__ = ["RUNTIME_ROLE", "Migration", "MigrationError", "available", "migrate"]

RUNTIME_ROLE = "onekey_runtime"
_LOCK = 0x6F6E656B  # "onek"


class MigrationError(Exception):
    """The database cannot be brought to this version; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def available() -> list[Migration]:
    """Return the migrations that this version ships, in order."""
    found = [
        Migration(int(entry.name[:4]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in resources.files("gateway.store").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


def _ensure_role(conn: Connection) -> None:
    """Create the role of the service; it is shared by every database of the server, so others may be quicker."""
    if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (RUNTIME_ROLE,)).fetchone() is None:
        try:
            with conn.transaction():
                conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(RUNTIME_ROLE)))
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            pass
        except psycopg.errors.InsufficientPrivilege as exc:
            raise MigrationError(
                f"the database user may not create roles: as an administrator run once "
                f"CREATE ROLE {RUNTIME_ROLE} NOLOGIN; GRANT {RUNTIME_ROLE} TO <this user>;"
            ) from exc
    row = conn.execute("SELECT pg_has_role(current_user, %s, 'MEMBER')", (RUNTIME_ROLE,)).fetchone()
    if row != (True,):
        try:
            with conn.transaction():
                conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(RUNTIME_ROLE)))
        except psycopg.errors.InsufficientPrivilege as exc:
            raise MigrationError(
                f"the database user is no member of {RUNTIME_ROLE}: as an administrator run once "
                f"GRANT {RUNTIME_ROLE} TO <this user>;"
            ) from exc


def _ensure_timescale(conn: Connection) -> None:
    """Switch TimescaleDB on where the server offers it; where it may not be loaded, plain tables serve."""
    offered = conn.execute("SELECT FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
    if offered is None:
        return
    try:
        with conn.transaction():
            conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except psycopg.Error:
        return


def migrate(url: str) -> list[Migration]:
    """Bring the database to this version and return what was applied.

    Any number of processes may call this at once: one works, the others wait for it.

    Raises:
        MigrationError: Changed or unknown migrations, missing rights, or a server older than PostgreSQL 14.
    """
    applied = []
    with psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="onekey-migrate") as conn:
        if conn.info.server_version < 140_000:
            raise MigrationError(f"PostgreSQL 14 or newer is needed, this is {conn.info.server_version // 10_000}")
        conn.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            conn.execute(
                "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL, "
                "digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            known: dict[int, str] = dict(conn.execute("SELECT number, digest FROM migration").fetchall())
            ours = {migration.number: migration for migration in available()}
            if newer := sorted(set(known) - set(ours)):
                raise MigrationError(
                    f"this database has migration {newer[-1]:04}, this version ends before it: upgrade"
                )
            for number, digest in known.items():
                if ours[number].digest != digest:
                    raise MigrationError(f"{ours[number].name} was changed after it had been applied")
            if not known:
                _ensure_role(conn)
                _ensure_timescale(conn)
            for migration in ours.values():
                if migration.number in known:
                    continue
                with conn.transaction():
                    conn.execute(migration.text.encode())
                    conn.execute(
                        "INSERT INTO migration (number, name, digest) VALUES (%s, %s, %s)",
                        (migration.number, migration.name, migration.digest),
                    )
                applied.append(migration)
        finally:
            conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return applied
