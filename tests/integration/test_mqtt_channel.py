"""The MQTT channel: a platform that subscribes to the topic of its party gets every notice, also after it was away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from gateway.config import Broker
from gateway.domain.outbox import Sent, TryAgain
from gateway.links.mqtt import MqttLink
from gateway.notify.channels.mqtt import MqttChannel
from schemas.notices import Notice
from tests.integration.brokers import RealBroker, broker_running
from tests.integration.notices import made_up_notice

TOPIC = "okp/v1/hotline-12349/notice"


@pytest.fixture(params=["mosquitto", "nats"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with broker_running(request.param, tmp_path) as running:
        yield running


@asynccontextmanager
async def channel_on(broker: RealBroker) -> AsyncIterator[MqttChannel]:
    link = MqttLink(Broker(broker.url), client_id="~notify-a")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(lambda _: None), name="link")
        assert await link.wait_connected(20)
        yield MqttChannel(link, answer_link=lambda notice: f"http://127.0.0.1:8080/r/{notice.leg_id}")
        running.cancel()


def platform(broker: RealBroker) -> aiomqtt.Client:
    """A platform that wants to miss nothing: the broker keeps its session."""
    return aiomqtt.Client(
        "127.0.0.1", broker.port, username="test", password="test", identifier="platform", clean_session=False
    )


async def heard(client: aiomqtt.Client) -> aiomqtt.Message:
    async with asyncio.timeout(20):
        return await anext(aiter(client.messages))


async def test_a_notice_reaches_the_platform_on_its_own_topic(broker: RealBroker) -> None:
    notice = made_up_notice("mqtt", secret="unused")
    async with platform(broker) as client, channel_on(broker) as channel:
        await client.subscribe("okp/v1/+/notice", qos=1)
        assert await channel.send(notice) == Sent()
        message = await heard(client)
    assert message.topic.value == TOPIC
    assert message.qos == 1
    assert not message.retain
    body = json.loads(bytes(message.payload))
    assert body.pop("id") == notice.id
    told = Notice.model_validate(body)
    assert told.type == "case.alert"
    assert told.data.case == notice.case.id
    assert told.data.party.id == "hotline-12349"
    assert told.data.answer_url == f"http://127.0.0.1:8080/r/{notice.leg_id}"


async def test_a_retry_carries_the_same_id(broker: RealBroker) -> None:
    notice = made_up_notice("mqtt", secret="unused")
    async with platform(broker) as client, channel_on(broker) as channel:
        await client.subscribe(TOPIC, qos=1)
        await channel.send(notice)
        await channel.send(notice)
        ids = [json.loads(bytes((await heard(client)).payload))["id"] for _ in range(2)]
    assert ids == [notice.id, notice.id]


async def test_a_platform_that_was_away_gets_its_notice_when_it_is_back(broker: RealBroker) -> None:
    async with platform(broker) as client:
        await client.subscribe(TOPIC, qos=1)
    async with channel_on(broker) as channel:
        assert await channel.send(made_up_notice("mqtt", secret="unused")) == Sent()
    async with platform(broker) as client:
        assert json.loads(bytes((await heard(client)).payload))["type"] == "case.alert"


async def test_without_a_broker_it_is_tried_again_until_there_is_one(broker: RealBroker) -> None:
    notice = made_up_notice("mqtt", secret="unused")
    async with channel_on(broker) as channel:
        assert await channel.send(notice) == Sent()
        await broker.stop()
        async with asyncio.timeout(30):
            while await channel.send(notice) == Sent():
                pass
        assert isinstance(await channel.send(notice), TryAgain)
        await broker.start()
        async with asyncio.timeout(20):
            while await channel.send(notice) != Sent():
                await asyncio.sleep(0.05)


async def test_a_link_that_was_never_up_is_tried_again() -> None:
    channel = MqttChannel(MqttLink(Broker("mqtt://127.0.0.1:9"), client_id="~notify-a"), answer_link=lambda _: None)
    outcome = await channel.send(made_up_notice("mqtt", secret="unused"))
    assert isinstance(outcome, TryAgain)
    assert outcome.status is None
