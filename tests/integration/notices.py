"""A notice as the outbox hands it to a channel, made up for tests of channels."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gateway.domain.directory import Address, ChannelSpec, Household, Party, Person
from gateway.domain.outbox import CaseView, DueNotice

__all__ = ["made_up_notice"]

_PARTY = {"id": "hotline-12349", "role": "hotline", "name": "养老服务热线", "district": "320102"}


def made_up_notice(kind: str, *, party: str = _PARTY["id"], **options: Any) -> DueNotice:
    """Return the alert of one case for `party`, whose only channel is of `kind` with `options`."""
    received_at = datetime(2026, 11, 22, 6, 31, 5, 398_000, tzinfo=UTC)
    told = Party(**(_PARTY | {"id": party}), channels=(ChannelSpec(kind=kind, options=options),))
    household = Household(
        id="wang-501",
        site="nanjing-demo",
        district="320102",
        timezone="Asia/Shanghai",
        locale="zh-CN",
        address=Address(district="玄武区", street="梅园新村街道", building="3", room="501"),
        persons=(Person(id="wang-xiulan", name="王秀兰", phone="+8613900000001"),),
        parties=(told,),
    )
    case = CaseView(
        id=UUID("0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11"),
        case_class="emergency",
        state="open",
        site="nanjing-demo",
        district="320102",
        timezone="Asia/Shanghai",
        locale="zh-CN",
        kinds=("sos",),
        urgency=1,
        test=False,
        pressed_at=None,
        received_at=received_at,
        terminal="860000000000001",
        household=household,
        location=None,
        problem=None,
    )
    return DueNotice(
        id="msg_7d0a1c5251b55d1c9d3a64b5f4f0c2aa_1",
        leg_id=UUID("7d0a1c52-51b5-5d1c-9d3a-64b5f4f0c2aa"),
        number=1,
        reason="alarm",
        channel=0,
        tries=0,
        queued_at=received_at,
        first=True,
        role=told.role,
        party=told,
        case=case,
    )
