"""SMS as octets: what is written is read again, no character is cut in two, and whatever comes is read or refused."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.errors import FrameError, LocalProtocolError
from protocols.gsm import alphabet
from protocols.gsm.address import Address, NumberType
from protocols.gsm.coding import Alphabet, DataCoding
from protocols.gsm.header import Concat, Header, Ports
from protocols.gsm.times import EnhancedValidity, relative, relative_octet, stamp, stamp_octets
from protocols.gsm.tpdu import (
    Deliver,
    DeliverReport,
    StatusReport,
    Submit,
    build,
    decode,
    read_pdu,
    write_pdu,
)
from protocols.gsm.userdata import MOST_OCTETS, UserData, joined, split, split_data

GSM = "".join(char for char in map(chr, range(0x20, 0x2100)) if alphabet.fits(char)) + "\n\r\f"
GSM_TEXT = st.text(st.sampled_from(GSM), max_size=700).map(lambda text: text.replace("\r\n", "\n"))
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=400).map(lambda text: text.replace("\r\n", "\n"))
PORTS = st.none() | st.builds(Ports, st.integers(0, 65535), st.integers(0, 65535), st.just(16))
NUMBERS = st.builds(
    Address,
    digits=st.text(st.sampled_from("0123456789*#abc"), min_size=1, max_size=20),
    kind=st.sampled_from([kind for kind in NumberType if kind is not NumberType.NAME]),
    plan=st.integers(0, 15),
)
NAMES = st.text(st.sampled_from(GSM), min_size=1, max_size=11).filter(
    # A name of eight septets that ends with an @ looks like one of seven: some write the length of whole octets.
    lambda name: 0 < len(alphabet.septets_of(name)) <= 11 and not name.endswith("@")
)
ADDRESSES = NUMBERS | NAMES.map(lambda name: Address(name, NumberType.NAME, 0))
ZONES = st.integers(-79, 79).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))
TIMES = st.datetimes(datetime(1990, 1, 2), datetime(2089, 12, 30), timezones=ZONES).map(  # noqa: DTZ001 # hypothesis wants it so
    lambda at: at.replace(microsecond=0)
)


@given(text=GSM_TEXT, fill=st.integers(0, 6))
def test_septets_come_out_as_they_went_in(text: str, fill: int) -> None:
    septets = alphabet.septets_of(text)
    packed = alphabet.pack(septets, fill=fill)
    assert len(packed) == -(-(fill + 7 * len(septets)) // 8)
    assert alphabet.unpack(packed, len(septets), fill=fill) == septets
    assert alphabet.text_of(septets) == text


@pytest.mark.parametrize(
    ("septets", "text"),
    [
        (b"\x1b\x65", "€"),
        (b"\x1b\x41", "A"),  # in no table: as without the escape
        (b"\x1b\x1b", " "),
        (b"a\x1b", "a"),
        (b"\x1b\x1b\x65", " e"),
    ],
)
def test_escapes(septets: bytes, text: str) -> None:
    assert alphabet.text_of(septets) == text


def test_national_tables_are_those_of_the_header() -> None:
    # Turkish: ESC g is ğ (single shift), and 0x04 is € (locking shift).
    payload = b"\x1bg\x04"
    plain = UserData(Alphabet.GSM7, payload)
    single = UserData(Alphabet.GSM7, payload, Header(((0x24, b"\x01"),)))
    both = UserData(Alphabet.GSM7, payload, Header(((0x24, b"\x01"), (0x25, b"\x01"))))
    assert (plain.text, single.text, both.text) == ("gè", "ğè", "ğ€")
    assert UserData(Alphabet.GSM7, payload, Header(((0x24, b"\xee"), (0x25, b"\xef")))).text == plain.text


def test_what_is_not_in_the_alphabet_is_named() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        alphabet.septets_of("ça")
    assert caught.value.start == 0
    assert not alphabet.fits("`")


def _by_air(users: Sequence[UserData]) -> list[UserData]:
    """Send messages and read them again."""
    found = []
    for user in users:
        length, octets = user.build()
        assert len(octets) <= MOST_OCTETS
        coding = DataCoding.of(user.alphabet)
        found.append(UserData.parse(octets, length, coding=coding, has_header=bool(user.header.elements)))
    return found


@given(text=GSM_TEXT | ANY_TEXT, reference=st.integers(0, 70000), bits=st.sampled_from([8, 16]), ports=PORTS)
@example(text="x" * 152 + "€" * 80, reference=7, bits=8, ports=None)
@example(text="😱" * 40, reference=7, bits=8, ports=None)
@example(text="x" * 160, reference=7, bits=8, ports=None)
@example(text="摔" * 70, reference=7, bits=8, ports=None)
def test_a_text_is_split_and_joined_without_breaking_a_character(
    text: str, reference: int, bits: int, ports: Ports | None
) -> None:
    parts = split(text, reference=reference, bits=bits, ports=ports)
    assert [part.payload for part in _by_air(parts)] == [part.payload for part in parts]
    assert joined(_by_air(parts)).text == text.removeprefix("\ufeff").rstrip("\0") or alphabet.fits(text)
    assert all((part.alphabet is Alphabet.GSM7) == alphabet.fits(text) for part in parts)
    if alphabet.fits(text):
        assert joined(_by_air(parts)).text == text
    for part in parts:
        assert part.header.ports == ports
        assert part.text is not None
        assert "\ufffd" not in part.text or "\ufffd" in text
        assert not part.payload.endswith(b"\x1b") or part.alphabet is not Alphabet.GSM7
    if len(parts) == 1:
        assert parts[0].header.concat is None
    else:
        numbers = [part.header.concat for part in parts]
        assert numbers == [Concat(reference % (1 << bits), len(parts), seq, bits) for seq in range(1, len(parts) + 1)]


@pytest.mark.parametrize(
    ("text", "bits", "parts"),
    [
        ("x" * 160, 8, 1),
        ("x" * 161, 8, 2),
        ("x" * 306, 8, 2),
        ("x" * 307, 8, 3),
        ("x" * 304, 16, 2),
        ("x" * 305, 16, 3),
        ("€" * 80, 8, 1),
        ("€" * 152, 8, 2),  # 153 septets in a part, of which an escape leaves one empty
        ("€" * 153, 8, 3),
        ("摔" * 70, 8, 1),
        ("摔" * 134, 8, 2),
        ("摔" * 135, 8, 3),
        ("摔" * 132, 16, 2),
        ("😱" * 66, 8, 2),
        ("", 8, 1),
    ],
)
def test_as_few_messages_as_it_takes(text: str, bits: int, parts: int) -> None:
    assert len(split(text, reference=1, bits=bits)) == parts


def test_too_long_for_any_number_of_messages() -> None:
    with pytest.raises(ValueError, match="255"):
        split("摔" * (67 * 255 + 1), reference=1)
    assert len(split("摔" * (67 * 255), reference=1)) == 255


@given(data=st.binary(max_size=1000), reference=st.integers(0, 255), ports=PORTS)
def test_data_are_split_and_joined(data: bytes, reference: int, ports: Ports | None) -> None:
    parts = split_data(data, reference=reference, ports=ports)
    whole = joined(_by_air(parts))
    assert (whole.alphabet, whole.payload, whole.text) == (Alphabet.DATA, data, None)


def test_a_pair_that_was_cut_by_others_is_mended_when_joined() -> None:
    payload = "😱".encode("utf-16-be")
    halves = [UserData(Alphabet.UCS2, payload[:2]), UserData(Alphabet.UCS2, payload[2:])]
    assert [half.text for half in halves] == ["\ufffd", "\ufffd"]
    assert joined(halves).text == "😱"
    escapes = [UserData(Alphabet.GSM7, b"a\x1b"), UserData(Alphabet.GSM7, b"eb")]
    assert joined(escapes).text == "a€b"


def test_parts_with_tables_of_their_own_are_read_by_them() -> None:
    turkish = UserData(Alphabet.GSM7, b"\x1bg", Header(((0x24, b"\x01"),)))
    assert joined([turkish, UserData(Alphabet.GSM7, b"\x1be")]).text == "ğ€"


USERS = st.one_of(
    st.text(st.sampled_from(GSM), max_size=60).map(lambda text: UserData(Alphabet.GSM7, alphabet.septets_of(text))),
    st.text(st.characters(codec="utf-8", max_codepoint=0xD7FF), max_size=60).map(
        lambda text: UserData(Alphabet.UCS2, text.encode("utf-16-be"))
    ),
    st.binary(max_size=130).map(lambda data: UserData(Alphabet.DATA, data)),
    st.builds(
        lambda text, ref, seq: UserData(
            Alphabet.GSM7, alphabet.septets_of(text), Header.of(concat=Concat(ref, 9, seq, 16), ports=Ports(1, 2))
        ),
        st.text(st.sampled_from(GSM), max_size=50),
        st.integers(0, 65535),
        st.integers(1, 9),
    ),
)


@given(
    sender=ADDRESSES,
    user=USERS,
    sent_at=st.none() | TIMES,
    pid=st.integers(0, 255),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    centre=st.none() | NUMBERS,
)
def test_a_message_for_a_phone_is_read_as_it_was_written(
    sender: Address,
    user: UserData,
    sent_at: datetime | None,
    pid: int,
    flags: tuple[bool, bool, bool],
    centre: Address | None,
) -> None:
    more, report, reply = flags
    message = Deliver(
        sender=sender,
        user=user,
        sent_at=sent_at,
        pid=pid,
        coding=DataCoding.of(user.alphabet),
        more=more,
        report_follows=report,
        reply_path=reply,
    )
    text, length = write_pdu(message, centre=centre)
    assert read_pdu(text, from_phone=False, length=length) == (centre, message)


@given(
    recipient=ADDRESSES,
    user=USERS,
    validity=st.none()
    | TIMES
    | st.integers(0, 255).map(relative)
    | st.binary(min_size=7, max_size=7).map(EnhancedValidity),
    reference=st.integers(0, 255),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_a_message_of_a_phone_is_read_as_it_was_written(
    recipient: Address,
    user: UserData,
    validity: timedelta | datetime | EnhancedValidity | None,
    reference: int,
    flags: tuple[bool, bool, bool],
) -> None:
    report, reject, reply = flags
    message = Submit(
        recipient=recipient,
        user=user,
        reference=reference,
        coding=DataCoding.of(user.alphabet),
        validity=validity,
        report=report,
        reject_duplicates=reject,
        reply_path=reply,
    )
    assert decode(build(message), from_phone=True) == message


@given(recipient=NUMBERS, times=st.tuples(TIMES, TIMES), numbers=st.tuples(st.integers(0, 255), st.integers(0, 255)))
def test_a_status_report_is_read_as_it_was_written(
    recipient: Address, times: tuple[datetime, datetime], numbers: tuple[int, int]
) -> None:
    message = StatusReport(
        reference=numbers[0], recipient=recipient, accepted_at=times[0], ended_at=times[1], status=numbers[1]
    )
    assert decode(build(message), from_phone=False) == message


@pytest.mark.parametrize("message", [DeliverReport(), DeliverReport(cause=0xD3)])
def test_a_phones_answer(message: DeliverReport) -> None:
    assert decode(build(message), from_phone=True) == message


@given(octets=st.binary(max_size=200), from_phone=st.booleans())
def test_whatever_comes_is_read_or_refused(octets: bytes, from_phone: bool) -> None:
    for length in (None, len(octets), 3):
        try:
            _, message = read_pdu(octets.hex(), from_phone=from_phone, length=length)
        except FrameError:
            continue
        user = getattr(message, "user", None)
        if user is not None and user.text is not None:
            user.text.encode()  # no half characters


@pytest.mark.parametrize("text", ["", "0", "zz", "07", "0791", "00", "0002", "07919761989901F0", "é"])
def test_what_is_cut_short_is_refused(text: str) -> None:
    with pytest.raises(FrameError):
        read_pdu(text, from_phone=False)


@given(at=TIMES)
def test_time_stamps(at: datetime) -> None:
    read = stamp(stamp_octets(at))
    assert read == at
    assert read is not None
    assert read.utcoffset() == at.utcoffset()


@pytest.mark.parametrize(
    "octets", [bytes(7), b"\xff" * 7, b"\x62\x13\x32\x00\x00\x00\x00", b"\x62\x11\x10\x42\x00\x00\xa0"]
)
def test_times_that_there_are_not(octets: bytes) -> None:
    assert stamp(octets) is None


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 # that is the point
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(minutes=7))),
        datetime(1989, 12, 31, tzinfo=UTC),
        datetime(2090, 1, 1, tzinfo=UTC),
    ],
)
def test_times_that_cannot_be_said(at: datetime) -> None:
    message = Deliver(sender=Address("1"), user=UserData(Alphabet.GSM7, b""), sent_at=at)
    with pytest.raises(LocalProtocolError):
        build(message)


@given(octet=st.integers(0, 255))
def test_validity(octet: int) -> None:
    lasts = relative(octet)
    assert relative(relative_octet(lasts)) == lasts
    assert relative(relative_octet(lasts - timedelta(seconds=1))) == lasts, "rather a little longer than too short"
    assert relative_octet(timedelta(days=9999)) == 255
    assert relative_octet(timedelta(0)) == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("+86 138-1234 5678", Address("8613812345678", NumberType.INTERNATIONAL)),
        ("10086", Address("10086")),
        ("*100#", Address("*100#")),
        ("Vodafone", Address("Vodafone", NumberType.NAME, 0)),
    ],
)
def test_numbers_as_people_write_them(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "+", "1" * 21, "a long name of a sender", "紧急"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        Address.parse(text)


@given(elements=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=10)), max_size=8))
def test_headers_keep_what_they_do_not_know(elements: list[tuple[int, bytes]]) -> None:
    header = Header(tuple(elements))
    built = header.build()
    assert Header.parse(built[1:]) == header


@pytest.mark.parametrize("concat", [Concat(1, 0, 0), Concat(1, 2, 3), Concat(1, 2, 0)])
def test_parts_that_cannot_be_are_no_parts(concat: Concat) -> None:
    assert Header.of(concat=concat).concat is None


def test_a_header_that_runs_past_its_end_takes_no_text_with_it() -> None:
    octets = b"\x05\x00\x09\x01\x02\x03hello"
    read = UserData.parse(octets, len(octets), coding=DataCoding.of(Alphabet.DATA), has_header=True)
    assert (read.payload, read.header.elements) == (b"hello", ())
