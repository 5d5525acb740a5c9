"""The channels to phones: providers of SMS over real sockets, and the queue that modems work through."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, PartyAnswer, Sent, TryAgain
from gateway.embedded.processes import free_port
from gateway.keyring import Keyring
from gateway.notify.channels.http_sms import HttpSmsChannel
from gateway.notify.channels.phone import PhoneQueue, SmsChannel, VoiceChannel
from gateway.service.apply_site import apply_site
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.site.load import load
from gateway.store import outbox, phone_out
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect
from tests.integration.notices import made_up_notice
from tests.integration.test_phone_messages import GUARDIAN, MODEM, NOW, TERMINAL, site_file

PHONE = "+8613812345678"


async def posted(answers: list[web.Response], **options: Any) -> tuple[Outcome, list[str]]:
    """Send one text through a provider that answers so; returns what came of it, and what the provider got."""
    bodies: list[str] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.text())
        return answers.pop(0)

    app = web.Application()
    app.router.add_post("/send", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port("127.0.0.1")
    await web.TCPSite(runner, "127.0.0.1", port).start()
    notice = made_up_notice(
        "http_sms",
        url=f"http://127.0.0.1:{port}/send",
        body='{"to":"{national}","text":"{text}","id":"{id}"}',
        timeout_s=1,
        **options,
    )
    notice = replace(notice, party=replace(notice.party, phone=PHONE))
    try:
        async with HttpSmsChannel(link=lambda _: "http://gw.example/r/x") as channel:
            return await channel.send(notice), bodies
    finally:
        await runner.cleanup()


async def test_a_provider_that_takes_a_text() -> None:
    outcome, bodies = await posted([web.Response(text='{"code":0}')], good='"code":0')
    assert isinstance(outcome, Sent)
    assert '"to":"13812345678"' in bodies[0]
    assert "【求助】紧急呼叫：王秀兰" in bodies[0]
    assert "http://gw.example/r/x" in bodies[0]
    assert "回1" not in bodies[0], "nobody can write back to a provider"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, '{"code":7,"error":"no money"}', TryAgain),
        (200, "", TryAgain),
        (500, "", TryAgain),
        (429, "", TryAgain),
        (401, "", GiveUp),
        (404, "", GiveUp),
        (302, "", TryAgain),
    ],
)
async def test_a_provider_that_does_not(status: int, body: str, kind: type[Outcome]) -> None:
    outcome, _ = await posted([web.Response(status=status, text=body)], good='"code":0')
    assert isinstance(outcome, kind)


class Desk:
    """Channels over a queue, and a modem that a test plays."""

    def __init__(self, pool: Pool, directory: Directory, queue: PhoneQueue, worker: int) -> None:
        self.pool = pool
        self.directory = directory
        self.sms = SmsChannel(queue, link=lambda _: None)
        self.voice = VoiceChannel(queue)
        self.worker = worker

    async def notice(self, party: str = "sim-guardian", *, channel: int = 0, seq: int = 1) -> DueNotice:
        press = Press(
            terminal=TERMINAL,
            transport="mqtt",
            kinds=("sos",),
            received_at=NOW,
            payload=b"",
            digest=b"1",
            boot=1,
            seq=seq,
        )
        raised = await raise_alarm(self.pool, self.directory, press, worker=self.worker)
        notice = next(one for one in raised.notices if one.party.id == party)
        return replace(notice, channel=channel)

    async def leased(self, *, calling: bool = False) -> phone_out.Job:
        """Take what is due, as a pool would, once it is there."""
        async with asyncio.timeout(10):
            while True:
                async with self.pool.connection() as conn, conn.transaction():
                    jobs = await phone_out.lease(
                        conn, self.worker, modems=[MODEM], calling=[MODEM] if calling else [], limit=1
                    )
                if jobs:
                    return jobs[0]
                await asyncio.sleep(0.02)  # another task queues it

    async def over(self, job: phone_out.Job, state: str, detail: str, *, keys: str | None = None) -> None:
        async with self.pool.connection() as conn:
            await phone_out.end(conn, job.id, state=state, modem=MODEM, detail=detail, keys=keys)


@pytest.fixture
async def desk(pool: Pool, database: str, keyring: Keyring, tmp_path: Path) -> AsyncIterator[Desk]:
    site = site_file()
    site.reach_by_phone("sim-guardian", GUARDIAN, [{"kind": "sms", "within_s": 5}, {"kind": "voice"}])
    site.reach_by_phone("sim-ambulance_120", "120", [{"kind": "voice"}])
    site.save(tmp_path / "site.yaml")
    await apply_site(pool, keyring, load(tmp_path / "site.yaml").site, prune=False)
    directory = Directory(keyring)
    queue = PhoneQueue(database, pool, directory, rng=Random(1))
    async with await connect(database, name="test") as session:
        worker = await outbox.register(session, "test")
        task = asyncio.create_task(queue.run())
        try:
            yield Desk(pool, directory, queue, worker)
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_a_text_is_sent_once_and_known_again(desk: Desk) -> None:
    notice = await desk.notice()
    sending = asyncio.create_task(desk.sms.send(notice))
    job = await desk.leased()
    await desk.over(job, "sent", "accepted by the network")
    assert await sending == Sent(detail="accepted by the network")
    # Whoever takes the notice over, because this process died before it was recorded, finds it sent.
    assert await desk.sms.send(notice) == Sent(detail="accepted by the network")
    async with desk.pool.connection() as conn:
        row = await (await conn.execute("SELECT count(*) FROM phone_out")).fetchone()
    assert row == (1,)


async def test_a_text_that_no_modem_gets_to_leads_to_the_next_channel(desk: Desk) -> None:
    assert await desk.sms.send(await desk.notice()) == GiveUp("the modem did not get to it in time")
    async with desk.pool.connection() as conn:
        row = await (await conn.execute("SELECT state FROM phone_out")).fetchone()
    assert row == ("withdrawn",)


async def test_on_the_last_channel_it_is_tried_again(desk: Desk) -> None:
    notice = await desk.notice("sim-community")
    short = replace(notice, party=replace(notice.party, channels=notice.party.channels[:1]))
    short.spec.options["within_s"] = 1
    assert isinstance(await desk.sms.send(short), TryAgain)
    short.spec.options["within_s"] = 20
    sending = asyncio.create_task(desk.sms.send(short))
    job = await desk.leased()
    await desk.over(job, "sent", "accepted by the network")
    assert isinstance(await sending, Sent)


async def test_what_is_being_sent_when_its_time_is_over_is_waited_for(desk: Desk) -> None:
    sending = asyncio.create_task(desk.sms.send(await desk.notice()))
    job = await desk.leased()
    await asyncio.sleep(5.5)
    assert not sending.done()
    await desk.over(job, "sent", "accepted by the network")
    assert isinstance(await sending, Sent)


@pytest.mark.parametrize(
    ("keys", "answer"), [(None, None), ("1", "coming"), ("2", "arrived"), ("0", "cannot"), ("7", None)]
)
async def test_a_call_that_is_picked_up_is_delivered_and_a_key_answers(
    desk: Desk, keys: str | None, answer: str | None
) -> None:
    sending = asyncio.create_task(desk.voice.send(await desk.notice(channel=1)))
    await desk.over(await desk.leased(calling=True), "sent", "picked up", keys=keys)
    outcome = await sending
    assert isinstance(outcome, Sent)
    assert outcome.answer == (None if answer is None else PartyAnswer(answer=answer))


async def test_a_call_that_nobody_picks_up_leads_to_the_next_channel(desk: Desk) -> None:
    notice = await desk.notice(channel=1)
    channels = (notice.party.channels[1], notice.party.channels[0])
    first = replace(notice, channel=0, party=replace(notice.party, channels=channels))
    sending = asyncio.create_task(desk.voice.send(first))
    await desk.over(await desk.leased(calling=True), "failed", "no_answer")
    assert await sending == GiveUp("no_answer")


async def test_a_call_that_nobody_picks_up_is_tried_again(desk: Desk) -> None:
    sending = asyncio.create_task(desk.voice.send(await desk.notice(channel=1)))
    await desk.over(await desk.leased(calling=True), "failed", "no_answer")
    assert await sending == TryAgain("no_answer")


async def test_no_machine_calls_120_and_none_calls_in_a_test(desk: Desk) -> None:
    notice = await desk.notice("sim-ambulance_120")
    assert isinstance(await desk.voice.send(notice), GiveUp)
    trial = await desk.notice(channel=1, seq=2)
    trial = replace(trial, case=replace(trial.case, test=True))
    assert isinstance(await desk.voice.send(trial), GiveUp)
    async with desk.pool.connection() as conn:
        row = await (await conn.execute("SELECT count(*) FROM phone_out")).fetchone()
    assert row == (0,)
