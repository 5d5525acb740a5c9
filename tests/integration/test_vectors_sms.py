"""Frames of real phones and modems, and what others read in them."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from protocols.errors import FrameError
from protocols.gsm import address, alphabet, replies
from protocols.gsm.coding import Alphabet
from protocols.gsm.header import Header
from protocols.gsm.times import EnhancedValidity, relative, relative_octet, stamp
from protocols.gsm.tpdu import Deliver, Message, StatusReport, Submit, SubmitReport, decode, read_pdu, write_pdu
from protocols.gsm.userdata import UserData, joined
from tests.conftest import ROOT

VECTORS = ROOT.parent / "shared" / "vectors" / "sms"
NOT_MESSAGES = {"components", "reassembly", "at-replies", "invalid"}
_OF_PHONES = {"submit", "deliver-report", "command"}

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not here: ../shared/vectors/sms")

EXPLAINED = {
    "captured-submit-168": {"text"},  # half a pair: U+FFFD here, so that it can be written as UTF-8
    "gammu-decode-027": {"data", "alphabet"},  # 23.040, 9.2.3.27: with bit 7 the indicator goes on; it is FF to the end
    "python-messaging-012": {"text"},  # 23.038, 4: 8-bit data mean what their application says
    "smslib-030": {"text"},
    "smslib-031": {"text"},
    "smslib-010": {"ports"},  # its header has no element for ports
    "smslib-011": {"ports"},
    "smslib-012": {"ports"},
    "python-gsmmodem-011": {"recipient"},  # the semi-octet B is #; upstream pins what a broken decoder reads
    # 23.040, 9.2.3.22: causes begin at 80 hexadecimal; these have one of 12, which says instead which parts follow
    "warthog618-005": {"dcs"},
    "warthog618-006": {"dcs"},
    "warthog618-013": {"text", "timestamp"},
    "warthog618-014": {"recipient", "text", "pid", "timestamp"},
    "warthog618-015": {"recipient", "text", "dcs", "timestamp"},
    "warthog618-016": {"recipient", "text", "dcs", "timestamp"},
}
"""What is read otherwise here, and why."""


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _messages() -> Iterator[dict[str, Any]]:
    for file in sorted(VECTORS.glob("*.jsonl")) if VECTORS.exists() else ():
        if file.stem not in NOT_MESSAGES:
            yield from _lines(file.stem)


def _read(vector: dict[str, Any], pdu: str) -> tuple[address.Address | None, Message]:
    from_phone = vector["direction"] in _OF_PHONES
    if vector["has_smsc"]:
        return read_pdu(pdu, from_phone=from_phone)
    return None, decode(bytes.fromhex(pdu), from_phone=from_phone)


def _fields(centre: address.Address | None, message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"smsc": None if centre is None else str(centre)}
    match message:
        case Deliver():
            found |= {"sender": str(message.sender), "timestamp": _iso(message.sent_at)} | _kind(message.sender)
        case Submit():
            found |= {
                "recipient": str(message.recipient),
                "ref": message.reference,
                "srr": message.report,
                "validity": _validity(message.validity),
            } | _kind(message.recipient)
        case StatusReport():
            found |= {
                "recipient": str(message.recipient),
                "ref": message.reference,
                "timestamp": _iso(message.accepted_at),
                "discharge": _iso(message.ended_at),
                "status": message.status,
            } | _kind(message.recipient)
        case SubmitReport():
            found |= {"timestamp": _iso(message.sent_at)}
    found["pid"] = message.pid
    coding, user = getattr(message, "coding", None), getattr(message, "user", None)
    if coding is not None:
        waiting = coding.waiting
        found |= {
            "dcs": coding.octet,
            "class": coding.message_class,
            "mwi": None
            if waiting is None
            else {"active": waiting.active, "type": waiting.kind, "store": waiting.store},
        }
    return found if user is None else found | _user(user)


def _user(user: UserData) -> dict[str, Any]:
    concat, ports = user.header.concat, user.header.ports
    return {
        "alphabet": user.alphabet.value,
        "text": user.text,
        "udl": user.build()[0],
        "data": user.payload.hex().upper() if user.alphabet is Alphabet.DATA else None,
        "text_utf16be_hex": user.payload.hex().upper() if user.alphabet is Alphabet.UCS2 else None,
        "udh": [[kind, octets.hex().upper()] for kind, octets in user.header.elements],
        "concat": None
        if concat is None
        else {"ref": concat.reference, "total": concat.total, "seq": concat.seq, "bits": concat.bits},
        "ports": None if ports is None else {"dst": ports.to, "src": ports.sender},
    }


def _kind(of: address.Address) -> dict[str, int]:
    return {"ton": int(of.kind), "npi": of.plan}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _validity(validity: timedelta | datetime | EnhancedValidity | None) -> dict[str, Any] | None:
    match validity:
        case timedelta():
            minutes = round(validity.total_seconds() / 60)
            return {"format": "relative", "minutes": minutes, "octet": relative_octet(validity)}
        case datetime():
            return {"format": "absolute", "at": validity.isoformat()}
        case EnhancedValidity():
            return {"format": "enhanced", "raw": validity.octets.hex().upper()}
    return None


def test_every_message_is_read_as_others_read_it() -> None:
    count = 0
    wrong: dict[str, dict[str, Any]] = {}
    for vector in _messages():
        count += 1
        found = _fields(*_read(vector, vector["pdu"]))
        if "force_language" in vector:
            tables = vector["force_language"]
            octets = bytes.fromhex(vector["pdu"])
            user = decode(octets[1:], from_phone=True).user  # type: ignore[union-attr]
            assert user is not None
            found["text"] = alphabet.text_of(user.payload, locking=tables["locking"], single=tables["single"])
        differing = {
            name: (value, found.get(name))
            for name, value in (vector["derived"] | vector["expect"]).items()
            if not name.startswith("full_") and not _same(value, found.get(name))
        }
        if set(differing) != EXPLAINED.get(vector["id"], set()):
            wrong[vector["id"]] = differing
    print(f"{count} messages, {len(EXPLAINED)} of them read otherwise, each for a reason")  # noqa: T201 # shown with -s
    assert wrong == {}
    assert count > 300


def _same(value: Any, found: Any) -> bool:
    if isinstance(value, dict) and isinstance(found, dict):
        return all(found.get(name) == one for name, one in value.items())
    return bool(value == found)


def test_what_others_write_we_write_too() -> None:
    """Messages that an upstream encoder makes of the fields: the same ones become the same octets here."""
    count = 0
    for vector in _messages():
        if not vector.get("encode_vector"):
            continue
        centre, message = _read(vector, vector["pdu"])
        if not isinstance(message, Deliver | Submit):
            continue
        count += 1
        text, _ = write_pdu(message, centre=centre)
        if vector["id"] == "xlab-at-008":
            text = f"{text[:-2]}1B"  # seven bits are left over, in which it writes a carriage return
        assert text == (vector["pdu"] if vector["has_smsc"] else f"00{vector['pdu']}"), vector["id"]
    assert count > 100


def test_parts_make_the_whole_in_any_order() -> None:
    count = 0
    for vector in _lines("reassembly"):
        if vector["kind"] != "reassembly":
            continue
        count += 1
        for order in permutations(vector["parts"]):
            parts: dict[int, UserData] = {}
            for pdu in order:
                _, message = _read(vector, pdu)
                user = getattr(message, "user", None)
                assert user is not None
                assert user.header.concat is not None
                parts[user.header.concat.seq] = user
            whole = joined([parts[seq] for seq in sorted(parts)])
            if vector["id"] == "reas-033":  # an escape and its character in two parts: others lose the €
                assert whole.text == vector["text"].replace("e", "€")
            else:
                assert (
                    whole.text == vector["text"] if "text" in vector else whole.payload.hex() == vector["data"].lower()
                )
    assert count >= 30


def test_what_is_no_message_is_refused_or_read_as_far_as_it_goes() -> None:
    refused = 0
    for vector in _lines("invalid"):
        for from_phone in (True, False):
            try:
                read_pdu(vector["pdu"], from_phone=from_phone)
                decode(bytes.fromhex(vector["pdu"]), from_phone=from_phone)
            except FrameError:
                refused += 1
    assert refused > 30


def _gsm7(vector: dict[str, Any]) -> None:
    packed, fill = bytes.fromhex(vector["packed"]), vector["fill_bits"]
    septets = alphabet.septets_of(vector["text"])
    if "septets" in vector:
        assert septets.hex().upper() == vector["septets"]
    assert alphabet.unpack(packed, len(septets), fill=fill) == septets
    assert alphabet.pack(septets, fill=fill) == packed


def _address(vector: dict[str, Any]) -> None:
    parsed = address.of(address.ADDRESS.parse(bytes.fromhex(vector["octets"])))
    assert str(parsed) == vector["number"]
    if vector["id"] != "comp-067":  # its writer counts whole octets
        built: bytes = address.ADDRESS.build(address.record(parsed))
        assert built.hex().upper() == vector["octets"]


def _udh(vector: dict[str, Any]) -> None:
    header = Header.parse(bytes.fromhex(vector["octets"]))
    assert header.concat is not None
    assert (header.concat.reference, header.concat.total, header.concat.seq) == tuple(vector["concat"].values())
    assert header.ports is not None
    assert (header.ports.to, header.ports.sender) == (vector["ports"]["dst"], vector["ports"]["src"])


def test_the_parts_of_messages() -> None:
    count = 0
    for vector in _lines("components"):
        octets = bytes.fromhex(vector.get("octets", ""))
        count += 1
        match vector["kind"]:
            case "gsm7":
                _gsm7(vector)
            case "gsm7-cr-padding":
                assert alphabet.text_of(alphabet.unpack(bytes.fromhex(vector["packed"]), 7)) == vector["text"]
            case "address":
                _address(vector)
            case "address-invalid":
                continue  # the length counts, whatever the filler; what is cut short, is refused with its message
            case "smsc":
                assert str(address.centre_of(octets[1:])) == vector["number"]
                assert address.centre_octets(address.Address.parse(vector["number"])) == octets[1:]
            case "smsc-split":
                assert str(address.centre_of(octets[1 : 1 + octets[0]])) == vector["smsc"]
                assert octets[1 + octets[0] :].hex() == vector["tpdu"]
            case "validity-relative":
                assert relative(vector["octet"]) == timedelta(minutes=vector["minutes"])
                assert relative_octet(timedelta(minutes=vector["minutes"])) == vector["octet"]
            case "scts":
                assert _iso(stamp(octets)) == vector["timestamp"]
            case "ucs2":
                assert UserData(Alphabet.UCS2, octets).text == vector["text"]
            case "ie-concat":
                concat = Header.parse(octets).concat
                assert concat is not None
                assert (concat.reference, concat.seq, concat.total) == (vector["ref"], vector["seq"], vector["total"])
            case "ie-port":
                ports = Header.parse(octets).ports
                assert ports is not None
                assert (ports.to, ports.sender) == (vector["dst"], vector["src"])
            case "udh":
                _udh(vector)
            case kind:
                pytest.fail(f"a kind that nobody looks at: {kind}")
    assert count > 40


def _line(vector: dict[str, Any], prefix: str) -> str:
    lines: list[str] = [line.strip() for line in vector["raw"].replace("\r", "\n").split("\n")]
    return next(line for line in lines if prefix in line.upper())


def _check_reply(vector: dict[str, Any]) -> bool:
    """Check what a modem said; False where nobody says what it means and it only has to be read."""
    expected = vector["expect"]
    lines = [line.strip() for line in vector["raw"].replace("\r", "\n").split("\n") if line.strip()]
    found: Any
    match vector["kind"]:
        case "creg" | "creg-corner":
            found = replies.registration(_line(vector, "REG:"), answer=not expected.get("urc", False))
            wanted = expected and tuple(expected[name] for name in ("domain", "stat", "lac", "ci", "act"))
            found = found and (found.domain, found.state, found.area, found.cell, found.radio or "unknown")
        case "cclk":
            found, wanted = replies.clock(vector["raw"]), expected.get("local")
            if found is not None:
                assert (found.utcoffset() or timedelta()).total_seconds() / 60 == expected["offset_minutes"]
                found = found.replace(tzinfo=None).isoformat()
        case "clip-urc":
            found, wanted = replies.caller(_line(vector, "+CLIP")), expected.get("number")
        case "clcc":
            found = [
                (call.index, call.incoming, call.state, call.number) for call in replies.calls(lines) if call.voice
            ]
            wanted = [
                (one["idx"], one["dir"] == 1, one["stat"], one.get("number")) for one in expected.get("calls", [])
            ]
        case "cpms-test":
            found = [sorted(group) for group in replies.stores(_line(vector, "+CPMS:"))]
            wanted = expected and [sorted(expected[name]) for name in ("mem1", "mem2", "mem3")]
        case "cusd-urc":
            found = replies.ussd(vector["raw"].strip())
            found, wanted = (found.state, found.text), expected and (expected["m"], expected.get("text"))
        case "csca":
            found, wanted = replies.centre(_line(vector, "+CSCA:")), expected.get("number")
        case "cops-read":
            found, wanted = replies.operator(_line(vector, "+COPS:")), expected.get("operator")
        case "cmgl" | "cmgr":
            found = [(one.index, one.state, one.pdu[:50]) for one in replies.stored_messages(lines)]
            wanted = [(one.get("index"), one["stat"], one["pdu"][:50]) for one in expected.get("parts", [])]
        case _:
            replies.choices(vector["raw"])
            return False
    if not expected:
        return False
    assert found == wanted, vector["id"]
    return True


def test_what_modems_answer_is_read() -> None:
    vectors = _lines("at-replies")
    checked = sum(_check_reply(vector) for vector in vectors)
    print(f"{len(vectors)} answers, {checked} of them with a known meaning")  # noqa: T201 # shown with -s
    assert checked > 50
