"""What could not be read is kept with its bytes, replayed or dismissed; an alarm opens a case beside it (I2)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from gateway.domain.case import NotFound, StateConflict
from gateway.service.quarantine import Misread, dismiss, keep, keep_alarm, replay
from gateway.service.raise_alarm import NoSite, Raised
from gateway.store import quarantine
from gateway.store.directory import Directory
from gateway.store.pool import Pool

WANG = "860000000000001"
ALARM = f"okc/v1/{WANG}/up/alarm"
HEARTBEAT = f"okc/v1/{WANG}/up/heartbeat"
NOISE = bytes(range(256))


def misread(topic: str = HEARTBEAT, payload: bytes = NOISE, **fields: Any) -> Misread:
    about: dict[str, Any] = {
        "transport": "mqtt",
        "terminal": WANG,
        "received_at": datetime.now(UTC),
        "reason": "no JSON",
    }
    return Misread(topic=topic, payload=payload, **(about | fields))


class Ward:
    """The quarantine, and what comes in beside it."""

    def __init__(self, pool: Pool, directory: Directory) -> None:
        self.pool = pool
        self.directory = directory

    async def keep(self, one: Misread) -> int:
        return await keep(self.pool, one)

    async def keep_alarm(self, one: Misread, *, worker: int | None = None) -> Raised:
        return await keep_alarm(self.pool, self.directory, one, worker=worker)

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def one(self, number: int) -> quarantine.Kept:
        async with self.pool.connection() as conn:
            kept = await quarantine.one(conn, number)
        assert kept is not None
        return kept


@pytest.fixture
def empty(pool: Pool, directory: Directory) -> Ward:
    """An installation without a site."""
    return Ward(pool, directory)


@pytest.fixture
def ward(empty: Ward, site: str) -> Ward:
    assert site == "nanjing-demo"
    return empty


# Keeping


async def test_a_message_is_kept_with_every_byte(ward: Ward) -> None:
    payload = NOISE * 4096
    number = await ward.keep(misread(payload=payload))
    kept = await ward.one(number)
    assert kept.payload == payload
    assert (kept.topic, kept.terminal_id, kept.transport, kept.reason) == (HEARTBEAT, WANG, "mqtt", "no JSON")
    assert (kept.state, kept.copies, kept.case_id) == ("kept", 1, None)
    assert await ward.rows("SELECT kind, data->>'quarantine' FROM event") == [("quarantine.added", str(number))]


async def test_the_same_bytes_on_the_same_topic_only_count(ward: Ward) -> None:
    number = await ward.keep(misread())
    assert await ward.keep(misread()) == number
    assert await ward.keep(misread()) == number
    assert (await ward.one(number)).copies == 3
    assert await ward.rows("SELECT count(*) FROM event") == [(1,)]
    assert await ward.keep(misread(payload=NOISE[1:])) != number
    assert await ward.keep(misread(topic=f"okc/v1/{WANG}/up/fix")) != number


@pytest.mark.parametrize(
    "topic",
    ["a\x00b", "okc/v1/" + "x" * 2000 + "/up/heartbeat", "", "\x00", "老人/求助"],
    ids=["NUL", "long", "empty", "only a NUL", "other letters"],
)
async def test_any_topic_can_be_kept_and_its_copies_counted(ward: Ward, topic: str) -> None:
    """A broker lets no NUL through, but other ways in may."""
    number = await ward.keep(misread(topic=topic, terminal=None))
    assert await ward.keep(misread(topic=topic, terminal=None)) == number
    kept = await ward.one(number)
    assert kept.copies == 2
    assert len(kept.topic) <= 1000


async def test_a_reason_with_a_nul_or_of_any_length_is_kept(ward: Ward) -> None:
    number = await ward.keep(misread(reason="byte \x00 " + "x" * 5000))
    assert len((await ward.one(number)).reason) <= 1000


async def test_what_was_settled_does_not_hide_the_same_bytes_again(ward: Ward) -> None:
    first = await ward.keep(misread())
    await dismiss(ward.pool, first, by="seat 7")
    second = await ward.keep(misread())
    assert second != first
    assert [(await ward.one(number)).state for number in (first, second)] == ["dismissed", "kept"]


# Alarms that could not be read


async def test_an_alarm_that_cannot_be_read_opens_a_case_for_its_household(ward: Ward) -> None:
    raised = await ward.keep_alarm(misread(ALARM))
    assert raised.how == "opened"
    assert await ward.rows("SELECT class, subject, kinds, problem FROM cases") == [
        ("emergency", "household:wang-501", ["unreadable"], "alarm that could not be read: no JSON")
    ]
    assert await ward.rows("SELECT party_id, origin, state FROM leg") == [("hotline-12349", "fallback", "pending")]
    assert await ward.rows("SELECT case_id, district, payload FROM quarantine") == [(raised.case_id, "320102", NOISE)]


async def test_its_notices_are_handed_to_the_worker_that_stored_it(ward: Ward) -> None:
    raised = await ward.keep_alarm(misread(ALARM), worker=4711)
    assert [notice.party.id for notice in raised.notices] == ["hotline-12349"]
    assert await ward.rows("SELECT worker FROM notice") == [(4711,)]


async def test_the_same_unreadable_alarm_again_is_the_same_case_and_one_more_copy(ward: Ward) -> None:
    first = await ward.keep_alarm(misread(ALARM))
    again = await ward.keep_alarm(misread(ALARM))
    assert (again.how, again.case_id) == ("repeated", first.case_id)
    assert await ward.rows("SELECT copies FROM quarantine") == [(2,)]
    assert await ward.rows("SELECT urgency FROM cases") == [(1,)]


async def test_an_unreadable_alarm_from_nobody_known_concerns_the_fallback(ward: Ward) -> None:
    raised = await ward.keep_alarm(misread("okc/v1/?/up/alarm", terminal=None))
    assert raised.terminal_uid is None
    assert await ward.rows("SELECT household_id, class FROM cases") == [(None, "emergency")]
    assert await ward.rows("SELECT party_id, origin FROM leg") == [("hotline-12349", "fallback")]


async def test_a_long_or_strange_topic_does_not_stop_an_alarm(ward: Ward) -> None:
    for topic in ("a\x00b", "x" * 3000):
        await ward.keep_alarm(misread(topic, terminal=None, payload=topic.encode()))
    assert await ward.rows("SELECT count(*) FROM quarantine WHERE case_id IS NOT NULL") == [(2,)]


async def test_without_a_site_nothing_is_kept_half(empty: Ward) -> None:
    with pytest.raises(NoSite):
        await empty.keep_alarm(misread(ALARM))
    assert await empty.rows("SELECT (SELECT count(*) FROM cases), (SELECT count(*) FROM quarantine)") == [(0, 0)]
    number = await empty.keep(misread(ALARM))
    assert (await empty.one(number)).case_id is None


# Settling


async def test_replaying_telemetry_stores_it_as_of_its_receipt(ward: Ward) -> None:
    """The rules of today read what those of yesterday could not."""
    received_at = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
    number = await ward.keep(misread(payload=b'{"v":1,"battery_pct":55}', received_at=received_at))
    result = await replay(ward.pool, ward.directory, number, by="seat 7")
    assert (result.state, result.case_id) == ("replayed", None)
    assert await ward.rows("SELECT battery_pct, received_at FROM heartbeat") == [(55, received_at)]
    kept = await ward.one(number)
    assert (kept.state, kept.settled_by) == ("replayed", "seat 7")
    assert kept.settled_at is not None


async def test_replaying_an_alarm_does_what_would_have_been_done(ward: Ward) -> None:
    number = await ward.keep(misread(ALARM, b'{"v":1,"kinds":["sos"],"boot":3,"seq":17}'))
    result = await replay(ward.pool, ward.directory, number, by="seat 7")
    assert result.detail == "alarm opened"
    assert await ward.rows("SELECT id, kinds FROM cases") == [(result.case_id, ["sos"])]
    assert await ward.rows("SELECT count(*), count(worker) FROM notice WHERE state = 'due'") == [(6, 0)]


async def test_replaying_an_alarm_joins_the_case_that_it_opened_unread(ward: Ward) -> None:
    payload = b'{"v":1,"kinds":["sos"],"boot":3,"seq":17}'
    raised = await ward.keep_alarm(misread(ALARM, payload))
    ((number,),) = await ward.rows("SELECT id FROM quarantine")
    result = await replay(ward.pool, ward.directory, number, by="seat 7")
    assert (result.case_id, result.detail) == (raised.case_id, "alarm joined")
    legs = await ward.rows(
        "SELECT count(DISTINCT role) FROM leg WHERE case_id = %s AND state = 'pending'", raised.case_id
    )
    assert legs == [(6,)]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [(HEARTBEAT, NOISE), (ALARM, NOISE), ("okc/v1/?/up/alarm", b'{"v":1,"kinds":["sos"]}'), ("x", b"{}")],
    ids=["telemetry", "alarm", "no terminal", "no topic of ours"],
)
async def test_what_still_cannot_be_read_stays_kept(ward: Ward, topic: str, payload: bytes) -> None:
    number = await ward.keep(misread(topic, payload))
    with pytest.raises(StateConflict, match=f"Message {number} still cannot be read"):
        await replay(ward.pool, ward.directory, number, by="seat 7")
    kept = await ward.one(number)
    assert (kept.state, kept.settled_by) == ("kept", None)
    assert await ward.rows("SELECT count(*) FROM cases") == [(0,)]


async def test_a_message_is_settled_once(ward: Ward) -> None:
    replayed = await ward.keep(misread(payload=b'{"v":1,"battery_pct":55}'))
    await replay(ward.pool, ward.directory, replayed, by="seat 7")
    dismissed = await ward.keep(misread())
    await dismiss(ward.pool, dismissed, by="seat 8")
    for number in (replayed, dismissed):
        with pytest.raises(StateConflict, match="already"):
            await replay(ward.pool, ward.directory, number, by="seat 9")
        with pytest.raises(StateConflict, match="already"):
            await dismiss(ward.pool, number, by="seat 9")
    assert [(await ward.one(number)).settled_by for number in (replayed, dismissed)] == ["seat 7", "seat 8"]
    assert await ward.rows("SELECT count(*) FROM heartbeat") == [(1,)]


async def test_a_number_that_is_not_there_is_said_to_be_so(ward: Ward) -> None:
    with pytest.raises(NotFound):
        await replay(ward.pool, ward.directory, 4711, by="seat 7")
    with pytest.raises(NotFound):
        await dismiss(ward.pool, 4711, by="seat 7")


async def test_the_list_is_newest_first_and_can_be_paged_and_narrowed(ward: Ward) -> None:
    numbers = [await ward.keep(misread(payload=bytes([n]))) for n in range(5)]
    await ward.keep_alarm(misread(ALARM))
    await dismiss(ward.pool, numbers[0], by="seat 7")

    async def listed(
        *, before: int | None = None, state: str | None = None, district: str | None = None, limit: int = 100
    ) -> list[int]:
        async with ward.pool.connection() as conn:
            found = await quarantine.listing(conn, before=before, state=state, district=district, limit=limit)
        return [one.id for one in found]

    everything = await listed()
    assert everything[1:] == sorted(numbers, reverse=True)
    assert await listed(limit=2) == everything[:2]
    assert await listed(before=everything[1], limit=2) == everything[2:4]
    assert await listed(state="dismissed") == [numbers[0]]
    assert await listed(district="320102") == everything[:1]
    async with ward.pool.connection() as conn:
        assert await quarantine.count_kept(conn) == 5


async def test_ids_are_told_apart_by_their_case(ward: Ward) -> None:
    """What another terminal's unreadable alarm opened is another household's case."""
    one = await ward.keep_alarm(misread(ALARM))
    other = await ward.keep_alarm(misread("okc/v1/860000000000002/up/alarm", terminal="860000000000002"))
    assert one.case_id != other.case_id
    assert isinstance(other.case_id, UUID)
    assert await ward.rows("SELECT count(*) FROM quarantine") == [(2,)]
