"""What each share of the telemetry subscribes to: together everything, each report once, and our own words."""

from fnmatch import fnmatchcase

import pytest

from gateway.ingest.shares import share_of
from protocols.okc import Up, echo_topic, is_echo, up_filter, up_topic

KINDS = [kind for kind in Up if kind is not Up.ALARM]


def takers(topic: str, of: int) -> int:
    """How often a message reaches the shares: a group gets it once, however many are in it."""
    plain = group = 0
    for number in range(of):
        for topic_filter, _ in share_of(number, of).filters:
            bare = topic_filter.removeprefix("$share/onekey/")
            if fnmatchcase(topic, bare.replace("+", "*")):
                if bare == topic_filter:
                    plain += 1
                else:
                    group = 1
    return plain + group


@pytest.mark.parametrize("of", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_report_of_a_terminal_reaches_one_share_once(of: int, kind: Up) -> None:
    assert takers(up_topic("8600", kind), of) == 1


@pytest.mark.parametrize("of", [1, 2, 5])
def test_every_share_hears_its_own_words_beside_what_is_dealt_out(of: int) -> None:
    for number in range(of):
        share = share_of(number, of)
        plain = [one for one, _ in share.filters if not one.startswith("$share")]
        assert all(any(fnmatchcase(way, one.replace("+", "*")) for one in plain) for way in share.ways)
        assert all(is_echo(way) for way in share.ways)
        dealt = {one.rpartition("/")[2] for one, _ in share.filters}
        assert {way.rpartition("/")[2] for way in share.ways} == dealt, "a word for every kind that comes"


def test_no_two_shares_have_a_session_or_a_way_in_common() -> None:
    shares = [share_of(number, 5) for number in range(5)]
    assert len({share.client_id for share in shares}) == 5
    ways = [way for share in shares for way in share.ways]
    assert len(ways) == len(set(ways))


def test_what_a_session_had_before_is_dropped() -> None:
    alone, first = share_of(0, 1), share_of(0, 2)
    assert alone.client_id == first.client_id
    before, after = ({one for one, _ in share.filters} for share in (alone, first))
    assert before - after == set(first.drops) == {up_filter(Up.HEARTBEAT), up_filter(Up.FIX)}
    assert {one for one in after - before if one.startswith("$share")} == set(alone.drops)
    over = share_of(1, 1)
    assert over.client_id == share_of(1, 2).client_id
    assert [one for one, _ in over.filters] == list(over.ways)
    assert {one for one, _ in share_of(1, 2).filters} - set(over.ways) == set(over.drops)


def test_no_terminal_can_speak_in_our_name() -> None:
    assert not is_echo(up_topic("echo", Up.HEARTBEAT))
    assert not is_echo(up_topic("_echo-1", Up.HEARTBEAT))
    assert is_echo(echo_topic(Up.FIX, 3))
