"""``onekey modem``: what an administrator needs at the rack."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr, ValidationError
from rich.markup import escape
from serial.tools import list_ports

from gateway.cli import asynchronous, err, out, settings_of, show_json, show_table
from gateway.config import ConfigError, ModemSettings, Settings
from gateway.domain.case import NotFound, StateConflict
from gateway.domain.phones import is_emergency_line, masked
from gateway.keyring import ErasedKey, KeyringError, keyring_of
from gateway.modems.checkup import Finding, checkup
from gateway.modems.texts import pdus
from gateway.service import modem_troubles
from gateway.service.phone_queue import enqueue_own
from gateway.store import modems, phone_out
from gateway.store.directory import Directory
from gateway.store.modems import ModemRow
from gateway.store.pool import open_pool
from protocols.errors import FrameError
from protocols.gsm.tpdu import Deliver, StatusReport, read_pdu

__all__ = ["modem_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]

modem_app = typer.Typer(no_args_is_help=True, help="GSM modems: how they are, a test, a message, what went and came.")
_MANY = 3
_HELP = "Settings: onekey.toml, a table [[modems]] with path for each; see docs/modems.md."


@modem_app.command("list")
def list_modems(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the modems of all gateways, and ports of this machine that none uses."""
    settings = settings_of(ctx)
    rows = asynchronous(_rows(settings))
    used = {Path(row.path).resolve() for row in rows}
    unused = sorted(port.device for port in list_ports.comports() if Path(port.device).resolve() not in used)
    if as_json:
        show_json({"modems": [_record(row) for row in rows], "unused_ports": unused})
        return
    for row in rows:
        state, more = _line(row)
        colour = "green" if state.startswith("ready") else "bold red"
        out.print(f"[{colour}]{state:10}[/] {escape(row.path)}", highlight=False, soft_wrap=True)
        out.print(f"{'':10} {escape(more)}", highlight=False, soft_wrap=True)
    if not rows:
        out.print(escape(f"No modem is known. {_HELP}"), highlight=False)
    if unused:
        out.print(f"Ports that no gateway uses: {', '.join(unused)}", highlight=False)


async def _rows(settings: Settings) -> list[ModemRow]:
    async with open_pool(settings.database_url, name="cli", size=1) as pool, pool.connection() as conn:
        return await modems.listing(conn)


def _record(row: ModemRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "gateway": row.replica,
        "port": row.path,
        "state": row.state if row.fresh else "unknown",
        "problem": row.problem,
        "maker": row.maker,
        "model": row.model,
        "operator": row.operator,
        "signal_dbm": row.signal_dbm,
        "sent_today": row.sent_today,
        "balance": row.balance,
        "heard_at": row.heard_at,
        "seen_at": row.seen_at,
    }


def _line(row: ModemRow) -> tuple[str, str]:
    """Return how a modem is in a word or two, and what there is to know beside that."""
    state = row.state if row.fresh else "unknown: no gateway looks after it"
    parts = [
        row.problem,
        row.model,
        row.operator,
        None if row.signal_dbm is None else f"{row.signal_dbm} dBm",
        f"{row.sent_today} sent today",
        None if row.balance is None else f"balance {row.balance}",
        None if row.case_id is None else f"case {row.case_id}",
    ]
    return f"{state}{', busy' if row.busy and row.fresh else ''}", " · ".join(part for part in parts if part)


