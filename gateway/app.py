"""The gateway process: the only place that builds the parts and connects them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from random import Random

import psycopg

from gateway.config import Settings
from gateway.domain.outbox import DueNotice
from gateway.garbage import collect_when_quiet
from gateway.ingest.alarms import FILTERS as ALARM_FILTERS
from gateway.ingest.alarms import AlarmLane
from gateway.ingest.giving_way import GivingWay
from gateway.ingest.read_ahead import read_ahead
from gateway.ingest.retention import keep_days
from gateway.ingest.rollups import keep_rolled_up
from gateway.ingest.shares import Share, Shares
from gateway.ingest.telemetry import PIECE as TELEMETRY_PIECE
from gateway.ingest.telemetry import REST_S as TELEMETRY_REST_S
from gateway.ingest.telemetry import TelemetryLane
from gateway.keyring import Keyring, keyring_of
from gateway.links.auth_callout import CredentialCache, Responder
from gateway.links.election import elected
from gateway.links.mqtt import MqttLink
from gateway.links.steady import SteadyClock
from gateway.modems.pace import Pace
from gateway.modems.pool import ModemPool
from gateway.notify.channels.http_sms import HttpSmsChannel
from gateway.notify.channels.mqtt import MqttChannel
from gateway.notify.channels.phone import PhoneQueue, SmsChannel, VoiceChannel
from gateway.notify.channels.stream import StreamChannel
from gateway.notify.channels.webhook import WebhookChannel
from gateway.notify.dispatcher import Dispatcher
from gateway.procedures.runner import Runner
from gateway.proof.keeper import Keeper
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from gateway.store.phone_book import list_all
from gateway.store.pool import Pool, is_data_error, open_pool
from gateway.supervise.hearing import Ear
from gateway.supervise.listener import Listener
from gateway.supervise.supervisor import Supervisor

__all__ = ["run"]

_log = logging.getLogger(__name__)

_ROLLUP_LOCK = 0x726F6C6C
_LOOK_EVERY_S = 0.5


async def run(settings: Settings, *, observe: Callable[[str], None] = lambda _: None, pace: Pace | None = None) -> None:
    """Run the gateway until cancelled. `observe` hears of the steps; `pace` is that of modems, if not the usual one.

    The alarm lane and the dispatcher live and die with the process, which its supervisor restarts; the telemetry
    lane and the answers to the broker are restarted in here, and can end neither of them (D12).
    """
    keyring = keyring_of(settings)
    database = settings.database_url
    rng = Random()
    workdays = Workdays.load(settings.calendar)
    async with AsyncExitStack() as stack:
        alarm_pool = await stack.enter_async_context(
            open_pool(database, name="alarms", size=settings.alarm_workers + 2)
        )
        notify_pool = await stack.enter_async_context(open_pool(database, name="notify", size=4))
        procedure_pool = await stack.enter_async_context(open_pool(database, name="procedures", size=2))
        proof_pool = await stack.enter_async_context(open_pool(database, name="proof", size=1))
        supervise_pool = await stack.enter_async_context(open_pool(database, name="supervise", size=4, wide=True))
        telemetry_pool = await stack.enter_async_context(
            open_pool(database, name="telemetry", size=1 + settings.telemetry_shares)
        )

        alarm_link = MqttLink(settings.broker, client_id=f"~alarms-{settings.replica}", filters=ALARM_FILTERS)
        notify_link = MqttLink(settings.broker, client_id=f"~notify-{settings.replica}")
        telemetry_links: dict[int, MqttLink] = {}

        def answer_link(notice: DueNotice) -> str | None:
            return f"{settings.people_url}/r/{keyring.link_token(notice.leg_id)}"

        def phone_link(notice: DueNotice) -> str | None:
            """Nobody's phone reaches this machine by its own name for itself."""
            return None if settings.people_are_here else answer_link(notice)

        webhook = await stack.enter_async_context(WebhookChannel(link=answer_link, dns_servers=settings.dns_servers))
        phone_pool = await stack.enter_async_context(open_pool(database, name="phones", size=4))
        http_sms = await stack.enter_async_context(HttpSmsChannel(link=phone_link, dns_servers=settings.dns_servers))
        modem_pool = await stack.enter_async_context(open_pool(database, name="modems", size=4))
        phone_queue = PhoneQueue(database, phone_pool, Directory(keyring), rng=rng)
        responder = None
        if settings.auth_url is not None and settings.auth_seed is not None:
            url, seed = settings.auth_url.get_secret_value(), settings.auth_seed.get_secret_value()
            responder = Responder(url, seed, CredentialCache(database, keyring))

        directory = Directory(keyring)
        dispatcher = Dispatcher(
            database,
            notify_pool,
            directory,
            {
                "webhook": webhook,
                "mqtt": MqttChannel(notify_link, answer_link=answer_link),
                "stream": StreamChannel(),
                "sms": SmsChannel(phone_queue, link=phone_link),
                "voice": VoiceChannel(phone_queue),
                "http_sms": http_sms,
            },
            name=settings.replica,
            party_parallel=settings.party_parallel,
            rng=rng,
            status=lambda: {
                "alarms": alarm_link.connected.is_set(),
                "telemetry": any(link.connected.is_set() for link in telemetry_links.values()),
                "auth": responder is None or responder.ready.is_set(),
                "sending": dispatcher.under_way,
            },
            storing=lambda: alarms.storing,
            observe=observe,
        )
        alarms = AlarmLane(
            alarm_link,
            alarm_pool,
            directory,
            submit=dispatcher.submit,
            worker=lambda: dispatcher.worker,
            is_working_day=workdays.is_working_day,
            workers=settings.alarm_workers,
            rng=rng,
            busy=lambda: dispatcher.busy,
            observe=observe,
        )
        steady = SteadyClock()
        giving_way = GivingWay(lambda: alarms.storing or dispatcher.beginning)
        listener = Listener(supervise_pool, notify_link, steady)
        supervisor = Supervisor(supervise_pool, directory, listener, steady, shares=lambda: shares.count)

        @contextmanager
        def lane_of(share: Share) -> Iterator[tuple[TelemetryLane, MqttLink, Ear]]:
            link = telemetry_links[share.number] = MqttLink(
                settings.broker,
                client_id=share.client_id,
                filters=share.filters,
                drops=share.drops,
                piece=TELEMETRY_PIECE,
                rest_s=TELEMETRY_REST_S,
                wait=giving_way.now,
            )
            try:
                with listener.ear(share.number, share.ways) as ear:
                    lane = TelemetryLane(
                        link,
                        telemetry_pool,
                        Directory(keyring),
                        submit=dispatcher.submit,
                        worker=lambda: dispatcher.worker,
                        is_working_day=workdays.is_working_day,
                        rng=rng,
                        clock=steady,
                        heard=ear.heard,
                        give_way=giving_way.wait,
                        largest=settings.telemetry_batch,
                    )
                    yield lane, link, ear
            finally:
                del telemetry_links[share.number]

        async def store_share(share: Share) -> None:
            """Store a share of the telemetry; whoever stores the first one supervises."""
            first = share.number == 0
            # The clock comes first: nothing is to be stamped, nor said, by a wrong one.
            await (supervisor.resume() if first else listener.set_clock())
            with lane_of(share) as (lane, _, _):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(lane.run(), name="telemetry-lane")
                    if first:
                        tasks.create_task(supervisor.run(), name="supervisor")

        async def empty_share(share: Share) -> None:
            """Store what is left in a share to which nothing new comes: all of it, when our own word comes behind."""
            await listener.set_clock()
            with lane_of(share) as (lane, link, ear):
                storing = asyncio.create_task(lane.run(), name="telemetry-lane")
                try:
                    while not (storing.done() or link.connected.is_set()):
                        await asyncio.sleep(_LOOK_EVERY_S)
                    began = steady.now()
                    while not storing.done() and (ear.until is None or ear.until <= began):
                        await asyncio.sleep(_LOOK_EVERY_S)
                    if storing.done():  # it never ends by itself: what is left must not be thrown away
                        raise RuntimeError("a share could not be emptied") from storing.exception()
                finally:
                    storing.cancel()
                    await asyncio.wait({storing})

        shares = Shares(
            database,
            supervise_pool,
            settings.broker,
            wanted=settings.telemetry_shares,
            store=store_share,
            empty=empty_share,
        )
        runner = Runner(
            procedure_pool,
            directory,
            notify_link,
            submit=dispatcher.submit,
            worker=lambda: dispatcher.worker,
            is_working_day=workdays.is_working_day,
            rng=rng,
            busy=lambda: dispatcher.busy or alarms.storing,
        )
        keeper = Keeper(
            proof_pool, Directory(keyring), file=settings.checkpoint_file, every_s=settings.checkpoint_every_s
        )

        modems = ModemPool(
            database,
            modem_pool,
            Directory(keyring),
            settings.modems,
            replica=settings.replica,
            worker=lambda: dispatcher.worker,
            submit=dispatcher.submit,
            is_working_day=workdays.is_working_day,
            rng=rng,
            pace=pace,
            observe=observe,
        )

        async def roll_up() -> None:
            await keep_rolled_up(supervise_pool, days=timedelta(days=settings.telemetry_days), rng=rng)

        def quiet() -> bool:
            return not (alarms.storing or dispatcher.under_way)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dispatcher.run(), name="notify")
            tasks.create_task(alarms.run(), name="alarms")
            tasks.create_task(collect_when_quiet(quiet), name="garbage")
            tasks.create_task(
                _restarted("directory", lambda: read_ahead(procedure_pool, directory, quiet=quiet), rng),
                name="directory",
            )
            tasks.create_task(notify_link.run(lambda _: None), name="notify-link")
            tasks.create_task(_restarted("phone-queue", phone_queue.run, rng), name="phone-queue")
            tasks.create_task(_list_phones(phone_pool, keyring, rng), name="phone-book")
            # Also without a modem: what came by one of a gateway that is gone has to be dealt with.
            tasks.create_task(_restarted("modems", modems.run, rng), name="modems")
            tasks.create_task(_restarted("procedures", runner.run, rng), name="procedures")
            tasks.create_task(_restarted("proof", keeper.run, rng), name="proof")
            tasks.create_task(_restarted("telemetry", shares.run, rng), name="telemetry")
            tasks.create_task(_restarted("hearing", listener.follow, rng), name="hearing")
            tasks.create_task(
                _restarted("rollups", lambda: elected(database, _ROLLUP_LOCK, roll_up), rng), name="rollups"
            )
            tasks.create_task(
                _restarted("retention", lambda: keep_days(proof_pool, settings.telemetry_days, rng=rng), rng),
                name="retention",
            )
            if responder is not None:
                tasks.create_task(_let_in(alarm_link, responder, rng), name="auth-callout")


