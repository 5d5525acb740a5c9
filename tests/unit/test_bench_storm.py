"""What ``bench storm`` concludes from its terminals and parties, and how its processes read what reaches them."""

import json
from dataclasses import asdict, replace
from uuid import UUID

import pytest

from firmware_sim.bench_storm import Storm, judge, measure
from firmware_sim.figures import Sample
from firmware_sim.fleet import PressRecord
from firmware_sim.load import subscribe_packet, take_packets
from firmware_sim.receivers import Kept, take_requests
from firmware_sim.responders import Arrival, Responder, Responders
from firmware_sim.sites import NANJING
from tests.unit.test_responder import CASE, NOW, OTHER_CASE, START_NS, arrival, press


def told(terminal: str, case: UUID, *, after_ms: float = 10.0) -> list[Arrival]:
    """Return the alerts of all six parties to the press of `terminal`."""
    found = []
    for role in NANJING:
        made = arrival(f"{role}-1", case=case, after_ms=after_ms, id=f"msg_{case}_{role}")
        assert made.notice is not None
        data = made.notice.data.model_copy(update={"terminal": terminal})
        found.append(replace(made, notice=made.notice.model_copy(update={"data": data})))
    return found


def two_presses() -> list[PressRecord]:
    """Return two presses half a millisecond apart; the gateway answered after 5 and 20 ms."""
    return [
        press(terminal="t-1", case=CASE, confirmed_ns=START_NS + 1_000_000),
        press(
            terminal="t-2",
            case=OTHER_CASE,
            published_ns=START_NS + 500_000,
            confirmed_ns=START_NS + 2_000_000,
            received_ns=START_NS + 20_000_000,
        ),
    ]


def everything() -> list[Arrival]:
    return told("t-1", CASE) + told("t-2", OTHER_CASE, after_ms=40)


def test_times_count_from_the_first_publication_to_the_last_of_each() -> None:
    storm = measure(two_presses(), everything())
    assert (storm.published_ms, storm.confirmed_ms, storm.received_ms, storm.told_ms) == (0.5, 2.0, 20.0, 40.0)
    assert (storm.deliveries, storm.duplicates) == (12, 0)
    assert storm.per_s == pytest.approx(300)


def test_a_repeat_under_the_same_id_is_told_but_fails_nothing_and_counts_once() -> None:
    again = replace(everything()[0], duplicate=True, at_ns=START_NS + 90_000_000)
    storm = measure(two_presses(), [*everything(), again])
    assert (storm.deliveries, storm.duplicates, storm.told_ms) == (12, 1, 40.0)
    assert slow_only(storm, [*everything(), again])


def slow_only(storm: Storm, arrivals: list[Arrival]) -> bool:
    return judge(storm, arrivals) == ("300 deliveries/s, the bar 3000/s",)


def test_the_bar_is_a_rate() -> None:
    assert slow_only(measure(two_presses(), everything()), everything())
    fast = told("t-1", CASE, after_ms=4) + told("t-2", OTHER_CASE, after_ms=4)
    storm = measure(two_presses(), fast)
    assert storm.per_s == pytest.approx(3000)
    assert judge(storm, fast) == ()
    nothing = measure([press(published_ns=None)], [])
    assert (nothing.per_s, nothing.told_ms) == (0.0, None)


def test_a_party_that_was_not_told_is_lost() -> None:
    arrivals = everything()[1:]
    storm = measure(two_presses(), arrivals)
    assert storm.deliveries == 11
    assert "press 1/1 of t-1: guardian was never told" in judge(storm, arrivals)


def test_a_forged_request_is_no_delivery() -> None:
    arrivals = [replace(everything()[0], problem="signature: no"), *everything()[1:]]
    storm = measure(two_presses(), arrivals)
    assert storm.deliveries == 11
    assert "press 1/1 of t-1: guardian: signature: no" in judge(storm, arrivals)


def test_a_terminal_that_heard_nothing_fails_the_run_but_its_parties_were_told() -> None:
    silent = [two_presses()[0], press(terminal="t-2", case=None, received_ns=None)]
    storm = measure(silent, everything())
    assert storm.deliveries == 12
    assert "press 1/1 of t-2: never received" in judge(storm, everything())


@pytest.mark.parametrize("case", [CASE, OTHER_CASE], ids=["the same case", "a second case"])
def test_a_second_id_for_one_press_is_seen_whatever_case_it_names(case: UUID) -> None:
    arrivals = [*told("t-1", CASE), replace(told("t-1", case)[0], id="msg_another")]
    storm = measure(two_presses()[:1], arrivals)
    assert "guardian-1 was alerted to the one press of t-1 under 2 ids" in judge(storm, arrivals)


# ---------------------------------------------------------------- the processes

REQUEST = b"POST /hooks/guardian-1 HTTP/1.1\r\nHost: x\r\nwebhook-id: msg_1\r\nContent-Length: 4\r\n\r\n"


def test_requests_are_cut_where_they_end_however_they_come() -> None:
    stream = REQUEST + b"\r\n\r\n" + REQUEST + "求助"[:1].encode() + b"\xff"
    buffer, seen = bytearray(), []
    for byte in stream:
        buffer.append(byte)
        seen += take_requests(buffer)
    assert [body for _, body in seen] == [b"\r\n\r\n", b"\xe6\xb1\x82\xff"]
    assert not buffer
    assert take_requests(bytearray(stream)) == seen


def test_a_request_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="content-length"):
        take_requests(bytearray(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n"))


def test_what_a_receiver_kept_survives_the_way_to_the_bench() -> None:
    kept = Kept.from_bytes(REQUEST.rstrip(), b"\xe6\xb1\x82\xff", at_ns=7, at_s=1.5)
    again = Kept(**json.loads(json.dumps(asdict(kept))))
    assert (again.party, again.raw_body, again.at_ns) == ("guardian-1", b"\xe6\xb1\x82\xff", 7)
    assert again.headers == {"host": "x", "webhook-id": "msg_1", "content-length": "4"}


def test_what_others_received_is_judged_as_what_a_party_received_itself() -> None:
    guardian = Responder(party="guardian-1", role="guardian", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    book = Responders([guardian])
    headers = {"webhook-id": "msg_1"}
    taken = [book.take(guardian, headers, b"{}", at=NOW, at_ns=START_NS) for _ in range(2)]
    assert book.arrivals == taken
    assert [one.duplicate for one in taken] == [False, True]
    assert taken[0].problem is not None
    assert "signature" in taken[0].problem


def test_a_subscription_is_one_packet_with_topic_and_quality() -> None:
    packet = bytearray(subscribe_packet(b"okc/v1/t/down/ack", 1))
    # The reserved bits of SUBSCRIBE must be 0010 (MQTT 3.1.1, 3.8.1).
    assert packet[0] == 0x82
    assert take_packets(packet) == [(0x80, b"\x00\x01\x00\x11okc/v1/t/down/ack\x00")]


def test_samples_stay_with_their_presses() -> None:
    samples: tuple[Sample, ...] = measure(two_presses(), everything()).samples
    assert [sample.received_ms for sample in samples] == [5.0, 19.5]
    assert [sample.last_ms for sample in samples] == [10.0, 39.5]
