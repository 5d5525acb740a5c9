"""The dialogue with a modem: in any pieces, with notices and noise in between, and nothing that comes raises."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.gsm import replies
from protocols.gsm.at import Answer, AtEvent, Dialogue, Final, Notice, Outcome, Prompt
from protocols.gsm.causes import Action, Status, cause_of, status_of

PDU = "07914356060013F1065A098136395339F6219011700463802190117004638030"
NOTICES = [
    ('+CMTI: "SM",3', None),
    ("RING", None),
    ("^RSSI: 17", None),
    ("+CREG: 2", None),
    ('+CLIP: "13800000000",129', None),
    ("SMS Ready", None),
    ("+CDS: 24", PDU),
]


def _bytes(*lines: str, end: str = "\r\n") -> bytes:
    return "".join(f"\r\n{line}{end}" for line in lines).encode()


def _fed(dialogue: Dialogue, data: bytes, cuts: Iterable[int] = ()) -> list[AtEvent]:
    events: list[AtEvent] = []
    for cut in cuts:
        events += dialogue.feed(data[:cut])
        data = data[cut:]
    return events + dialogue.feed(data)


COMMANDS = [
    ("AT", {}, [], "OK"),
    ("AT+CSQ", {"prefix": "+CSQ:"}, ["+CSQ: 21,0"], "OK"),
    ("AT+CREG?", {"prefix": "+CREG:"}, ['+CREG: 2,1,"8BE3","00002BAF"'], "OK"),
    ("AT+CGMI", {"free": True}, ["SIMCOM_Ltd"], "OK"),
    ("AT+CGSN", {"free": True}, ["861234567890123"], "OK"),
    ("AT+CMGL=4", {"prefix": "+CMGL:"}, ["+CMGL: 1,0,,24", PDU, "+CMGL: 2,1,,24", PDU], "OK"),
    ("AT+CPIN?", {"prefix": "+CPIN:"}, [], "+CME ERROR: 10"),
    ("AT+CMGR=9", {"prefix": "+CMGR:"}, [], "+CMS ERROR: 321"),
]


@given(
    script=st.lists(st.tuples(st.sampled_from(COMMANDS), st.lists(st.sampled_from(NOTICES), max_size=3)), max_size=6),
    echo=st.booleans(),
    cuts=st.lists(st.integers(0, 30), max_size=30),
    seed=st.integers(0, 2**32),
)
def test_answers_and_notices_are_told_apart_however_they_are_mixed_and_cut(
    script: list[tuple[tuple[str, dict[str, object], list[str], str], list[tuple[str, str | None]]]],
    echo: bool,
    cuts: list[int],
    seed: int,
) -> None:
    rng, dialogue = Random(seed), Dialogue()
    for (command, how, lines, end), notices in script:
        assert dialogue.send(command, **how) == command.encode() + b"\r"  # type: ignore[arg-type]
        mixed: list[list[str]] = [[line] for line in lines]
        for head, pdu in notices:
            mixed.insert(rng.randrange(len(mixed) + 1), [head] if pdu is None else [head, pdu])
        spoken = _bytes(*[line for part in mixed for line in part], end)
        if echo:
            spoken = command.encode() + b"\r" + spoken
        events = _fed(dialogue, spoken, cuts)
        answers = [event for event in events if isinstance(event, Answer)]
        told = [(event.line, event.pdu) for event in events if isinstance(event, Notice)]
        # A state alone, while registration is asked for, is a notice; so is everything else of this list.
        assert [answer.command for answer in answers] == [command]
        assert list(answers[0].lines) == lines
        assert answers[0].ok == (end == "OK")
        assert sorted(told, key=str) == sorted(notices, key=str)
        assert not dialogue.busy


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("prompt", [b"\r\n> ", b"\r\n>", b"> "])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_message_is_written_behind_its_prompt(echo: bool, prompt: bytes, size: int) -> None:
    dialogue = Dialogue()
    dialogue.send("AT+CMGS=24", prefix="+CMGS:", body="0011000B")
    spoken = (b"AT+CMGS=24\r" if echo else b"") + prompt
    events = [event for n in range(0, len(spoken), size) for event in dialogue.feed(spoken[n : n + size])]
    assert events == [Prompt(b"0011000B\x1a")]
    after = (b"0011000B\x1a" if echo else b"") + _bytes('+CMTI: "SM",1', "+CMGS: 17", "OK")
    events = [event for n in range(0, len(after), size) for event in dialogue.feed(after[n : n + size])]
    assert events == [
        Notice('+CMTI: "SM",1'),
        Answer("AT+CMGS=24", ("+CMGS: 17",), Final(Outcome.OK)),
    ]


def test_a_modem_that_answers_in_numbers_is_understood_until_it_is_told_otherwise() -> None:
    dialogue = Dialogue()
    dialogue.send("ATV1", numeric=True)
    assert dialogue.feed(b"0\r") == [Answer("ATV1", (), Final(Outcome.OK))]
    dialogue.send("AT+CGSN", free=True)
    assert dialogue.feed(b"\r\n4\r\n\r\nOK\r\n") == [Answer("AT+CGSN", ("4",), Final(Outcome.OK))]


def test_the_end_of_a_call_ends_only_what_is_about_calls() -> None:
    dialogue = Dialogue()
    dialogue.send("AT+CSQ", prefix="+CSQ:")
    assert dialogue.feed(_bytes("NO CARRIER")) == [Notice("NO CARRIER")]
    (answer,) = dialogue.feed(_bytes("+CSQ: 9,99", "OK"))
    assert isinstance(answer, Answer)
    dialogue.send("ATD10086;", calls=True)
    assert dialogue.feed(_bytes("BUSY")) == [Answer("ATD10086;", (), Final(Outcome.BUSY))]


def test_what_comes_too_late_belongs_to_nobody() -> None:
    dialogue = Dialogue()
    dialogue.send("AT+CMGL=4", prefix="+CMGL:")
    dialogue.feed(b"\r\n+CMGL: 1,0,,24\r\n0791")
    assert dialogue.abandon() == b"\x1b\r"
    assert dialogue.feed(_bytes("OK")) == [Notice("OK")]
    dialogue.send("AT")
    assert dialogue.feed(_bytes("OK")) == [Answer("AT", (), Final(Outcome.OK))]


def test_one_command_at_a_time() -> None:
    dialogue = Dialogue()
    dialogue.send("AT")
    with pytest.raises(LocalProtocolError):
        dialogue.send("AT+CSQ")


def test_a_notice_whose_message_got_lost_takes_nothing_with_it() -> None:
    dialogue = Dialogue()
    dialogue.send("AT")
    assert dialogue.feed(_bytes("+CMT: ,24", "OK")) == [Notice("+CMT: ,24"), Answer("AT", (), Final(Outcome.OK))]


@given(noise=st.binary(max_size=300), after=st.booleans())
def test_noise_raises_nothing_and_loses_no_later_answer(noise: bytes, after: bool) -> None:
    dialogue = Dialogue()
    if after:
        dialogue.send("AT+CMGS=10", prefix="+CMGS:", body="00")
    dialogue.feed(noise)
    dialogue.abandon()
    dialogue.send("AT+CSQ", prefix="+CSQ:")
    events = dialogue.feed(_bytes("", "+CSQ: 20,0", "OK"))
    assert Answer("AT+CSQ", ("+CSQ: 20,0",), Final(Outcome.OK)) in events


def test_a_line_without_end_fills_no_memory() -> None:
    dialogue = Dialogue()
    for _ in range(1000):
        dialogue.feed(b"x" * 1000)
    (notice,) = dialogue.feed(b"\r\n")
    assert isinstance(notice, Notice)
    assert len(notice.line) < 10_000


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("+CME ERROR: 10", Action.NO_SIM),
        ("+CME ERROR: 16", Action.STOP),
        ("+CME ERROR: SIM PUK required", Action.STOP),
        ("+CMS ERROR: 38", Action.ELSEWHERE),
        ("+CMS ERROR: 50", Action.OTHER_SIM),
        ("+CMS ERROR: 304", Action.OURS),
        ("+CMS ERROR: 322", Action.CLEAR_STORE),
        ("+CMS ERROR: 330", Action.SET_CENTRE),
        ("+CMS ERROR: 97", Action.OURS),
        ("+CMS ERROR: 12345", Action.ELSEWHERE),
        ("+CME ERROR: ", Action.WAIT),
        ("ERROR", Action.WAIT),
        ("COMMAND NOT SUPPORT", Action.WAIT),
    ],
)
def test_every_failure_says_what_to_do(line: str, action: Action) -> None:
    dialogue = Dialogue()
    dialogue.send("AT+X")
    (answer,) = dialogue.feed(_bytes(line))
    assert isinstance(answer, Answer)
    cause = cause_of(answer.final)
    assert cause.action is action
    assert cause.text


@pytest.mark.parametrize(
    ("octet", "status"),
    [
        (0x00, Status.DELIVERED),
        (0x01, Status.UNCONFIRMED),
        (0x21, Status.TRYING),
        (0x46, Status.FAILED),
        (0x62, Status.FAILED),
        (0xFF, Status.FAILED),
    ],
)
def test_what_a_report_means(octet: int, status: Status) -> None:
    assert status_of(octet)[0] is status


def test_every_status_has_words() -> None:
    assert all(status_of(octet)[1] for octet in range(256))


@given(line=st.text(max_size=80))
def test_no_answer_raises(line: str) -> None:
    for text in (line, f"+CREG: {line}", f'+CUSD: 0,"{line}",15', f"+CPMS: {line}", f"+CLCC: {line}"):
        replies.registration(text, answer=True)
        replies.signal_dbm(text)
        replies.operator(text)
        replies.centre(text)
        replies.stores(text)
        replies.choices(text)
        replies.stored_messages(["+CMGL: 1,1,,2", text])
        replies.stored_messages([text, "00"])
        replies.stored_at(text)
        replies.caller(text)
        replies.calls([text])
        replies.clock(text)
        replies.ussd(text)


def test_a_late_ok_is_not_the_answer_of_a_message_that_was_not_typed_yet() -> None:
    dialogue = Dialogue()
    dialogue.send("AT+CMGS=20", prefix="+CMGS:", body="0011")
    assert not any(isinstance(event, Answer) for event in dialogue.feed(b"\r\nOK\r\n"))
    (prompt,) = dialogue.feed(b"\r\n> ")
    assert isinstance(prompt, Prompt)
    (answer,) = dialogue.feed(b"0011\x1a\r\n+CMGS: 7\r\n\r\nOK\r\n")
    assert isinstance(answer, Answer)
    assert answer.lines == ("+CMGS: 7",)


def test_a_message_that_is_refused_before_it_is_typed_is_answered() -> None:
    dialogue = Dialogue()
    dialogue.send("AT+CMGS=20", prefix="+CMGS:", body="0011")
    (answer,) = dialogue.feed(b"\r\n+CMS ERROR: 304\r\n")
    assert isinstance(answer, Answer)
    assert not answer.ok
