"""What several gateways need of a broker that deals reports out among them."""

import asyncio
import contextlib
import logging
import ssl
from uuid import uuid4

import aiomqtt

from gateway.config import Broker

__all__ = ["end_session", "offers_shared"]

_log = logging.getLogger(__name__)

_TRY_AGAIN_S = 2.0
_ARRIVES_WITHIN_S = 5.0
_TRIES = 3
_REFUSED = 0x80


def _client(broker: Broker, client_id: str) -> aiomqtt.Client:
    return aiomqtt.Client(
        hostname=broker.host,
        port=broker.port,
        username=broker.user,
        password=broker.password,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=True,
        tls_context=ssl.create_default_context() if broker.tls else None,
    )


async def offers_shared(broker: Broker, topic: str, shared_filter: str) -> bool:
    """Find out whether what is published on `topic` arrives under `shared_filter`, trying until the broker is there.

    Some brokers refuse such a filter, some take it for a topic like any other: only what arrives counts.
    """
    tries = 0
    while tries < _TRIES:
        try:
            async with _client(broker, f"~probe-{uuid4().hex[:8]}") as client:
                granted = await client.subscribe(shared_filter, qos=1)
                if any((code if isinstance(code, int) else code.value) >= _REFUSED for code in granted):
                    return False
                await client.publish(topic, b"", qos=1)
                tries += 1  # a broker that has much to do may be slow: one silence proves nothing
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ARRIVES_WITHIN_S):
                        async for _ in client.messages:
                            return True
        except aiomqtt.MqttError as exc:
            _log.warning("cannot ask the broker whether it deals messages out: %s", exc)
            await asyncio.sleep(_TRY_AGAIN_S)
    return False


async def end_session(broker: Broker, client_id: str) -> None:
    """Have the broker forget the session of `client_id`, with everything that waits in it.

    Raises:
        aiomqtt.MqttError: The broker is away.
    """
    async with _client(broker, client_id):
        pass
