"""Two presses never share a key, two obligations never share an id (D5, D10)."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import keys

# Few values each, and those that could run into one another when they are written side by side: two that were
# drawn from all there are would always differ in everything.
terminals = st.sampled_from(["1", "11", "1-1"]) | st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
numbers = st.sampled_from([1, 11, 111]) | st.integers(0, 2**32 - 1)
epochs = st.sampled_from([1, 11])
kinds = st.sampled_from(["sos", "fall", ":", "|1", "%2B", "+"]) | st.text(min_size=1, max_size=64)
kind_sets = st.frozensets(kinds, max_size=4)
roles = st.sampled_from(["guardian", "hotline"]) | st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)
parties = st.none() | st.sampled_from(["guardian", "hotline"]) | terminals
uuids = st.sampled_from([UUID(int=1), UUID(int=11)]) | st.uuids()

numbered = st.tuples(terminals, epochs, numbers, numbers)
windowed = st.tuples(terminals, epochs, kind_sets)


def key_of(press: tuple[str, int, int, int] | tuple[str, int, frozenset[str]]) -> str:
    if len(press) == 4:
        return keys.numbered_key(press[0], epoch=press[1], boot=press[2], seq=press[3])
    return keys.window_key(press[0], epoch=press[1], kinds=tuple(press[2]))


@given(numbered | windowed, numbered | windowed)
def test_two_presses_have_two_keys(
    one: tuple[str, int, int, int] | tuple[str, int, frozenset[str]],
    other: tuple[str, int, int, int] | tuple[str, int, frozenset[str]],
) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


@given(
    terminals, epochs, st.frozensets(kinds, min_size=1, max_size=4), st.sampled_from(["+", ":", "|", "", ",", "%2B"])
)
def test_several_kinds_are_not_one_kind_of_that_name(
    terminal: str, epoch: int, words: frozenset[str], between: str
) -> None:
    joined = frozenset({between.join(sorted(words))})
    one = keys.window_key(terminal, epoch=epoch, kinds=tuple(words))
    assert (one == keys.window_key(terminal, epoch=epoch, kinds=tuple(joined))) == (words == joined)


@given(terminals, epochs, st.lists(kinds, min_size=1, max_size=5))
def test_neither_order_nor_repetition_of_kinds_makes_another_press(terminal: str, epoch: int, words: list[str]) -> None:
    backwards = (*reversed(words), words[0])
    one = keys.window_key(terminal, epoch=epoch, kinds=tuple(words))
    assert one == keys.window_key(terminal, epoch=epoch, kinds=backwards)


@given(numbered | windowed, st.integers(1, 10_000), numbered | windowed, st.integers(1, 10_000))
def test_two_alarms_have_two_ids(
    one: tuple[str, int, int, int] | tuple[str, int, frozenset[str]],
    nth: int,
    other: tuple[str, int, int, int] | tuple[str, int, frozenset[str]],
    other_nth: int,
) -> None:
    same = keys.alarm_id(key_of(one), nth) == keys.alarm_id(key_of(other), other_nth)
    assert same == ((one, nth) == (other, other_nth))


@given(uuids, roles, parties, uuids, roles, parties)
def test_two_obligations_have_two_ids(
    case: UUID, role: str, party: str | None, other_case: UUID, other_role: str, other_party: str | None
) -> None:
    one = keys.leg_id(case, role=role, party=party)
    assert one == keys.leg_id(case, role=role, party=party)
    same = one == keys.leg_id(other_case, role=other_role, party=other_party)
    assert same == ((case, role, party) == (other_case, other_role, other_party))


@given(uuids)
def test_what_is_derived_is_never_what_it_was_derived_from_but_begins_like_it(key: UUID) -> None:
    alarm = keys.alarm_id(str(key), 1)
    case = keys.case_id(alarm)
    leg = keys.leg_id(case, role="guardian", party=None)
    assert len({alarm, case, leg}) == 3
    assert (case.version, leg.version) == (5, 5)
    assert alarm.bytes[:8] == case.bytes[:8] == leg.bytes[:8]


@given(uuids, st.integers(1, 10_000), uuids, st.integers(1, 10_000))
def test_two_notices_have_two_keys(leg: UUID, number: int, other_leg: UUID, other_number: int) -> None:
    same = keys.notice_id(leg, number) == keys.notice_id(other_leg, other_number)
    assert same == ((leg, number) == (other_leg, other_number))


@given(st.none() | terminals, st.none() | terminals, st.none() | terminals, st.none() | terminals)
def test_two_subjects_have_two_names(
    home: str | None, terminal: str | None, other_home: str | None, other_terminal: str | None
) -> None:
    one = keys.subject(household=home, terminal=terminal)
    other = keys.subject(household=other_home, terminal=other_terminal)
    about = ("household", home) if home is not None else ("terminal", terminal)
    other_about = ("household", other_home) if other_home is not None else ("terminal", other_terminal)
    assert (one == other) == (about == other_about)
