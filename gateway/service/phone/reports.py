"""Reports of the network on what became of a message."""

from typing import Any

from gateway.domain.outbox import DueNotice
from gateway.service.phone.turn import Handled, Turn
from gateway.service.record import record_delivery_report
from gateway.store import phone_out
from protocols.errors import FrameError
from protocols.gsm.causes import Status, status_of
from protocols.gsm.tpdu import StatusReport, read_pdu

__all__ = ["take_report"]

_REPORTS = {
    Status.DELIVERED: "delivered",
    Status.UNCONFIRMED: "unconfirmed",
    Status.TRYING: "trying",
    Status.FAILED: "failed",
}


async def take_report(turn: Turn, said: dict[str, Any]) -> Handled:
    """Take a report: what was not delivered goes another way."""
    try:
        _, report = read_pdu(str(said.get("pdu", "")), from_phone=False, length=said.get("length"))
    except FrameError:
        return Handled(outcome="unreadable report")
    if not isinstance(report, StatusReport) or turn.peer is None:
        return Handled(outcome="unreadable report")
    status, words = status_of(report.status)
    found = await phone_out.report(
        turn.conn,
        modem=turn.came.modem,
        reference=report.reference,
        peer=turn.peer,
        status=report.status,
        words=_REPORTS[status],
    )
    if found is None or found.case_id is None or found.leg_id is None or found.notice_id is None:
        return Handled(outcome=f"report {_REPORTS[status]}")
    notices: list[DueNotice] = []
    if found.whole in ("delivered", "failed"):
        notices = await record_delivery_report(
            turn.conn,
            turn.directory,
            case_id=found.case_id,
            leg_id=found.leg_id,
            notice_id=found.notice_id,
            delivered=found.whole == "delivered",
            detail=words,
            worker=turn.worker,
        )
    return Handled(outcome=f"report {_REPORTS[status]}", case_id=found.case_id, notices=notices)
