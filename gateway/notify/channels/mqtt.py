"""A topic per party, for platforms that subscribe: ``okp/v1/{party}/notice``, QoS 1.

The broker's acknowledgement says that it has the message, which is *delivered* at most (I7).
"""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.domain.outbox import DueNotice, Outcome, Sent, TryAgain
from gateway.links.mqtt import LinkDown, MqttLink
from gateway.notify.compose import compose
from protocols.okc import notice_topic

__all__ = ["MqttChannel"]


class MqttChannel:
    """Publishes over a link of its own, so that it never holds up a terminal."""

    def __init__(self, link: MqttLink, *, answer_link: Callable[[DueNotice], str | None]) -> None:
        """Publish on `link`; `answer_link` makes the address of the answer page of a notice."""
        self._link = link
        self._answer_link = answer_link

    async def send(self, notice: DueNotice) -> Outcome:
        """Publish once; the body carries the notice's id in ``webhook-id``'s place as ``id``."""
        now = datetime.now(UTC)
        message = compose(notice, now=now, answer_url=self._answer_link(notice))
        body = b'{"id":"' + notice.id.encode() + b'",' + message[1:]
        try:
            await self._link.publish(notice_topic(notice.party.id), body, qos=1, timeout_s=10)
        except LinkDown as exc:
            return TryAgain(str(exc))
        return Sent()
