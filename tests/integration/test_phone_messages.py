"""What came by phone, read and acted on: each thing once, whoever it is from, in whatever order and pieces."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firmware_sim.sites import SiteFile, made_up
from gateway.domain.outbox import DueNotice, Sent, Tried
from gateway.keyring import Keyring
from gateway.notify.lanes import rank_of
from gateway.notify.short import parts_of
from gateway.service import case_reading
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import close_case
from gateway.service.case_work import locked
from gateway.service.climb_ladders import climb_legs
from gateway.service.due import lease_due
from gateway.service.phone.arrivals import arrival, give_up, handle, ring
from gateway.service.phone.turn import Handled
from gateway.service.phone_queue import Letter, enqueue_notice
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.record import record_attempts
from gateway.site.load import load
from gateway.store import outbox, phone_book, phone_in, phone_out
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect
from protocols.gsm.address import Address
from protocols.gsm.coding import Alphabet, DataCoding
from protocols.gsm.tpdu import Deliver, StatusReport, write_pdu
from protocols.gsm.userdata import UserData, split
from protocols.oks import Place, SmsReport, binary, text

MODEM = "861234567890000"
SIM, GUARDIAN, PERSON = "+8614700000001", "+8613812345678", "+8613700000009"
TERMINAL = "sim-00001"
NOW = datetime(2026, 11, 27, 6, 31, 5, tzinfo=UTC)


class Phones:
    """The database with a site, and what modems bring to it."""

    def __init__(self, pool: Pool, directory: Directory, worker: int) -> None:
        self.pool = pool
        self.directory = directory
        self.worker = worker

    async def keep(self, users: Sequence[UserData], sender: str, *, at: datetime = NOW) -> int:
        async with self.pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self.directory.keyring)
            new = []
            for user in users:
                coding = DataCoding.of(user.alphabet)
                pdu, length = write_pdu(Deliver(sender=Address.parse(sender), user=user, sent_at=at, coding=coding))
                new.append(arrival(self.directory, key, modem=MODEM, pdu=pdu, length=length))
            return await phone_in.add(conn, new, key=key.id)

    async def forget(self) -> None:
        async with self.pool.connection() as conn:
            await phone_in.emptied(conn, MODEM)

    async def deal(self) -> list[Handled]:
        """Deal with everything that is there, as the gateway does."""
        done = []
        async with self.pool.connection() as conn:
            waiting = await phone_in.open_ones(conn, limit=500)
        for one in waiting:
            handled = await handle(self.pool, self.directory, one, worker=self.worker)
            if handled is not None:
                done.append(handled)
        return done

    async def says(self, words: str, sender: str, *, at: datetime = NOW) -> Handled:
        await self.keep(split(words, reference=1), sender, at=at)
        (done,) = await self.deal()
        return done

    async def two_minutes_later(self) -> None:
        await self.rows(
            "UPDATE phone_in SET received_at = received_at - interval '2 minutes', "
            "due_at = due_at - interval '2 minutes' RETURNING 1"
        )

    async def press(self, terminal: str = TERMINAL, *, seq: int = 1) -> Any:
        return await raise_alarm(
            self.pool,
            self.directory,
            Press(
                terminal=terminal,
                transport="mqtt",
                kinds=("sos",),
                received_at=NOW,
                payload=b"",
                digest=bytes((seq,)),
                boot=3,
                seq=seq,
                pressed_at=NOW.replace(microsecond=412_000),
            ),
            worker=self.worker,
        )

    async def text_out(self, notice: DueNotice, *, reference: int = 7) -> str:
        """Send the text of a notice as the channel and the pool would; returns the letter of its case."""
        job = f"{notice.id}:{notice.channel}"
        letters = []

        def compose(letter: Letter) -> str:
            letters.append(letter.letter)
            return "…"

        await queue_text(self, notice, compose)
        async with self.pool.connection() as conn, conn.transaction():
            (leased,) = await phone_out.lease(conn, self.worker, modems=[MODEM], calling=[], limit=1)
            assert leased.id == job
            await phone_out.add_part(conn, job, part=1, modem=MODEM, reference=reference)
            await phone_out.end(conn, job, state="sent", modem=MODEM, detail=None)
        tried = Tried(notice=notice, started_at=datetime.now(UTC), answered_at=datetime.now(UTC), outcome=Sent())
        await record_attempts(self.pool, self.directory, [tried], worker=self.worker, rng=Random(1))
        return letters[0]

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query.encode())).fetchall()


async def queue_text(phones: Phones, notice: DueNotice, compose: Callable[[Letter], str] | None) -> None:
    await enqueue_notice(
        phones.pool,
        phones.directory,
        job=f"{notice.id}:{notice.channel}",
        kind="call" if compose is None else "sms",
        notice_id=notice.id,
        leg_id=notice.leg_id,
        case_id=notice.case.id,
        number=notice.number,
        to=str(notice.party.phone),
        rank=rank_of(notice, first=True),
        compose=compose,
    )


def site_file() -> SiteFile:
    site = made_up(2, seed=7)
    site.give_sim(TERMINAL, SIM)
    site.give_phone(TERMINAL, PERSON)
    site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms"}, {"kind": "voice"}])
    site.reach_by_phone("sim-community", "02588011234", [{"kind": "sms"}])
    return site


@pytest.fixture
async def phones(pool: Pool, database: str, keyring: Keyring, tmp_path: Path) -> Any:
    site_file().save(tmp_path / "site.yaml")
    await apply_site(pool, keyring, load(tmp_path / "site.yaml").site, prune=False)
    async with await connect(database, name="test") as session:
        yield Phones(pool, Directory(keyring), await outbox.register(session, "test"))


def of(raised: Any, party: str) -> DueNotice:
    return next(notice for notice in raised.notices if notice.party.id == party)


REPORT = SmsReport(kinds=("sos",), terminal=TERMINAL, boot=3, seq=1, at=NOW, place=Place(32.06, 118.79), battery_pct=88)


async def test_the_same_press_by_mqtt_and_in_both_forms_of_sms_is_one_press(phones: Phones) -> None:
    await phones.press()
    assert (await phones.says(text.write(REPORT), SIM)).outcome == "alarm repeated"
    await phones.keep([UserData(Alphabet.DATA, binary.write(REPORT))], SIM)
    (done,) = await phones.deal()
    assert done.outcome == "alarm repeated"
    assert await phones.rows("SELECT count(*), max(urgency) FROM cases") == [(1, 1)]
    assert await phones.rows("SELECT count(*) FROM alarm") == [(1,)]


async def test_what_a_modem_still_holds_is_the_same_message_and_what_comes_after_is_another(phones: Phones) -> None:
    assert await phones.keep(split("SOS", reference=1), SIM) == 1
    assert await phones.keep(split("SOS", reference=1), SIM) == 0  # killed between keeping and deleting
    await phones.deal()
    assert await phones.keep(split("SOS", reference=1), SIM) == 0
    await phones.forget()
    # A service centre whose clock stands still: the next cry for help has the very same octets.
    assert await phones.keep(split("SOS", reference=1), SIM) == 1
    assert [done.outcome for done in await phones.deal()] == ["alarm repeated"]
    (case,) = (await phones.rows("SELECT id FROM cases"))[0]
    await close_case(phones.pool, phones.directory, case, outcome="helped", confirmed_by="a", note=None)
    await phones.forget()
    assert await phones.keep(split("SOS", reference=1), SIM) == 1
    assert [done.outcome for done in await phones.deal()] == ["alarm opened"]


@pytest.mark.parametrize("seed", range(6))
async def test_parts_come_in_any_order_and_twice(phones: Phones, seed: int) -> None:
    words = "我摔倒了，动不了，" + "在阳台上" * 40 + " SOS"
    users = split(words, reference=9)
    order = [*range(len(users)), 0]
    Random(seed).shuffle(order)
    outcomes = []
    for n, place in enumerate(order):
        await phones.keep([users[place]], SIM, at=NOW.replace(second=n))
        outcomes += [done.outcome for done in await phones.deal()]
    assert outcomes[0] == "alarm opened"
    assert await phones.rows("SELECT count(*) FROM cases WHERE class = 'emergency'") == [(1,)]
    kinds = (await phones.rows("SELECT kinds FROM cases"))[0][0]
    assert set(kinds) <= {"sos", "fall"}


async def test_a_beginning_that_calls_for_help_does_not_wait_for_the_rest(phones: Phones) -> None:
    users = split("救命 " + "很长" * 80, reference=9)
    await phones.keep(users[:1], SIM)
    (done,) = await phones.deal()
    assert done.outcome == "alarm opened"
    assert "2 parts of the message are missing" in (await phones.rows("SELECT problem FROM cases"))[0][0]


async def test_parts_that_never_come_are_given_up_with_what_there_is(phones: Phones) -> None:
    users = split("今天天气很好 " + "很长" * 80, reference=9)
    await phones.keep(users[1:2], SIM)
    assert await phones.deal() == []
    assert await phones.rows("SELECT state FROM phone_in") == [("waiting",)]
    await phones.two_minutes_later()
    (done,) = await phones.deal()
    assert done.outcome == "not understood"
    assert await phones.rows("SELECT kinds FROM cases") == [(["unreadable"],)]


async def test_octets_that_are_no_message_are_kept_and_hold_up_nothing(phones: Phones) -> None:
    async with phones.pool.connection() as conn, conn.transaction():
        key = await phone_in.own_key(conn, phones.directory.keyring)
        broken = [
            arrival(phones.directory, key, modem=MODEM, pdu=pdu, length=None) for pdu in ("00", "07FFzz", "AB" * 9)
        ]
        await phone_in.add(conn, broken, key=key.id)
    await phones.keep(split("SOS", reference=1), SIM)
    assert [done.outcome for done in await phones.deal()] == ["broken"] * 3 + ["alarm opened"]


async def test_a_damaged_report_of_a_terminal_is_a_case_to_look_at(phones: Phones) -> None:
    octets = bytearray(binary.write(REPORT))
    octets[9] ^= 0x10
    await phones.keep([UserData(Alphabet.DATA, bytes(octets))], SIM)
    (done,) = await phones.deal()
    assert done.outcome == "not understood"
    assert await phones.rows("SELECT terminal_id, transport, state FROM quarantine") == [(TERMINAL, "sms", "kept")]


async def test_who_else_may_raise_an_alarm(phones: Phones) -> None:
    assert (await phones.says("我在家里 救命", PERSON)).outcome == "alarm opened"
    assert await phones.rows("SELECT terminal_id, problem FROM cases") == [
        (TERMINAL, "it came from the person's own phone")
    ]
    assert (await phones.says("SOS sim-00002", "+85290000001")).outcome == "call for help"  # no id of ours
    assert (await phones.says("SOS id:sim-00002", "+85290000001")).outcome == "alarm opened"
    # A terminal that nobody registered, and a cry from anywhere: for the fallback, but not without end (D13, I6).
    assert (await phones.says("SOS id:sim-99999", "+85290000001")).outcome == "call for help"
    said = [(await phones.says("救命", "+85290000002", at=NOW.replace(second=n))).outcome for n in range(5)]
    assert said == ["call for help"] * 3 + ["stranger"] * 2
    assert (
        await phones.says("SOS! fire sale, 50% off until Sunday, call us now", "+85290000003")
    ).outcome == "stranger"


@pytest.mark.parametrize("words", ["我胸口很痛", "打120", "在吗", "🆘"])
async def test_whatever_a_protected_person_writes_somebody_looks(phones: Phones, words: str) -> None:
    done = await phones.says(words, PERSON)
    assert (done.outcome, len(done.notices)) == ("not understood", 1)
    assert await phones.rows("SELECT household_id IS NOT NULL, class FROM cases") == [(True, "emergency")]
    said = (await case_reading.read_case(phones.pool, phones.directory, done.case_id)).timeline
    assert [entry.data for entry in said if entry.kind == "case.said"] == [{"via": "sms", "text": words}]


async def test_what_a_person_says_while_help_is_on_the_way_is_on_record_and_calls_nobody_again(phones: Phones) -> None:
    raised = await phones.press()
    done = await phones.says("我没事了，按错了", PERSON)
    assert (done.outcome, done.case_id, list(done.notices)) == ("said", raised.case_id, [])
    assert await rings(phones, PERSON, "a") == "person rang"
    assert await phones.rows("SELECT urgency FROM cases") == [(1,)]
    assert (await phones.says("救命", PERSON)).outcome == "alarm joined"


async def test_what_a_person_says_while_their_case_is_being_closed_is_looked_at(phones: Phones) -> None:
    raised = await phones.press()
    async with phones.pool.connection() as conn, conn.transaction():
        await conn.execute("UPDATE cases SET state = 'closed', closed_at = onekey_now(), outcome = 'helped'")
        saying = asyncio.create_task(phones.says("我胸口很痛", PERSON))
        await asyncio.sleep(0.5)  # it waits for the lock of the case
    done = await saying
    assert done.outcome == "not understood"
    assert done.case_id != raised.case_id


async def test_courtesies_and_late_answers_of_persons_open_nothing(phones: Phones) -> None:
    assert (await phones.says("谢谢！", PERSON)).outcome == "unmatched"
    # Somebody who is protected, and is told of others as well.
    async with phones.pool.connection() as conn, conn.transaction():
        await phone_book.list_phone(
            conn, phones.directory.keyring, kind="person", name="sim-person-00002", phone=GUARDIAN
        )
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    await close_case(phones.pool, phones.directory, raised.case_id, outcome="helped", confirmed_by="a", note=None)
    assert (await phones.says("1 到了", GUARDIAN)).outcome == "unmatched"
    assert await rings(phones, GUARDIAN, "a") == "unmatched call"
    assert await phones.rows("SELECT count(*) FROM cases") == [(1,)]
    # What is no answer may be about themselves, and who rings an hour later does not ring back.
    done = await phones.says("我胸口很痛", GUARDIAN)
    assert done.outcome == "not understood"
    assert done.case_id is not None
    await close_case(phones.pool, phones.directory, done.case_id, outcome="helped", confirmed_by="a", note=None)
    await phones.rows("UPDATE phone_out SET queued_at = queued_at - interval '2 hours' RETURNING 1")
    assert (await rings(phones, GUARDIAN, "b")).startswith("alarm")


@pytest.mark.parametrize(
    "words",
    [
        "help me! lat:22.566901 long:114.051258 speed:0.00 14/08/09 06.54 F:3.85V,1,Signal:F imei:354776031555474",
        "SOS求救 IMEI:860000000000001 位置:32.0603,118.7969",
        "fall alarm 860000000000001",
        "救命啊 id:3",
    ],
)
async def test_terminals_that_nobody_registered_are_heard(phones: Phones, words: str) -> None:
    assert (await phones.says(words, "+8613100000009")).outcome == "call for help"


async def test_words_that_contradict_their_digit_are_asked_about(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    done = await phones.says("1 来不了", GUARDIAN)
    assert done.outcome == "said"
    assert "只回数字" in done.replies[0].text
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("delivered",)]


async def test_an_unheard_call_makes_an_old_answer_no_answer_to_a_new_press(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    again = await phones.press(seq=2)
    await queue_text(phones, of(again, "sim-guardian"), None)
    async with phones.pool.connection() as conn, conn.transaction():
        await phone_out.lease(conn, phones.worker, modems=[MODEM], calling=[MODEM], limit=1)  # it rings
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("pending",)]


async def test_persons_without_a_terminal_are_cases_of_their_households(phones: Phones) -> None:
    await phones.rows("UPDATE terminal SET active = false RETURNING 1")
    other = "+8613700000077"
    async with phones.pool.connection() as conn, conn.transaction():
        await phone_book.list_phone(conn, phones.directory.keyring, kind="person", name="sim-person-00002", phone=other)
    first = await phones.says("救命", PERSON)
    second = await phones.says("救命 我摔倒了", other, at=NOW.replace(second=20))
    third = await phones.says("不舒服", other, at=NOW.replace(second=25))
    assert [done.outcome for done in (first, second, third)] == ["alarm opened", "alarm opened", "said"]
    assert first.case_id != second.case_id == third.case_id
    assert [len(done.notices) for done in (first, second)] == [6, 6]
    assert await phones.rows("SELECT count(DISTINCT household_id) FROM cases") == [(2,)]
    (problem,) = (await phones.rows("SELECT problem FROM cases ORDER BY opened_at LIMIT 1"))[0]
    assert problem == "it came from the person's own phone; there is no terminal"


async def test_two_that_nobody_knows_are_two_cases(phones: Phones) -> None:
    first = await phones.says("help", "+8613100000001")
    second = await phones.says("救命", "+8613100000002", at=NOW.replace(second=9))
    again = await phones.says("救命啊", "+8613100000002", at=NOW.replace(second=19))
    assert first.case_id != second.case_id == again.case_id
    assert [len(done.notices) for done in (first, second)] == [1, 1]
    said = (await case_reading.read_case(phones.pool, phones.directory, second.case_id)).timeline
    assert [entry.data.get("text") for entry in said if entry.kind == "case.said"] == ["救命", "救命啊"]


async def test_one_that_nobody_knows_opens_no_cases_without_end(phones: Phones) -> None:
    outcomes = []
    for n in range(40):
        done = await phones.says(f"SOS 86000000000{n:04}", "+8613100000002", at=NOW.replace(minute=n))
        outcomes.append(done.outcome)
    assert outcomes[:4] == ["call for help"] * 3 + ["stranger"]
    assert await phones.rows("SELECT count(*) FROM cases") == [(3,)]
    for n in range(80):
        await phones.says("救命", f"+86131001{n:05}")
    assert await phones.rows("SELECT count(*) FROM phone_in WHERE outcome = 'call for help'") == [(60,)]
    bill = "【港华燃气】尊敬的客户，您的燃气户号320100123456789本月账单86.40元，请于25日前缴费。退订回T"
    assert (await phones.says(bill, "+861069012345")).outcome == "stranger"
    assert (await phones.says("停电通知：户号 320100123456780 计划于28日停电检修", "95598")).outcome == "stranger"
    assert (await phones.says("救命", SIM)).outcome == "alarm opened"


async def test_a_stranger_is_kept_some_times_and_then_only_counted(phones: Phones) -> None:
    for n in range(30):
        await phones.says(f"loan {n}", "+85290000001", at=NOW.replace(minute=n))
    assert await phones.rows("SELECT outcome, count(*) FROM phone_in GROUP BY 1 ORDER BY 1") == [
        ("flood", 10),
        ("stranger", 20),
    ]
    assert await phones.rows("SELECT sum(copies) FROM phone_in WHERE outcome = 'stranger'") == [(30,)]
    assert await phones.rows("SELECT count(*) FROM phone_in WHERE outcome = 'flood' AND sealed IS NOT NULL") == [(0,)]
    assert (await phones.says("救命", SIM)).outcome == "alarm opened"


async def test_an_answer_counts_for_the_case_it_answers(phones: Phones) -> None:
    raised = await phones.press()
    assert await phones.text_out(of(raised, "sim-guardian")) == "A"
    done = await phones.says("1 十分钟", "13812345678")  # as the network shows it: national
    assert (done.outcome, done.case_id) == ("answer coming", raised.case_id)
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("answered",)]
    assert (await phones.says("路上堵车", GUARDIAN)).outcome == "said"
    assert (await phones.says("0", GUARDIAN, at=NOW.replace(minute=40))).outcome == "answer cannot"
    assert await phones.rows("SELECT answer FROM answer ORDER BY id") == [("coming",), ("cannot",)]


async def test_with_two_cases_a_bare_digit_ends_nothing_and_a_letter_does(phones: Phones) -> None:
    first, second = await phones.press(), await phones.press("sim-00002")
    letters = [await phones.text_out(of(one, "sim-guardian")) for one in (first, second)]
    assert letters == ["A", "B"]
    done = await phones.says("1", GUARDIAN)
    assert done.outcome == "ambiguous"
    assert [reply.number for reply in done.replies] == [GUARDIAN]
    assert all(code in done.replies[0].text for code in ("A(", "B(", "1B"))
    assert await phones.rows("SELECT count(*) FROM answer") == [(0,)]
    done = await phones.says("1b", GUARDIAN, at=NOW.replace(minute=33))
    assert (done.outcome, done.case_id) == ("answer coming", second.case_id)
    await close_case(phones.pool, phones.directory, second.case_id, outcome="helped", confirmed_by="a", note=None)
    # Of the first one they were told alone: a bare digit is its.
    done = await phones.says("2", GUARDIAN, at=NOW.replace(minute=34))
    assert (done.outcome, done.case_id) == ("answer arrived", first.case_id)


async def test_a_late_answer_is_not_counted_for_the_case_that_is_left(phones: Phones) -> None:
    first, second = await phones.press(), await phones.press("sim-00002")
    await phones.text_out(of(first, "sim-guardian"))
    await phones.text_out(of(second, "sim-guardian"), reference=8)
    await close_case(phones.pool, phones.directory, first.case_id, outcome="helped", confirmed_by="a", note=None)
    done = await phones.says("1", GUARDIAN)
    assert done.outcome == "ambiguous"
    assert "1B" in done.replies[0].text
    assert await phones.rows("SELECT count(*) FROM answer") == [(0,)]
    assert (await phones.says("1B", GUARDIAN)).outcome == "answer coming"


async def test_an_answer_counts_also_after_a_further_call_by_another_channel(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    async with phones.pool.connection() as conn:
        await conn.execute("UPDATE leg SET armed_at = armed_at - interval '70 seconds'")
    await climb(phones, raised.case_id)
    assert await phones.rows(
        "SELECT max(number), max(reason) FILTER (WHERE number = 2) FROM notice n JOIN leg l "
        "ON l.id = n.leg_id WHERE l.party_id = 'sim-guardian'"
    ) == [(2, "unanswered")]
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("answered",)]


async def climb(phones: Phones, case_id: Any) -> None:
    """Let time pass for a case, as the runner does."""
    async with phones.pool.connection() as conn, conn.transaction():
        work = await locked(conn, phones.directory, case_id, worker=phones.worker)
        await climb_legs(work)
        await work.flush()


async def test_who_was_only_called_may_write_back_and_ring_back(phones: Phones) -> None:
    raised = await phones.press()
    notice = of(raised, "sim-guardian")
    await queue_text(phones, notice, None)
    async with phones.pool.connection() as conn, conn.transaction():
        (job,) = await phone_out.lease(conn, phones.worker, modems=[MODEM], calling=[MODEM], limit=1)
        await phone_out.end(conn, job.id, state="failed", modem=MODEM, detail="nobody picked up")
    assert await rings(phones, GUARDIAN, "a") == "party rang"
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("answered",)]


async def test_with_more_cases_than_letters_each_can_be_answered(
    pool: Pool, database: str, keyring: Keyring, tmp_path: Path
) -> None:
    site = made_up(40, seed=7)
    site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms"}])
    site.save(tmp_path / "site.yaml")
    await apply_site(pool, keyring, load(tmp_path / "site.yaml").site, prune=False)
    async with await connect(database, name="test") as session:
        phones = Phones(pool, Directory(keyring), await outbox.register(session, "test"))
        codes = {}
        for n in range(1, 41):
            raised = await phones.press(f"sim-{n:05d}", seq=n)
            codes[await phones.text_out(of(raised, "sim-guardian"), reference=n)] = raised.case_id
        assert len(codes) == 40
        done = await phones.says("1", GUARDIAN)
        assert done.outcome == "ambiguous"
        assert parts_of(done.replies[0].text) == 1
        done = await phones.says("1AB", GUARDIAN)
        assert (done.outcome, done.case_id) == ("answer coming", codes["AB"])


async def test_an_answer_to_a_message_before_another_press_ends_nothing(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    again = await phones.press(seq=2)
    assert again.how == "joined"
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("pending",)]


async def report_of(phones: Phones, status: int, *, number: str = "13812345678", reference: int = 7) -> Handled:
    report = StatusReport(
        reference=reference, recipient=Address.parse(number), accepted_at=NOW, ended_at=NOW, status=status
    )
    pdu, length = write_pdu(report)
    async with phones.pool.connection() as conn, conn.transaction():
        key = await phone_in.own_key(conn, phones.directory.keyring)
        await phone_in.add(conn, [arrival(phones.directory, key, modem=MODEM, pdu=pdu, length=length)], key=key.id)
    (done,) = await phones.deal()
    return done


async def test_a_report_confirms_and_a_failed_one_takes_the_next_channel(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    assert (await report_of(phones, 0x21)).outcome == "report trying"
    assert await phones.rows("SELECT report FROM phone_out") == [("trying",)]
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("delivered",)]
    done = await report_of(phones, 0x46)
    assert done.outcome == "report failed"
    assert [(notice.party.id, notice.channel, notice.spec.kind) for notice in done.notices] == [
        ("sim-guardian", 1, "voice")
    ]
    assert await phones.rows("SELECT state, delivered_at FROM leg WHERE party_id = 'sim-guardian'") == [
        ("pending", None)
    ]


async def test_a_failed_report_of_the_last_channel_calls_the_fallback_in(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-community"), reference=9)
    done = await report_of(phones, 0x49, number="02588011234", reference=9)
    # The fallback of this site has been told already: it is the guardian.
    assert list(done.notices) == []
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-community'") == [("failed",)]


async def test_a_failed_report_after_an_answer_changes_nothing(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    await phones.says("1", GUARDIAN)
    done = await report_of(phones, 0x46)
    assert list(done.notices) == []
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("answered",)]


async def rings(phones: Phones, number: str | None, call: str) -> str:
    async with phones.pool.connection() as conn, conn.transaction():
        key = await phone_in.own_key(conn, phones.directory.keyring)
        await phone_in.add(conn, [ring(phones.directory, key, modem=MODEM, number=number, call=call)], key=key.id)
    (done,) = await phones.deal()
    return done.outcome


async def test_rings(phones: Phones) -> None:
    assert await rings(phones, "14700000001", "a") == "alarm opened"
    assert await phones.rows("SELECT kinds, count(l.*) FROM cases c JOIN leg l ON l.case_id = c.id GROUP BY 1") == [
        (["ring"], 6)
    ]
    assert await rings(phones, "14700000001", "b") == "alarm repeated"
    assert await rings(phones, None, "c") == "stranger"
    assert await rings(phones, GUARDIAN, "d") == "unmatched call"
    # Whoever is protected and rings wants something, also who only rings back; while help is on the way it is noted.
    assert await rings(phones, PERSON, "e") == "person rang"
    assert await phones.rows("SELECT count(*), max(urgency) FROM cases") == [(1, 1)]
    (case,) = (await phones.rows("SELECT id FROM cases"))[0]
    await close_case(phones.pool, phones.directory, case, outcome="helped", confirmed_by="a", note=None)
    await phones.rows("UPDATE terminal SET active = false RETURNING 1")
    assert await rings(phones, PERSON, "f") == "alarm opened"
    assert await phones.rows("SELECT kinds, household_id IS NOT NULL FROM cases WHERE state = 'open'") == [
        (["ring"], True)
    ]


async def test_nothing_of_a_closed_case_goes_out(phones: Phones) -> None:
    raised = await phones.press()
    notice = of(raised, "sim-guardian")
    await queue_text(phones, notice, lambda _: "…")
    await close_case(phones.pool, phones.directory, raised.case_id, outcome="helped", confirmed_by="a", note=None)
    async with phones.pool.connection() as conn, conn.transaction():
        assert await phone_out.lease(conn, phones.worker, modems=[MODEM], calling=[], limit=9) == []
        await phone_out.strike(conn)
    assert await phones.rows("SELECT state FROM phone_out") == [("withdrawn",)]
    assert await lease_due(phones.pool, phones.directory, worker=phones.worker, holding=set(), limit=9) is not None


async def test_two_long_messages_with_one_reference_are_two(phones: Phones) -> None:
    low = split("low battery " + "x" * 200, reference=0)
    cry = split("SOS " + "y" * 200, reference=0)
    await phones.keep([*low, *cry, low[0]], SIM)
    outcomes = [done.outcome for done in await phones.deal()] + [done.outcome for done in await phones.deal()]
    assert outcomes == ["alarm opened"] * 2
    assert await phones.rows("SELECT kinds FROM cases ORDER BY 1") == [(["low_battery"],), (["sos"],)]
    assert await phones.rows("SELECT count(*) FROM phone_in WHERE state <> 'handled'") == [(0,)]


async def test_what_waits_or_failed_holds_up_nothing(phones: Phones) -> None:
    for n in range(210):
        await phones.keep(split("x" * 200, reference=n)[:1], f"+85290000{n:03}")
    await phones.deal()
    await phones.deal()
    await phones.keep(split("SOS", reference=1), SIM)
    async with phones.pool.connection() as conn:
        waiting = await phone_in.open_ones(conn, limit=10)
        assert [one.parts for one in waiting] == [1]
        await phone_in.put_off(conn, waiting[0].id, after=timedelta(0))
    await phones.keep(split("救命", reference=1), SIM)
    async with phones.pool.connection() as conn:
        assert [one.tries for one in await phone_in.open_ones(conn, limit=10)] == [0, 1]


async def test_what_we_fail_on_is_a_case_in_the_end(phones: Phones) -> None:
    await phones.keep(split("SOS", reference=1), SIM)
    async with phones.pool.connection() as conn:
        (came,) = await phone_in.open_ones(conn, limit=10)
    done = await give_up(phones.pool, phones.directory, came, worker=phones.worker)
    assert done.outcome == "given up"
    assert len(done.notices) == 1
    assert await phones.rows("SELECT kinds FROM cases") == [(["unreadable"],)]
    assert await phones.deal() == []


async def test_the_rest_of_an_alarm_makes_no_case_of_its_own(phones: Phones) -> None:
    users = split("SOS " + "很长" * 80, reference=9)
    await phones.keep(users[:1], SIM)
    assert [done.outcome for done in await phones.deal()] == ["alarm opened"]
    await phones.keep(users[1:], SIM)
    await phones.deal()
    await phones.two_minutes_later()
    assert [done.outcome for done in await phones.deal()] == ["the rest of an alarm"]
    assert await phones.rows("SELECT count(*), max(urgency) FROM cases") == [(1, 1)]


async def test_who_is_asked_and_calls_for_help_is_not_taken_for_an_answer(phones: Phones) -> None:
    async with phones.pool.connection() as conn:
        # The guardian is a protected person as well.
        await conn.execute(
            "INSERT INTO phone_book (mac, kind, id) SELECT mac, 'person', 'sim-person-00002' FROM phone_book "
            "WHERE kind = 'party' AND id = 'sim-guardian'"
        )
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    done = await phones.says("救命", GUARDIAN)
    assert done.outcome == "alarm opened"
    assert done.case_id != raised.case_id
    assert (await phones.says("1", GUARDIAN, at=NOW.replace(minute=40))).outcome == "answer coming"


async def test_a_terminal_that_calls_itself_what_nobody_knows_is_known_by_its_number(phones: Phones) -> None:
    assert (await phones.says("SOS 860000000000017", SIM)).outcome == "alarm opened"
    assert await phones.rows("SELECT terminal_id, household_id IS NOT NULL FROM cases") == [(TERMINAL, True)]


async def test_a_phone_on_duty_answers_for_everybody_who_has_it(phones: Phones) -> None:
    async with phones.pool.connection() as conn:
        await conn.execute("UPDATE household_party SET position = position")
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    other = of(raised, "sim-community")
    await phones.text_out(replace(other, party=replace(other.party, phone=GUARDIAN)))
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"
    states = await phones.rows("SELECT state FROM leg WHERE party_id IN ('sim-guardian', 'sim-community')")
    assert states == [("answered",), ("answered",)]


async def test_two_cases_at_the_same_moment_have_letters_of_their_own(phones: Phones) -> None:
    raised = [await phones.press(), await phones.press("sim-00002")]
    letters: list[str] = []

    def compose(letter: Letter) -> str:
        letters.append(letter.letter)
        return "…"

    notices = [of(one, "sim-guardian") for one in raised]
    await asyncio.gather(*(queue_text(phones, notice, compose) for notice in notices))
    assert sorted(letters) == ["A", "B"]


async def test_a_letter_is_not_given_to_another_case_soon(phones: Phones) -> None:
    first = await phones.press()
    assert await phones.text_out(of(first, "sim-guardian")) == "A"
    await close_case(phones.pool, phones.directory, first.case_id, outcome="helped", confirmed_by="a", note=None)
    second = await phones.press("sim-00002")
    assert await phones.text_out(of(second, "sim-guardian")) == "B"
    assert (await phones.says("1A", GUARDIAN)).outcome == "said"
    assert await phones.rows("SELECT count(*) FROM answer") == [(0,)]


async def test_an_answer_to_a_text_of_which_nobody_knows_whether_it_went_out_counts(phones: Phones) -> None:
    raised = await phones.press()
    notice = of(raised, "sim-guardian")
    await queue_text(phones, notice, lambda _: "…")
    async with phones.pool.connection() as conn, conn.transaction():
        (job,) = await phone_out.lease(conn, phones.worker, modems=[MODEM], calling=[], limit=1)
        await phone_out.again(conn, job.id, after=timedelta(minutes=5), avoid=[MODEM], detail="nobody knows")
    assert (await phones.says("1", GUARDIAN)).outcome == "answer coming"


async def test_the_end_of_a_message_is_no_answer(phones: Phones) -> None:
    raised = await phones.press()
    await phones.text_out(of(raised, "sim-guardian"))
    users = split("x" * 153 + "1, and the rest of it", reference=9)
    await phones.keep(users[1:], GUARDIAN)
    await phones.deal()
    await phones.two_minutes_later()
    assert [done.outcome for done in await phones.deal()] == ["said"]
    assert await phones.rows("SELECT count(*) FROM answer") == [(0,)]


async def test_a_failed_report_about_a_location_changes_nothing(phones: Phones) -> None:
    raised = await phones.press()
    notice = of(raised, "sim-guardian")
    await phones.text_out(notice)
    async with phones.pool.connection() as conn:
        await conn.execute("UPDATE notice SET reason = 'location' WHERE id = %s", (notice.id,))
    assert list((await report_of(phones, 0x46)).notices) == []
    assert await phones.rows("SELECT state FROM leg WHERE party_id = 'sim-guardian'") == [("delivered",)]
