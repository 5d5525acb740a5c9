"""``onekey audit``: the auditor as a process of its own, and once for a script."""

import asyncio
import contextlib
import logging
import signal
from typing import Annotated, Any, NoReturn

import psycopg
import typer

from gateway.audit.auditor import Auditor, Round
from gateway.cli import asynchronous, out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.keyring import keyring_of
from gateway.logs import set_up
from gateway.service.report_findings import report_findings
from gateway.store import findings
from gateway.store.directory import Directory
from gateway.store.migrate import migrate
from gateway.store.pool import open_pool

__all__ = ["audit"]

_log = logging.getLogger(__name__)


def audit(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Look once; exit code 1 if something is amiss.")] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="Expect no auditor any more: its silence no longer counts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print for a machine what --once finds.")] = False,
) -> None:
    """Look again and again whether all that should happen does, and tell people what does not."""
    settings = settings_of(ctx)
    set_up(settings.log_level)
    if retire:
        asynchronous(_retire(settings))
    elif once:
        look = asynchronous(_once(settings))
        _show(look, as_json=as_json)
        raise typer.Exit(1 if look.kept.open else 0)
    else:
        migrate(settings.database_url)
        asynchronous(_until_stopped(settings))


def _auditor_of(settings: Settings, pool: Any, *, expected: bool) -> Auditor:
    url = settings.audit_ping_url
    return Auditor(
        pool,
        keyring_of(settings),
        every_s=settings.audit_every_s,
        ping_url=None if url is None else url.get_secret_value(),
        expected=expected,
    )


async def _until_stopped(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await _run(settings)


async def _run(settings: Settings) -> None:
    async with (
        open_pool(settings.database_url, name="audit", size=3, wide=True) as pool,
        open_pool(settings.database_url, name="findings", size=1) as cases,
        asyncio.TaskGroup() as tasks,
    ):
        auditor = _auditor_of(settings, pool, expected=True)
        tasks.create_task(auditor.run(), name="audit")
        tasks.create_task(_keep_reporting(cases, Directory(keyring_of(settings))), name="report")


async def _keep_reporting(pool: Any, directory: Directory) -> NoReturn:
    """Make cases of findings, by the use case that everything else takes; its faults do not end the audit."""
    while True:
        try:
            await report_findings(pool, directory)
        except psycopg.Error as exc:
            _log.error("cannot make a case of what was found: %s %s", type(exc).__name__, exc.sqlstate)
        except Exception:  # noqa: BLE001 # whatever breaks here is what is audited
            _log.exception("cannot make a case of what was found")
        await asyncio.sleep(1.0)


async def _once(settings: Settings) -> Round:
    keyring = keyring_of(settings)
    async with open_pool(settings.database_url, name="audit", size=2, wide=True) as pool:
        auditor = _auditor_of(settings, pool, expected=False)
        look = await auditor.round()
        await auditor.tell()
        await report_findings(pool, Directory(keyring))
    return look


async def _retire(settings: Settings) -> None:
    async with open_pool(settings.database_url, name="audit", size=1, wide=True) as pool, pool.connection() as conn:
        await findings.expect_no_auditor(conn)


def _show(look: Round, *, as_json: bool) -> None:
    rows = [
        {
            "id": one.id,
            "kind": one.kind,
            "case": None if one.case_id is None else str(one.case_id),
            "text": one.words["en"],
            "since": one.detail.get("since"),
            "first_seen": one.first_seen.isoformat(),
        }
        for one in look.kept.open
    ]
    if as_json:
        show_json({"cases": look.look.cases, "took_ms": round(look.took_ms, 1), "findings": rows})
    elif rows:
        columns = ["id", "kind", "case", "text"]
        show_table("Findings", columns, [[str(row[column] or "") for column in columns] for row in rows])
    else:
        out.print(f"[green]nothing amiss[/] in {look.look.cases} cases", highlight=False)
