"""Messages out of pieces: however the bytes are cut, each comes once, in order, and paho gets what is not ours."""

import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.links.packets import Pieces, Publish

PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x03\x00\x07\x01"
SIZE = 64


def length_of(number: int) -> bytes:
    """Return a remaining length as MQTT writes it."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(digits)


def packet(publish: Publish) -> bytes:
    """Return a message as a broker sends it."""
    topic = publish.topic.encode()
    number = publish.mid.to_bytes(2, "big") if publish.qos else b""
    body = len(topic).to_bytes(2, "big") + topic + number + publish.payload
    return bytes((0x30 | publish.again << 3 | publish.qos << 1 | publish.retained,)) + length_of(len(body)) + body


class Reader:
    """Reads as the link does: messages from the pieces, and what these leave as paho does, which keeps half packets."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.found: list[bytes] = []
        self.half = b""
        self.ended = False

    def read(self) -> None:
        """Take what there is: as often as an event loop would call, and aiomqtt would ask."""
        while not self.ended and select.select([self.pieces.fileno()], [], [], 0)[0]:
            self._read_once()

    def _read_once(self) -> None:
        while not self.ended:
            if not self.half:
                self.found += [packet(publish) for publish in self.pieces.publishes()]
            if self.half or self.pieces.for_paho:
                self._as_paho()
            if not self.pieces.pending():
                return

    def _as_paho(self) -> None:
        try:
            while (wanted := self._wanted()) > 0:
                more = self.pieces.recv(wanted)
                if not more:
                    self.ended = True
                    return
                self.half += more
        except BlockingIOError:
            return
        self.found.append(self.half)
        self.half = b""

    def _wanted(self) -> int:
        for place in range(1, 5):
            if len(self.half) <= place:
                return 1
            if not self.half[place] & 0x80:
                length = sum((self.half[1 + n] & 0x7F) << 7 * n for n in range(place))
                return place + 1 + length - len(self.half)
        return 0  # a length that never ends: paho says that the protocol is broken


@contextmanager
def connected(size: int) -> Iterator[tuple[socket.socket, Reader]]:
    there, here = socket.socketpair()
    here.setblocking(False)
    with closing(there), closing(here):
        yield there, Reader(Pieces(here, size))


MESSAGES = st.builds(
    lambda topic, payload, qos, retained, again, mid: packet(
        Publish(topic, payload, qos, retained, again and qos > 0, mid if qos else 0)
    ),
    topic=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    payload=st.binary(max_size=200),
    qos=st.integers(0, 1),
    retained=st.booleans(),
    again=st.booleans(),
    mid=st.integers(1, 65_535),
)
PACKETS = st.lists(st.one_of(MESSAGES, st.sampled_from([PINGRESP, SUBACK])), max_size=12)


@given(packets=PACKETS, cuts=st.lists(st.integers(0, 150), max_size=40), size=st.sampled_from([16, SIZE, 2048]))
def test_however_they_are_cut_all_come_once_and_in_order(
    packets: Sequence[bytes], cuts: Sequence[int], size: int
) -> None:
    sent = b"".join(packets)
    with connected(size) as (there, reader):
        for cut in (*cuts, len(sent)):
            there.sendall(sent[:cut])
            sent = sent[cut:]
            reader.read()
        assert reader.found == list(packets)
        assert not reader.half
        assert reader.pieces.pending() == 0


def test_byte_by_byte_nothing_spins_and_nothing_is_lost() -> None:
    packets = [packet(Publish("okc/v1/8600/up/alarm", b"x" * n, 1, False, False, n + 1)) for n in (0, 5, 130)]
    with connected(SIZE) as (there, reader):
        for byte in b"".join(packets):
            there.sendall(bytes((byte,)))
            reader.read()
            assert reader.pieces.pending() == 0  # aiomqtt goes on for as long as there is something
        assert reader.found == packets


def test_what_a_message_says_is_read() -> None:
    told = Publish("okc/v1/8600/up/alarm", b'{"v":1}', 1, True, True, 513)
    with connected(SIZE) as (there, reader):
        there.sendall(packet(told))
        assert reader.pieces.publishes() == [told]
        assert not reader.pieces.for_paho


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b"\x36\x07\x00\x01a\x00\x01xy", "QoS 3"),
        (b"\x34\x07\x00\x01a\x00\x01xy", "QoS 2, which we never ask for"),
        (b"\x32\x04\x00\x09ab", "a topic longer than the packet"),
        (b"\x32\x03\x00\x01a", "no packet number"),
        (b"\x30\x02\x00\x00", "no topic"),
        (b"\x30\x01\x00", "half a length"),
        (b"\x30\xff\xff\xff\xff\x01", "a length that never ends"),
    ],
)
def test_what_breaks_the_protocol_is_left_to_paho(broken: bytes, why: str) -> None:
    good = packet(Publish("a", b"1", 0, False, False, 0))
    with connected(SIZE) as (there, reader):
        there.sendall(good + broken)
        assert [one.payload for one in reader.pieces.publishes()] == [b"1"]
        assert reader.pieces.for_paho, why
        assert reader.pieces.recv(1) == broken[:1]


def test_a_topic_that_is_no_text_is_somebody_elses_to_refuse() -> None:
    with connected(SIZE) as (there, reader):
        there.sendall(b"\x30\x05\x00\x02\xff\xfe1")
        (publish,) = reader.pieces.publishes()
        assert publish.topic == "\ufffd\ufffd"


@pytest.mark.parametrize("left", [b"", PINGRESP, b"\x30\x09\x00\x01a"])
def test_the_end_is_for_paho_to_see(left: bytes) -> None:
    good = packet(Publish("a", b"1", 0, False, False, 0))
    with connected(SIZE) as (there, reader):
        there.sendall(good + left)
        there.shutdown(socket.SHUT_WR)
        reader.read()
        assert reader.ended
        assert reader.found[0] == good


def test_a_socket_that_is_torn_down_has_ended_too() -> None:
    with connected(SIZE) as (_, reader):
        reader.pieces.close()
        assert reader.pieces.publishes() == []
        assert reader.pieces.for_paho
        assert reader.pieces.recv(1) == b""