async def _list_phones(pool: Pool, keyring: Keyring, rng: Random) -> None:
    """Enter numbers from before there was a book of them, once."""
    try:
        await _list_all(pool, keyring, rng)
    except Exception:  # noqa: BLE001 # whoever cannot be found in the book is a stranger by phone, and nothing worse
        _log.exception("the book of numbers cannot be filled")


async def _list_all(pool: Pool, keyring: Keyring, rng: Random) -> None:
    while True:
        try:
            async with pool.connection() as conn:
                await list_all(conn, keyring)
            return
        except psycopg.Error as exc:
            if is_data_error(exc):
                raise
            _log.warning("the book of numbers cannot be filled yet: %s", type(exc).__name__)
            await asyncio.sleep(rng.uniform(0.5, 1.5))


async def _let_in(alarm_link: MqttLink, responder: Responder, rng: Random) -> None:
    """Let terminals in, but not before somebody listens: a broker drops what nobody has subscribed to."""
    await alarm_link.connected.wait()
    await _restarted("auth", responder.run, rng)


async def _restarted(name: str, part: Callable[[], Awaitable[None]], rng: Random) -> None:
    """Run a part for ever; its faults end only itself."""
    while True:
        try:
            await part()
            _log.warning("%s ended, starting it again", name)
        except (psycopg.Error, OSError) as exc:
            _log.warning("%s lost a connection: %s", name, exc)
        except Exception:  # noqa: BLE001 # the alarm lane outlives a failure of any other part (D12)
            _log.exception("%s failed, starting it again", name)
        await asyncio.sleep(rng.uniform(0.3, 1.0))
