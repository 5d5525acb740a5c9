"""``onekey fuzz gsm``: messages and modem dialogues that are broken in every way, and what must not come of it.

Whatever comes is read or refused with a `FrameError`; what was read can be written as text; and after any noise the
next message of a modem is read as if there had been none. Changed are messages and dialogues that are made here, of
every kind that there is. With atheris, where that installs, it is steered by what code was reached.

    python -m firmware_sim.fuzz_gsm SECONDS FOLDER      by atheris, until then; what fails is left in FOLDER
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic

from protocols.errors import FrameError, LocalProtocolError
from protocols.gsm import replies
from protocols.gsm.address import Address
from protocols.gsm.at import Answer, Dialogue
from protocols.gsm.coding import Alphabet, DataCoding
from protocols.gsm.header import Ports
from protocols.gsm.tpdu import Deliver, StatusReport, Submit, build, read_pdu, write_pdu
from protocols.gsm.userdata import UserData, split, split_data

__all__ = ["Failure", "check", "corpus", "corpus_pdus", "has_atheris", "inputs", "mutated", "run_atheris", "run_own"]

_LOOK_EVERY = 500
_MOST_CHANGES = 6
_TEXTS = (
    "SOS",
    "SOS 860000000000001 32.0603,118.7969 88%",
    "€[]{}~|^",
    "紧急呼叫：张三，位置39.9042,116.4074",
    "摔倒" * 60,
)
_NUMBERS = ("+8613812345678", "10086", "Vodafone", "*100#")
_AT = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input, and what came of it that must not."""

    data: bytes
    problem: str


def _users() -> Iterator[UserData]:
    for text in _TEXTS:
        yield from split(text, reference=7)
        yield from split(text, reference=700, bits=16, ports=Ports(2948, 9200))
    yield from split_data(bytes(range(256)), reference=9)


def _messages() -> Iterator[tuple[str, int]]:
    for number in _NUMBERS:
        address = Address.parse(number)
        for user in _users():
            coding = DataCoding.of(user.alphabet)
            yield write_pdu(Deliver(sender=address, user=user, sent_at=_AT, coding=coding))
            for validity in (None, timedelta(hours=6), _AT):
                yield write_pdu(Submit(recipient=address, user=user, coding=coding, validity=validity, report=True))
    for status in (0, 0x21, 0x46):
        yield write_pdu(
            StatusReport(reference=3, recipient=address, accepted_at=_AT, ended_at=_AT, status=status),
            centre=Address.parse("+8613800100500"),
        )


def corpus_pdus() -> list[tuple[str, int, bool]]:
    """Return messages as a modem writes them: digits, the length of the TPDU, and whether they are from a phone."""
    plain = []
    for text, length in _messages():
        octets = bytes.fromhex(text)
        plain.append((text, length, octets[1 + octets[0]] & 3 == 1))
    return plain


def corpus() -> list[bytes]:
    """Return messages as their octets, and dialogues as they come from a modem, marked by their first octet."""
    messages = list(_messages())
    found = [b"\0" + bytes.fromhex(text) for text, _ in messages]
    for number, (text, length) in enumerate(messages[::7]):
        spoken = (
            f'AT+CMGL=4\r\r\n+CMGL: {number},0,,{length}\r\n{text}\r\n\r\n+CMTI: "SM",{number}\r\n'
            f'+CDS: {length}\r\n{text}\r\n\r\nRING\r\n+CLIP: "13800000000",129\r\n^RSSI: 3\r\n'
            f'+CREG: 2,1,"8BE3","00002BAF",7\r\n+CUSD: 0,"{text}",72\r\n> {text}\x1a\r\n+CMS ERROR: 304\r\nOK\r\n'
        )
        found.append(b"\1" + spoken.encode())
    return found


