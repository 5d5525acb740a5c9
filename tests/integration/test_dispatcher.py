"""The dispatcher on a real database: leases, retries, bulkheads, and what happens to the notices of the dead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, PartyAnswer, Sent, Tried, TryAgain
from gateway.domain.retry import LAST_TRY, TRIES_BEFORE_HELP
from gateway.keyring import Keyring
from gateway.notify.dispatcher import Dispatcher
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import close_case
from gateway.service.raise_alarm import Press, Raised, raise_alarm
from gateway.service.record import record_attempts
from gateway.site.load import load
from gateway.site.model import Site
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool, connect
from tests.conftest import ROOT

WANG, LI, ZHAO = "860000000000001", "860000000000002", "860000000000004"
SIX = {"guardian-wang", "hotline-12349", "service-meiyuan", "community-daying", "district-xuanwu", "ambulance-120"}
SEED = 20261122


class FakeChannel:
    """Does what a test says, and writes down every attempt when it begins."""

    def __init__(self, behaviour: Callable[[DueNotice], Awaitable[Outcome]] | None = None) -> None:
        self.sent: list[DueNotice] = []
        self._behaviour = behaviour
        self._changed = asyncio.Condition()

    async def send(self, notice: DueNotice) -> Outcome:
        async with self._changed:
            self.sent.append(notice)
            self._changed.notify_all()
        return Sent() if self._behaviour is None else await self._behaviour(notice)

    def to(self, party: str) -> list[DueNotice]:
        return [notice for notice in self.sent if notice.party.id == party]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def told_of(self, case: UUID, count: int) -> None:
        """Wait until so many different notices of a case were sent."""
        await self.until(lambda: len({notice.id for notice in self.sent if notice.case.id == case}) >= count)

    async def reached(self, *parties: str) -> None:
        await self.until(lambda: set(parties) <= {notice.party.id for notice in self.sent})


def for_party(party: str, behaviour: Callable[[DueNotice], Awaitable[Outcome]]) -> FakeChannel:
    """A channel that behaves so to one party and well to all others."""

    async def behave(notice: DueNotice) -> Outcome:
        return await behaviour(notice) if notice.party.id == party else Sent()

    return FakeChannel(behave)


class Desk:
    """A gateway without its doors: presses go in, a dispatcher sends."""

    def __init__(self, database: str, pool: Pool, directory: Directory) -> None:
        self._database = database
        self._pool = pool
        self._directory = directory
        self._seq = 0

    async def press(self, terminal: str = WANG, *, worker: int | None = None) -> Raised:
        self._seq += 1
        press = Press(
            terminal=terminal,
            transport="mqtt",
            kinds=("sos",),
            received_at=datetime.now(UTC),
            payload=b"{}",
            digest=b"",
            boot=1,
            seq=self._seq,
        )
        return await raise_alarm(self._pool, self._directory, press, worker=worker)

    async def close(self, case: UUID) -> None:
        await close_case(
            self._pool, self._directory, case, outcome="helped", confirmed_by="operator 7", note=None, worker=None
        )

    @asynccontextmanager
    async def dispatching(
        self,
        channel: FakeChannel,
        *,
        name: str = "a",
        parallel: int = 32,
        more: Mapping[str, FakeChannel] | None = None,
    ) -> AsyncIterator[Dispatcher]:
        dispatcher = Dispatcher(
            self._database,
            self._pool,
            self._directory,
            {"webhook": channel, **(more or {})},
            name=name,
            party_parallel=parallel,
            rng=Random(SEED),
            status=dict,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(dispatcher.run(), name=f"dispatcher {name}")
            yield dispatcher
            running.cancel()

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def eventually(self, query: str, *values: Any, gives: list[tuple[Any, ...]]) -> None:
        rows: list[tuple[Any, ...]] = []
        try:
            async with asyncio.timeout(20):
                while (rows := await self.rows(query, *values)) != gives:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{query} gives {rows}, not {gives}") from None

    async def hurry(self) -> None:
        """Let what waits for its next try be due now, and wake whoever sends."""
        await self.rows("UPDATE notice SET due_at = clock_timestamp() WHERE state = 'due' RETURNING 1")
        await self.rows(f"SELECT pg_notify('{outbox.CHANNEL}', '')")


@pytest.fixture
def desk(database: str, pool: Pool, directory: Directory, site: str) -> Desk:
    assert site == "nanjing-demo"
    return Desk(database, pool, directory)


@asynccontextmanager
async def worker(database: str) -> AsyncIterator[tuple[int, Connection]]:
    """A worker of another process, as far as the database can tell."""
    async with await connect(database, name="worker-other") as session:
        yield await outbox.register(session, "other"), session


# Who sends


async def test_what_nobody_has_taken_is_sent_once_to_each_party(desk: Desk) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel):
        raised = await desk.press()
        await channel.reached(*SIX)
        await desk.eventually("SELECT state, count(*) FROM leg GROUP BY 1", gives=[("delivered", 6)])
    assert len(channel.sent) == 6
    assert {notice.case.id for notice in channel.sent} == {raised.case_id}
    assert await desk.rows("SELECT outcome, count(*) FROM attempt GROUP BY 1") == [("sent", 6)]


async def test_what_was_committed_in_its_name_is_sent_at_once_and_only_once(desk: Desk) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel) as dispatcher:
        await desk.eventually("SELECT count(*) FROM worker", gives=[(1,)])
        raised = await desk.press(worker=dispatcher.worker)
        dispatcher.submit(raised.notices)
        dispatcher.submit(raised.notices)
        await channel.reached(*SIX)
        await dispatcher.idle()
        await desk.eventually("SELECT state, worker, count(*) FROM notice GROUP BY 1, 2", gives=[("sent", None, 6)])
    assert len(channel.sent) == 6


async def test_the_notices_of_a_worker_whose_session_ended_are_taken_over(desk: Desk, database: str) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel):
        async with worker(database) as (other, _):
            await desk.press(worker=other)
            assert channel.sent == []
        await channel.reached(*SIX)
        await desk.eventually("SELECT state, count(*) FROM notice GROUP BY 1", gives=[("sent", 6)])


async def test_the_notices_of_a_worker_that_is_silent_are_taken_over(desk: Desk, database: str) -> None:
    """A process that is stopped, or a machine that hangs, keeps its session for minutes."""
    channel = FakeChannel()
    async with worker(database) as (other, _):
        await desk.press(worker=other)
        async with desk.dispatching(channel):
            await channel.reached(*SIX)


async def test_a_living_worker_keeps_what_it_has_taken(desk: Desk, database: str) -> None:
    channel = FakeChannel()
    async with worker(database) as (other, session):
        theirs = await desk.press(WANG, worker=other)
        await desk.rows(
            "UPDATE notice SET queued_at = queued_at - interval '1 h', due_at = due_at - interval '1 h' RETURNING 1"
        )
        for _ in range(3):
            await outbox.beat(session, other, {})
            async with desk.dispatching(channel):
                # A lease takes what has been due the longest first, so theirs would have been among the first.
                ours = await desk.press(LI)
                await channel.told_of(ours.case_id, 6)
    assert all(notice.case.id != theirs.case_id for notice in channel.sent)
    assert await desk.rows("SELECT DISTINCT state, worker FROM notice WHERE case_id = %s", theirs.case_id) == [
        ("due", other)
    ]


async def test_what_this_worker_owns_but_lost_is_taken_again_and_what_it_holds_is_not(
    desk: Desk, pool: Pool, database: str
) -> None:
    async with worker(database) as (mine, _):
        await desk.press(worker=mine)
        ids = sorted(row[0] for row in await desk.rows("SELECT id FROM notice"))
        async with pool.connection() as conn:
            assert await outbox.lease(conn, mine, holding=[], limit=100) == [], "it may just not hold them yet"
            await conn.execute("UPDATE notice SET queued_at = queued_at - interval '3 s'")
            taken = await outbox.lease(conn, mine, holding=ids[:2], limit=100)
    assert sorted(row.id for row in taken) == ids[2:]


async def test_two_dispatchers_share_the_work_and_send_nothing_twice(desk: Desk) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel, name="a"), desk.dispatching(channel, name="b"):
        await desk.eventually("SELECT count(*) FROM worker", gives=[(2,)])
        for terminal in (WANG, LI, ZHAO) * 5:
            await desk.press(terminal)
        await desk.eventually("SELECT state, count(*) FROM notice GROUP BY 1", gives=[("sent", 90)])
    assert len(channel.sent) == len({notice.id for notice in channel.sent}) == 90


async def test_a_session_that_the_database_ends_is_replaced(desk: Desk, database: str) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel):
        await desk.eventually("SELECT count(*) FROM worker", gives=[(1,)])
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'onekey-worker-a' AND datname = current_database()"
            )
        await desk.press()
        await channel.reached(*SIX)
        await desk.eventually("SELECT state, count(*) FROM notice GROUP BY 1", gives=[("sent", 6)])


class Patience(Random):
    """Counts how often somebody asked how long to wait, and lets them wait a hundredth of it."""

    def __init__(self) -> None:
        super().__init__(SEED)
        self.asked = 0
        self.often = asyncio.Event()

    def uniform(self, a: float, b: float) -> float:
        self.asked += 1
        if self.asked >= 3:
            self.often.set()
        return super().uniform(a, b) / 100


async def test_a_database_that_is_away_is_asked_again_after_a_while(pool: Pool, directory: Directory) -> None:
    patience = Patience()
    nowhere = "postgresql://onekey@127.0.0.1:9/onekey"
    dispatcher = Dispatcher(nowhere, pool, directory, {}, name="a", party_parallel=1, rng=patience, status=dict)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        running = tasks.create_task(dispatcher.run(), name="dispatcher")
        await patience.often.wait()
        running.cancel()


# Retries, channels, fallback


@pytest.fixture
async def desk_with_fallback(database: str, pool: Pool, directory: Directory, keyring: Keyring) -> Desk:
    """The demo site, with a hotline that has no stream, and a fallback that no plan calls."""
    document = load(ROOT / "examples" / "nanjing.yaml").site.model_dump(mode="json")
    hotline = next(party for party in document["parties"] if party["id"] == "hotline-12349")
    hotline["channels"] = hotline["channels"][:2]
    duty = {"id": "duty-desk", "role": "care_station", "name": "值班室", "channels": [{"kind": "stream"}]}
    document["parties"].append(duty)
    document["fallback"] = ["duty-desk"]
    await apply_site(pool, keyring, Site.model_validate(document), prune=False)
    return Desk(database, pool, directory)


async def _busy(_: DueNotice) -> Outcome:
    return TryAgain("the receiver answered 503", status=503)


async def _gone(_: DueNotice) -> Outcome:
    return GiveUp("no such topic")


async def _tried(desk: Desk, channel: str, times: int) -> None:
    """Let what failed be tried again until it was tried so often on a channel."""
    counting = "SELECT count(*) >= %s FROM attempt WHERE channel = %s AND outcome = 'try_again'"
    for count in range(1, times + 1):
        await desk.eventually(counting, count, channel, gives=[(True,)])
        await desk.hurry()


async def test_retries_keep_their_id_then_comes_the_next_channel_then_the_fallback(desk_with_fallback: Desk) -> None:
    desk, open_again = desk_with_fallback, asyncio.Event()

    async def busy_for_long(notice: DueNotice) -> Outcome:
        return Sent() if open_again.is_set() else await _busy(notice)

    webhook, mqtt, stream = for_party("hotline-12349", _busy), FakeChannel(busy_for_long), FakeChannel()
    async with desk.dispatching(webhook, more={"mqtt": mqtt, "stream": stream}):
        raised = await desk.press()
        await _tried(desk, "webhook", TRIES_BEFORE_HELP)
        assert stream.sent == []
        await _tried(desk, "mqtt", TRIES_BEFORE_HELP)
        await stream.reached("duty-desk")
        open_again.set()
        await desk.hurry()
        await desk.eventually("SELECT state, count(*) FROM leg GROUP BY 1", gives=[("delivered", 7)])
    assert len(webhook.to("hotline-12349")) == TRIES_BEFORE_HELP
    tried = [*webhook.to("hotline-12349"), *mqtt.sent]
    assert {notice.id for notice in tried} == {tried[0].id}
    (fallback,) = stream.sent
    assert (fallback.reason, fallback.case.id) == ("fallback", raised.case_id)
    kinds = [row[0] for row in await desk.rows("SELECT kind FROM journal WHERE case_id = %s", raised.case_id)]
    assert kinds.count("leg.attempt_failed") == len(tried) - 1
    assert kinds.count("case.fallback") == 1


async def test_a_leg_fails_when_its_last_channel_gives_up_and_the_fallback_hears(desk_with_fallback: Desk) -> None:
    desk, stream = desk_with_fallback, FakeChannel()
    async with desk.dispatching(for_party("hotline-12349", _gone), more={"mqtt": FakeChannel(_gone), "stream": stream}):
        raised = await desk.press()
        await stream.reached("duty-desk")
        await desk.eventually("SELECT state FROM leg WHERE party_id = 'duty-desk'", gives=[("delivered",)])
    assert await desk.rows("SELECT state, problem FROM leg WHERE party_id = 'hotline-12349'") == [
        ("failed", "no channel of the party worked, last: no such topic")
    ]
    kinds = [row[0] for row in await desk.rows("SELECT kind FROM journal WHERE case_id = %s", raised.case_id)]
    assert (kinds.count("leg.failed"), kinds.count("case.fallback")) == (1, 1)
    assert await desk.rows("SELECT count(*) FROM event WHERE kind = 'leg.failed'") == [(1,)]


async def test_a_leg_fails_after_the_last_try_and_the_fallback_hears_once(desk_with_fallback: Desk) -> None:
    desk, stream = desk_with_fallback, FakeChannel()
    async with desk.dispatching(for_party("community-daying", _busy), more={"stream": stream}):
        await desk.press()
        await _tried(desk, "webhook", LAST_TRY)
        await desk.eventually("SELECT state FROM leg WHERE party_id = 'community-daying'", gives=[("failed",)])
        await desk.eventually("SELECT count(*) FROM notice WHERE state = 'due'", gives=[(0,)])
    assert [notice.party.id for notice in stream.sent] == ["duty-desk"]


async def test_a_try_that_failed_is_not_due_before_its_time(desk: Desk) -> None:
    async with desk.dispatching(for_party("hotline-12349", _busy)):
        await desk.press()
        waits = """
            SELECT n.tries, due_at - answered_at > interval '0.7 s', n.worker FROM notice n
            JOIN attempt a ON a.notice_id = n.id WHERE n.state = 'due' AND a.outcome = 'try_again'
        """
        await desk.eventually(waits, gives=[(1, True, None)])


async def test_giving_up_goes_to_the_next_channel_without_waiting(desk_with_fallback: Desk) -> None:
    desk = desk_with_fallback
    webhook, mqtt = for_party("hotline-12349", _gone), FakeChannel()
    async with desk.dispatching(webhook, more={"mqtt": mqtt}):
        await desk.press()
        await mqtt.reached("hotline-12349")
        await desk.eventually("SELECT state, count(*) FROM leg GROUP BY 1", gives=[("delivered", 6)])
    assert len(webhook.to("hotline-12349")) == len(mqtt.sent) == 1
    assert webhook.to("hotline-12349")[0].id == mqtt.sent[0].id


async def test_a_channel_that_this_gateway_does_not_have_is_passed_over(desk: Desk) -> None:
    stream = FakeChannel()
    async with desk.dispatching(for_party("hotline-12349", _gone), more={"stream": stream}):
        await desk.press()
        await stream.reached("hotline-12349")
        await desk.eventually("SELECT state, count(*) FROM leg GROUP BY 1", gives=[("delivered", 6)])
    assert await desk.rows(
        "SELECT channel, outcome FROM attempt WHERE notice_id = %s ORDER BY id", stream.sent[0].id
    ) == [
        ("webhook", "give_up"),
        ("mqtt", "give_up"),
        ("stream", "sent"),
    ]


async def test_an_answer_that_comes_with_the_delivery_ends_the_leg(desk: Desk) -> None:
    async def accepts(_: DueNotice) -> Outcome:
        return Sent(status=200, answer=PartyAnswer("coming", minutes=6, by="seat 12"))

    async with desk.dispatching(for_party("hotline-12349", accepts)):
        await desk.press()
        await desk.eventually("SELECT state FROM leg WHERE party_id = 'hotline-12349'", gives=[("answered",)])
    assert await desk.rows("SELECT answer, minutes, by_whom, via FROM answer") == [("coming", 6, "seat 12", "webhook")]


async def test_what_was_recorded_already_is_not_recorded_again(desk: Desk, pool: Pool, directory: Directory) -> None:
    """The connection can break after the COMMIT and before its answer: then everything is recorded once more."""
    raised = await desk.press(worker=1)
    now = datetime.now(UTC)
    tried = [Tried(notice=one, started_at=now, answered_at=now, outcome=Sent(200)) for one in raised.notices]
    entries = []
    for _ in range(2):
        assert (await record_attempts(pool, directory, tried, worker=1, rng=Random(SEED))).later == []
        entries.append(await desk.rows("SELECT count(*) FROM journal WHERE case_id = %s", raised.case_id))
    assert entries[0] == entries[1]
    later = [
        Tried(notice=one.notice, started_at=now + timedelta(seconds=1), answered_at=now, outcome=Sent())
        for one in tried
    ]
    await record_attempts(pool, directory, later, worker=1, rng=Random(SEED))
    assert await desk.rows("SELECT count(*) FROM attempt") == [(12,)]


async def test_a_case_that_somebody_holds_keeps_no_other_from_being_recorded(desk: Desk, database: str) -> None:
    channel = FakeChannel()
    async with desk.dispatching(channel), await psycopg.AsyncConnection.connect(database) as stuck:
        held = await desk.press(WANG, worker=4711)
        await stuck.execute("SELECT FROM cases WHERE id = %s FOR UPDATE", (held.case_id,))
        other = await desk.press(LI)
        await channel.told_of(held.case_id, 6)
        counting = "SELECT count(*) FROM attempt a JOIN notice n ON n.id = a.notice_id WHERE n.case_id = %s"
        await desk.eventually(counting, other.case_id, gives=[(6,)])
        assert await desk.rows(counting, held.case_id) == [(0,)]
        await stuck.rollback()
        await desk.eventually(counting, held.case_id, gives=[(6,)])
    assert len(channel.sent) == 12


async def test_a_party_that_left_the_site_meanwhile_fails_its_leg_and_the_fallback_hears(
    desk_with_fallback: Desk, pool: Pool, keyring: Keyring
) -> None:
    desk, stream = desk_with_fallback, FakeChannel()
    raised = await desk.press()
    document = load(ROOT / "examples" / "nanjing.yaml").site.model_dump(mode="json")
    gone = "guardian-wang"
    document["parties"] = [party for party in document["parties"] if party["id"] != gone]
    duty = {"id": "duty-desk", "role": "care_station", "name": "值班室", "channels": [{"kind": "stream"}]}
    document["parties"].append(duty)
    document["fallback"] = ["duty-desk"]
    for household in document["households"]:
        household["parties"] = [party for party in household["parties"] if party != gone]
    await apply_site(pool, keyring, Site.model_validate(document), prune=True)
    webhook = FakeChannel()
    async with desk.dispatching(webhook, more={"stream": stream, "mqtt": FakeChannel()}):
        await stream.reached("duty-desk")
        await desk.eventually("SELECT state FROM leg WHERE party_id = %s", gone, gives=[("failed",)])
    assert webhook.to(gone) == []
    kinds = [row[0] for row in await desk.rows("SELECT kind FROM journal WHERE case_id = %s", raised.case_id)]
    assert (kinds.count("leg.failed"), kinds.count("case.fallback")) == (1, 1)
    assert await desk.rows("SELECT count(*) FROM event WHERE kind = 'leg.failed'") == [(1,)]


async def test_the_word_that_it_is_over_does_not_overtake_the_call(desk: Desk) -> None:
    go_on = asyncio.Event()

    async def slow(notice: DueNotice) -> Outcome:
        if notice.reason == "alarm":
            await go_on.wait()
        return Sent()

    channel = for_party("hotline-12349", slow)
    async with desk.dispatching(channel):
        raised = await desk.press()
        await channel.reached("hotline-12349")
        await desk.close(raised.case_id)
        await channel.until(lambda: len([one for one in channel.sent if one.reason == "closed"]) >= 5)
        assert [one.reason for one in channel.to("hotline-12349")] == ["alarm"]
        go_on.set()
        await channel.until(lambda: len(channel.to("hotline-12349")) == 2)
    assert [one.reason for one in channel.to("hotline-12349")] == ["alarm", "closed"]


# Bulkheads


async def test_a_hanging_party_delays_no_other(desk: Desk) -> None:
    never = asyncio.Event()

    async def hangs(_: DueNotice) -> Outcome:
        await never.wait()
        return Sent()

    channel = for_party("hotline-12349", hangs)
    async with desk.dispatching(channel, parallel=2) as dispatcher:
        for terminal in (WANG, LI, ZHAO) * 4:
            await desk.press(terminal)
        others = "SELECT state, count(*) FROM notice WHERE party_id <> 'hotline-12349' GROUP BY 1"
        await desk.eventually(others, gives=[("sent", 60)])
        assert len(channel.to("hotline-12349")) == 2, "no more at a time than the bulkhead lets through"
        async with asyncio.timeout(10):
            while dispatcher.under_way != 12:
                await asyncio.sleep(0.01)  # what is on record is let go of a moment later
        never.set()
        await desk.eventually("SELECT state, count(*) FROM notice GROUP BY 1", gives=[("sent", 72)])


async def test_a_channel_that_fails_with_anything_is_tried_again_and_ends_no_other(desk: Desk) -> None:
    async def broken(notice: DueNotice) -> Outcome:
        if notice.tries == 0:
            raise ZeroDivisionError
        return Sent()

    channel = for_party("hotline-12349", broken)
    async with desk.dispatching(channel):
        await desk.press()
        await desk.eventually(
            "SELECT outcome, detail FROM attempt WHERE outcome <> 'sent'",
            gives=[("try_again", "ZeroDivisionError in the channel")],
        )
        await desk.hurry()
        await desk.eventually("SELECT state, count(*) FROM leg GROUP BY 1", gives=[("delivered", 6)])


@pytest.mark.parametrize(
    "poison",
    [
        Sent(status=2**40),
        Sent(detail="\x00"),
        Sent(detail="\ud800"),
        TryAgain("\x00"),
        TryAgain("\ud800"),
        GiveUp("\x00"),
        Sent(answer=PartyAnswer("coming", minutes=2**40)),
        Sent(answer=PartyAnswer("cannot", reason="\x00\ud800", by="\x00")),
    ],
    ids=repr,
)
async def test_an_outcome_that_the_database_refuses_stops_nothing(desk: Desk, poison: Outcome) -> None:
    async def poisons(_: DueNotice) -> Outcome:
        return poison

    channel = for_party("hotline-12349", poisons)
    async with desk.dispatching(channel, more={"mqtt": FakeChannel(), "stream": FakeChannel()}):
        await desk.press()
        others = "SELECT state, count(*) FROM leg WHERE party_id <> 'hotline-12349' GROUP BY 1"
        await desk.eventually(others, gives=[("delivered", 5)])
        await desk.eventually(
            "SELECT count(*) > 0 FROM attempt WHERE leg_id = (SELECT id FROM leg WHERE party_id = 'hotline-12349')",
            gives=[(True,)],
        )
        await desk.press(LI)
        await desk.eventually(others, gives=[("delivered", 10)])


# The end of a case (I4)


async def test_closing_a_case_cancels_what_waits_for_its_next_try(desk: Desk) -> None:
    async def busy(notice: DueNotice) -> Outcome:
        return Sent() if notice.reason == "closed" else TryAgain("the receiver answered 503", status=503)

    channel = for_party("hotline-12349", busy)
    async with desk.dispatching(channel):
        raised = await desk.press()
        await desk.eventually(
            "SELECT outcome, count(*) FROM attempt GROUP BY 1 ORDER BY 1", gives=[("sent", 5), ("try_again", 1)]
        )
        await desk.close(raised.case_id)
        await desk.hurry()
        await channel.until(lambda: [n.reason for n in channel.to("hotline-12349")] == ["alarm", "closed"])
        await desk.press()
        await channel.until(lambda: len(channel.to("hotline-12349")) >= 3)
        await desk.eventually(
            "SELECT number, state FROM notice WHERE case_id = %s AND party_id = 'hotline-12349' ORDER BY 1",
            raised.case_id,
            gives=[(1, "cancelled"), (2, "sent")],
        )
    assert [notice.reason for notice in channel.sent if notice.case.id == raised.case_id].count("closed") == 6
    assert len(channel.to("hotline-12349")) == 3


async def test_closing_a_case_cancels_what_waits_for_its_turn(desk: Desk) -> None:
    free = asyncio.Event()

    async def slow(_: DueNotice) -> Outcome:
        await free.wait()
        return Sent()

    channel = for_party("hotline-12349", slow)
    async with desk.dispatching(channel, parallel=1) as dispatcher:
        await desk.eventually("SELECT count(*) FROM worker", gives=[(1,)])
        await desk.press(WANG)
        await channel.until(lambda: len(channel.to("hotline-12349")) == 1)
        waiting = await desk.press(LI, worker=dispatcher.worker)
        dispatcher.submit(waiting.notices)
        await desk.close(waiting.case_id)
        await asyncio.sleep(0.6)  # what has waited for less than half a second is sent unasked
        free.set()
        await dispatcher.idle()
        await desk.eventually("SELECT count(*) FROM notice WHERE state = 'due'", gives=[(0,)])
    told = [notice.reason for notice in channel.to("hotline-12349") if notice.case.id == waiting.case_id]
    assert "alarm" not in told


async def test_a_notice_under_way_when_its_case_is_closed_counts_as_sent(desk: Desk) -> None:
    free = asyncio.Event()

    async def slow(notice: DueNotice) -> Outcome:
        if notice.reason != "closed":
            await free.wait()
        return Sent()

    channel = for_party("hotline-12349", slow)
    async with desk.dispatching(channel):
        raised = await desk.press()
        await channel.reached(*SIX)
        await desk.close(raised.case_id)
        free.set()
        of_hotline = "SELECT number, state FROM notice WHERE party_id = 'hotline-12349' ORDER BY 1"
        await desk.eventually(of_hotline, gives=[(1, "sent"), (2, "sent")])
    assert await desk.rows("SELECT state FROM leg WHERE party_id = 'hotline-12349'") == [("withdrawn",)]


async def test_a_party_that_is_gone_from_the_directory_fails_its_leg_and_no_other(desk: Desk) -> None:
    await desk.press()
    await desk.rows("UPDATE party SET active = false WHERE id = 'community-daying' RETURNING 1")
    await desk.rows("UPDATE site SET revision = revision + 1 RETURNING 1")
    channel = FakeChannel()
    async with desk.dispatching(channel):
        await desk.eventually(
            "SELECT state, count(*) FROM leg GROUP BY 1 ORDER BY 1", gives=[("delivered", 5), ("failed", 1)]
        )
    assert channel.to("community-daying") == []
