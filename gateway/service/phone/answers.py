"""What parties say who were asked by SMS or by a call: coming, arrived, cannot, or words (R17, I7)."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from gateway.domain.answers import TextAnswer, read_answer
from gateway.domain.kinds import CaseClass
from gateway.domain.outbox import PartyAnswer
from gateway.service.case_commands import record_answer
from gateway.service.case_work import locked
from gateway.service.phone.message import Message
from gateway.service.phone.turn import Handled, Reply, Turn
from gateway.store import cases, outbox, phone_out
from gateway.store.directory import SiteView
from gateway.store.phone_out import Asked

__all__ = ["reads_as_answer", "take_answer", "take_ring_of_party"]

_VIA = "sms"
_MOST_NAMED = 3


def reads_as_answer(message: Message) -> bool:
    """Is a text an answer, whatever to? Other words of somebody who is protected may be about themselves, as 不行."""
    said = read_answer(message.text) if message.begins else TextAnswer(None)
    return said.unclear or said.answer in ("coming", "arrived", "accepted") or message.text.lstrip().startswith("0")


async def take_answer(turn: Turn, message: Message, asked: Sequence[Asked]) -> Handled:
    """Count what parties answer to what they were `asked`; what is not clear is asked again and ends nothing."""
    # The end of a message that lacks its beginning may begin with any digit.
    codes = {one.code for one in asked}
    said = read_answer(message.text, codes) if message.begins else TextAnswer(None)
    meant = [one for one in asked if one.code == said.code] if said.code is not None else list(asked)
    if said.answer is None or not meant:
        for one in meant or asked:
            await _say(turn, one, message.text)
        again = [Reply(message.sender, await _again(turn, asked[0]))] if said.unclear else []
        return Handled(outcome="said", case_id=asked[0].case_id, replies=again)
    if len({one.case_id for one in meant}) > 1 or (
        # It may be meant for the one that has ended meanwhile.
        said.code is None and turn.peer and await phone_out.another_ended(turn.conn, turn.peer, meant[0].case_id)
    ):
        # To end the calls for the wrong person would be worse than to ask again: on record everywhere, it ends nothing.
        for one in meant:
            await _say(turn, one, message.text)
        return Handled(
            outcome="ambiguous",
            case_id=meant[0].case_id,
            replies=[Reply(message.sender, await _which(turn, meant))],
        )
    return await _count(turn, meant, said)


async def _count(turn: Turn, meant: Sequence[Asked], said: TextAnswer) -> Handled:
    """Count an answer for every leg of a case that has this number: several parties may share a phone on duty."""
    assert said.answer is not None
    case_id = meant[0].case_id
    work = await locked(turn.conn, turn.directory, case_id, worker=turn.worker)
    legs = {leg.id: leg for leg in await cases.legs_of(turn.conn, case_id)}
    anew = await outbox.asked_anew(turn.conn, case_id)
    for one in meant:
        await record_answer(
            turn.conn,
            work.case,
            legs[one.leg_id],
            PartyAnswer(answer=said.answer, reason=said.text, minutes=said.minutes),
            via=_VIA,
            writer=work.journal,
            overtaken=one.number < anew.get(one.leg_id, 0),
        )
    await work.flush()
    return Handled(outcome=f"answer {said.answer}", case_id=case_id)


async def _say(turn: Turn, one: Asked, words: str) -> None:
    """Put words of a party on the timeline of a case."""
    work = await locked(turn.conn, turn.directory, one.case_id, worker=turn.worker)
    work.note(
        "leg.said",
        {"leg": str(one.leg_id), "role": one.role, "party": one.party_id, "via": _VIA},
        actor=f"party:{one.party_id}",
        private={"text": words[:1000]},
    )
    await work.flush()


async def _which(turn: Turn, meant: Sequence[Asked]) -> str:
    """Ask which of several cases an answer is for, without a name: it goes to a phone that others may read.

    It is one message, however many there are: the newest emergencies are named.
    """
    said, chinese = [], True
    sites = {site.id: site for site in await turn.directory.sites(turn.conn)}
    newest = {one.case_id: one for one in meant}
    open_ones = [
        (one, case) for one in newest.values() if (case := await cases.by_id(turn.conn, one.case_id)) is not None
    ]
    open_ones.sort(key=lambda pair: (pair[1].case_class != CaseClass.EMERGENCY, -pair[1].opened_at.timestamp()))
    for one, case in open_ones[:_MOST_NAMED]:
        site = sites.get(case.site_id)
        chinese = site is None or site.locale.startswith("zh")
        said.append(f"{one.code}({case.opened_at.astimezone(_zone(site)).strftime('%H:%M')})")
    example = f"1{open_ones[0][0].code}"
    more = len(open_ones) > _MOST_NAMED
    if chinese:
        listed = "、".join(said) + ("等" if more else "")
        return f"您有{len(open_ones)}个求助：{listed}。请回数字加字母，如{example}，说明是哪一个。"
    listed = ", ".join(said) + (", and more" if more else "")
    return f"{len(open_ones)} calls: {listed}. Answer digit and letters, as {example}, to say which."


async def _again(turn: Turn, one: Asked) -> str:
    """Ask what is meant by a digit with words that say the opposite."""
    case = await cases.by_id(turn.conn, one.case_id)
    sites = {site.id: site for site in await turn.directory.sites(turn.conn)}
    site = None if case is None else sites.get(case.site_id)
    if site is None or site.locale.startswith("zh"):
        return "不明白您的意思。请只回数字：1赶来，2已到，0不能。"
    return "Not clear. Please answer with the digit alone: 1 coming, 2 arrived, 0 cannot."


def _zone(site: SiteView | None) -> ZoneInfo:
    return ZoneInfo("Asia/Shanghai" if site is None else site.timezone)


async def take_ring_of_party(turn: Turn, asked: Sequence[Asked]) -> Handled:
    """Note that a party rang who was asked; nobody picks up, and it is no answer."""
    for one in asked:  # in the order of their cases, as everybody locks them
        work = await locked(turn.conn, turn.directory, one.case_id, worker=turn.worker)
        work.note(
            "leg.rang", {"leg": str(one.leg_id), "role": one.role, "party": one.party_id}, actor=f"party:{one.party_id}"
        )
        await work.flush()
    return Handled(outcome="party rang", case_id=asked[0].case_id)