def mutated(data: bytes, rng: Random) -> bytes:
    """Return `data` with some octets changed, lost, doubled, moved or put in; the first says what it is and stays."""
    head, body = data[:1], bytearray(data[1:])
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        at = rng.randrange(len(body) + 1)
        end = min(len(body), at + rng.randint(1, 12))
        match rng.randrange(7):
            case 0 if at < len(body):
                body[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(body):
                body[at] = rng.choice((0, 1, 0x0D, 0x0A, 0x1A, 0x1B, 0x22, 0x2C, 0x3E, 0x7F, 0x80, 0xFF))
            case 2:
                del body[at:end]
            case 3:
                body[at:at] = body[at:end]
            case 4:
                body[at:at] = rng.randbytes(rng.randint(1, 8))
            case 5:
                del body[at:]
            case _:
                piece = bytes(body[at:end])
                del body[at:end]
                place = rng.randrange(len(body) + 1)
                body[place:place] = piece
    return head + bytes(body)


def inputs(seed: int) -> Iterator[bytes]:
    """Return broken messages and dialogues without end, the same for the same seed."""
    rng, known = Random(seed), corpus()
    while True:
        yield mutated(rng.choice(known), rng)


def check(data: bytes) -> str | None:
    """Return what is wrong with how an input was taken; None: nothing."""
    try:
        return _check_dialogue(data[1:]) if data[:1] == b"\1" else _check_message(data[1:])
    except Exception as exc:  # noqa: BLE001 # finding those is what this is for
        return f"{type(exc).__name__}: {exc}"


def _check_message(octets: bytes) -> str | None:
    for from_phone in (True, False):
        for length in (None, len(octets)):
            try:
                _, message = read_pdu(octets.hex(), from_phone=from_phone, length=length)
            except FrameError:
                continue
            user = getattr(message, "user", None)
            if user is not None and user.text is not None:
                user.text.encode()
            if isinstance(message, Deliver | Submit | StatusReport):
                try:
                    build(message)
                except LocalProtocolError:
                    continue
    return None


def _check_dialogue(noise: bytes) -> str | None:
    after, length = write_pdu(
        Deliver(sender=Address("10086"), user=UserData(Alphabet.GSM7, b"SOS"), sent_at=_AT),
    )
    dialogue = Dialogue()
    dialogue.send("AT+CMGL=4", prefix="+CMGL:")
    for event in dialogue.feed(noise):
        if isinstance(event, Answer):
            replies.stored_messages(event.lines)
        else:
            line = getattr(event, "line", "")
            replies.registration(line, answer=False)
            replies.ussd(line)
            replies.caller(line)
            replies.calls([line])
    dialogue.abandon()
    dialogue.send("AT", numeric=True)
    dialogue.feed(b"\r\n\r\nOK\r\n")
    if dialogue.busy:
        return "a modem that answers again is not heard"
    dialogue.send("AT+CMGL=4", prefix="+CMGL:")
    spoken = f"\r\n+CMGL: 7,0,,{length}\r\n{after}\r\n\r\nOK\r\n".encode()
    events = dialogue.feed(spoken)
    stored = [one for event in events if isinstance(event, Answer) for one in replies.stored_messages(event.lines)]
    if [(one.index, one.pdu) for one in stored] != [(7, after)]:
        return "a message that came after the noise was lost"
    return None


def run_own(
    *, seed: int, seconds: float, progress: Callable[[int], None] = lambda _: None
) -> tuple[int, Failure | None]:
    """Try broken inputs for so long; returns how many that were, and the first that failed."""
    until_s = monotonic() + seconds
    count = 0
    for data in inputs(seed):
        problem = check(data)
        count += 1
        if problem is not None:
            return count, Failure(data, problem)
        if count % _LOOK_EVERY == 0:
            progress(count)
            if monotonic() >= until_s:
                break
    return count, None


def has_atheris() -> bool:
    """Is atheris installed?"""
    return importlib.util.find_spec("atheris") is not None


def run_atheris(*, seconds: float, folder: Path) -> Failure | None:
    """Let atheris look for so long, in a process of its own that says how it goes on; returns what it found."""
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "corpus"
    start.mkdir(exist_ok=True)
    for number, data in enumerate(corpus()):
        (start / f"{number:04}").write_bytes(data)
    subprocess.run([sys.executable, "-m", __name__, str(round(seconds)), str(folder)], check=False)
    for file in sorted(folder.glob("crash-*")):
        data = file.read_bytes()
        return Failure(data, check(data) or "it failed under atheris and does not here")
    return None


def _fuzz(arguments: Sequence[str]) -> None:
    import atheris  # not everybody has it

    seconds, folder = arguments

    def one(data: bytes) -> None:
        problem = check(data)
        if problem is not None:
            raise RuntimeError(problem)

    atheris.instrument_all()
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=2048", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"{folder}/corpus"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1:])