@modem_app.command("test")
def check_port(
    ctx: typer.Context,
    port: Annotated[Path, typer.Argument(readable=False, help="Serial port, as /dev/serial/by-id/usb-…-if02.")],
    pin: Annotated[
        str | None,
        typer.Option(
            help="PIN of its SIM, to be tried once; that in the settings is left to the gateway.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at a modem that no gateway uses now, from its port to the network; exit code 1 if something is wrong.

    No PIN is tried but one that you give: after three wrong ones the SIM is locked.
    """
    known = next((one for one in settings_of(ctx, running=False).modems if Path(one.path) == port), None)
    try:
        settings = ModemSettings(path=str(port)) if known is None else known
        if pin is not None:
            settings = ModemSettings.model_validate(settings.model_dump() | {"pin": SecretStr(pin)})
    except ValidationError as exc:
        raise ConfigError(f"--pin: {exc.errors()[0]['msg']}") from exc
    found: list[Finding] = []

    async def work() -> None:
        async for one in checkup(port, settings, try_pin=pin is not None):
            found.append(one)
            if not as_json:
                mark = {True: "[green]good[/]", False: "[bold red]bad [/]", None: "    "}[one.good]
                out.print(f"{mark}  {one.name:14} {escape(one.words)}", highlight=False, soft_wrap=True)

    asynchronous(work())
    if as_json:
        show_json([{"name": one.name, "good": one.good, "words": one.words} for one in found])
    raise typer.Exit(1 if any(one.good is False for one in found) else 0)


@modem_app.command("send")
def send(
    ctx: typer.Context,
    number: Annotated[str, typer.Argument(help="Whom to write to: +86… or as it is dialled.")],
    text: Annotated[str, typer.Argument(help="What to write.")],
    wait: Annotated[bool, typer.Option(help="Wait until the network has accepted it.")] = True,
    wait_s: Annotated[
        int, typer.Option("--wait-s", min=1, help="How many seconds to wait; what has not begun by then is taken back.")
    ] = 120,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it costs several messages.")] = False,
) -> None:
    """Send a message through a modem of a running gateway.

    Ctrl-C, or the end of the waiting time, takes it back if no modem has begun to send it.
    """
    settings = settings_of(ctx)
    if not re.fullmatch(r"\+?[0-9]{3,15}", number):
        raise StateConflict(f"It cannot be sent: {number!r} is no number: digits only, as +8613812345678.")
    if is_emergency_line(number):
        raise StateConflict(f"No machine writes to {number}.")
    if not text.strip():
        raise StateConflict("There is nothing to send.")
    try:
        parts = len(pdus(number, text, reference=0))
    except ValueError as exc:
        raise StateConflict(f"It cannot be sent: {exc}.") from exc
    if parts > _MANY and not yes:
        typer.confirm(f"These are {parts} messages, each paid for. Send them?", abort=True)
    directory = Directory(keyring_of(settings))

    async def work() -> tuple[str, str | None]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool, pool.connection() as conn:
            if wait and not any(row.fresh and row.state == "ready" for row in await modems.listing(conn)):
                words = f"No modem is ready just now: waiting {wait_s} s for one. See onekey modem list."
                err.print(words, highlight=False)
            async with conn.transaction():
                job = await enqueue_own(conn, directory, number, text, rank=2)
            if not wait:
                return "queued", None
            try:
                for _ in range(wait_s):
                    if over := await phone_out.finished(conn, [job]):
                        return over[0][1], over[0][2]
                    await asyncio.sleep(1)  # another process sends it
            except asyncio.CancelledError:
                async with asyncio.timeout(5):
                    await phone_out.withdraw(conn, job)
                raise
            if await phone_out.withdraw(conn, job):
                return "taken back", f"no modem took it within {wait_s} s"
            return "being sent", "see onekey modem log"

    state, detail = asynchronous(work())
    words = f"{state}{': ' + detail if detail else ''}, {parts} message{'s' if parts > 1 else ''}"
    out.print(words, highlight=False)
    raise typer.Exit(0 if state in ("sent", "queued", "being sent") else 1)


@modem_app.command("forget")
def forget(
    ctx: typer.Context,
    modem: Annotated[str, typer.Argument(help="Its port or IMEI, as onekey modem list --json shows it.")],
) -> None:
    """Forget a modem that is no longer there; its technical case ends."""
    settings = settings_of(ctx)
    directory = Directory(keyring_of(settings))

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            async with pool.connection() as conn:
                rows = [row for row in await modems.listing(conn) if modem in (row.id, row.path)]
            if not rows:
                raise NotFound(f"There is no modem {modem}.")
            if any(row.fresh for row in rows):
                raise StateConflict(f"A gateway looks after {modem}: take it out of its settings first.")
            for row in rows:
                await modem_troubles.settle_trouble(pool, directory, row.id)
                async with pool.connection() as conn:
                    await modems.forget(conn, row.id)

    asynchronous(work())
    out.print(f"forgotten {modem}", highlight=False, soft_wrap=True)


@modem_app.command("log")
def log(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 30,
    everything: Annotated[
        bool, typer.Option("--all", help="Each report of delivery as well; what they say stands at its message.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what went out and came in lately: without texts, and numbers in part only."""
    settings = settings_of(ctx)
    directory = Directory(keyring_of(settings))

    async def work() -> Sequence[tuple[Any, ...]]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await phone_out.listing(conn, limit=limit, reports=everything)

    rows = [_entry(directory, *row) for row in asynchronous(work())]
    if as_json:
        show_json(rows)
        return
    columns = ["at", "way", "kind", "number", "modem", "state", "report", "detail", "case"]
    show_table(
        "By phone, newest first (UTC; whole ids with --json)",
        columns,
        [
            [row["at"][5:-1], *("" if row[name] is None else str(row[name]) for name in columns[1:-1]), _case_of(row)]
            for row in rows
        ],
    )


def _case_of(row: dict[str, Any]) -> str:
    """Return the beginning of the id of its case, which is enough for a table."""
    return "" if row["case"] is None else str(row["case"])[:8]


def _entry(
    directory: Directory,
    at: datetime,
    way: str,
    kind: str,
    modem: str | None,
    state: str,
    report: str | None,
    detail: str | None,
    parts: int,
    case: object,
    sealed: bytes | None,
    key: Any,
    wrapped: bytes | None,
    about: str,
) -> dict[str, Any]:
    number = None
    if sealed is not None:
        try:
            body: Any = directory.keyring.unwrap(key, wrapped).open(bytes(sealed), about=about)
            number = _number_in(body)
        except (ErasedKey, KeyringError):
            number = "erased"
    return {
        "at": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z",
        "way": way,
        "kind": kind,
        "number": number,
        "modem": None if modem is None else f"…{modem[-4:]}",
        "state": state,
        "report": report,
        "detail": detail,
        "parts": parts,
        "case": case,
    }


def _number_in(body: dict[str, Any]) -> str | None:
    if body.get("number") is not None:
        return masked(str(body["number"]))
    if "pdu" not in body:
        return None
    try:
        _, message = read_pdu(body["pdu"], from_phone=False, length=body.get("length"))
    except FrameError:
        return "?"
    if isinstance(message, Deliver):
        return masked(str(message.sender))
    return masked(str(message.recipient)) if isinstance(message, StatusReport) else None
