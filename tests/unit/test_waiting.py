"""What waits to be stored: emergencies first, nobody for ever, and of one terminal one at a time."""

from gateway.ingest.waiting import Batch, Pace, Waiting


def filled(waiting: Waiting[str], count: int, *, urgent: bool, source: str | None = None) -> None:
    for number in range(count):
        waiting.put(f"{source or number}", source=source or str(number), urgent=urgent)


def begun(waiting: Waiting[str], now_s: float) -> list[Batch[str]]:
    batches = []
    while (batch := waiting.next(now_s=now_s)) is not None:
        batches.append(batch)
    return batches


def test_emergencies_go_first_and_the_rest_alone() -> None:
    waiting: Waiting[str] = Waiting(most=8, largest=2)
    filled(waiting, 3, urgent=False)
    filled(waiting, 3, urgent=True)
    first, second = begun(waiting, 0.0)
    assert (first.urgent, second.urgent) == (True, True)
    waiting.done(first)
    assert begun(waiting, 0.1) == []
    waiting.done(second)
    (rest,) = begun(waiting, 0.1)
    assert (rest.urgent, list(rest.items)) == (False, ["0", "1", "2"])


def test_an_emergency_finds_a_place_beside_what_could_have_waited() -> None:
    waiting: Waiting[str] = Waiting(most=8)
    filled(waiting, 40, urgent=False)
    (technical,) = begun(waiting, 0.0)
    assert len(technical.items) == 16
    filled(waiting, 1, urgent=True, source="fall")
    (fall,) = begun(waiting, 0.01)
    assert fall.urgent


def test_a_flood_of_emergencies_hides_nothing_for_longer_than_a_second() -> None:
    waiting: Waiting[str] = Waiting(most=8)
    filled(waiting, 1, urgent=False, source="mains")
    stored: list[tuple[float, bool]] = []
    for step in range(300):  # one terminal always has another emergency, and storing one takes 10 ms
        now_s = step / 100
        filled(waiting, 2, urgent=True, source="stuck")
        for batch in begun(waiting, now_s):
            stored.append((now_s, batch.urgent))
            waiting.done(batch)
        if step % 100 == 50:
            filled(waiting, 1, urgent=False, source="mains")
    others = [now_s for now_s, urgent in stored if not urgent]
    assert others
    assert others[0] <= 1.0
    assert sum(urgent for _, urgent in stored) > 200


def test_what_can_wait_never_takes_every_place() -> None:
    waiting: Waiting[str] = Waiting(most=8, largest_other=1)
    filled(waiting, 20, urgent=False)
    under_way = [batch for turn in range(20) for batch in begun(waiting, float(turn))]
    assert len(under_way) == 4
    filled(waiting, 1, urgent=True, source="fall")
    (fall,) = begun(waiting, 20.0)
    assert fall.urgent


def test_one_terminal_is_stored_in_its_order() -> None:
    waiting: Waiting[str] = Waiting(most=8)
    for word in ("first", "second"):
        waiting.put(word, source="t", urgent=True)
    assert waiting.knows("t", urgent=True)
    (batch,) = begun(waiting, 0.0)
    assert list(batch.items) == ["first"]
    assert waiting.holds("t", urgent=True)
    waiting.done(batch)
    (batch,) = begun(waiting, 0.0)
    assert list(batch.items) == ["second"]
    assert not waiting.holds("t", urgent=True)
    waiting.done(batch)
    assert not waiting.knows("t", urgent=True)


def test_while_it_pours_what_can_wait_only_waits_but_not_for_ever() -> None:
    waiting: Waiting[str] = Waiting(most=8, pouring_s=10.0)
    filled(waiting, 40, urgent=False)
    assert waiting.next(now_s=0.0, pouring=True) is None
    filled(waiting, 1, urgent=True, source="fall")
    fall = waiting.next(now_s=9.0, pouring=True)
    assert fall is not None
    assert fall.urgent
    waiting.done(fall)
    at_last = waiting.next(now_s=10.0, pouring=True)
    assert at_last is not None
    assert not at_last.urgent
    waiting.done(at_last)
    assert waiting.next(now_s=10.5, pouring=True) is None
    second = waiting.next(now_s=11.0, pouring=True)
    assert second is not None, "from then on one has its turn every second"
    waiting.done(second)
    assert waiting.next(now_s=11.1) is not None, "it pours no more"


def test_it_pours_as_long_as_much_came_in_this_spell_or_the_one_before() -> None:
    pace = Pace(most=10, spell_s=1.0)
    for number in range(11):
        assert not pace.pours(5.0)
        pace.count(5.0 + number / 100)
    assert pace.pours(5.2)
    assert pace.pours(6.9)
    assert not pace.pours(7.0)
    for number in range(40):
        pace.count(10.0 + number / 10)
    assert not pace.pours(14.0), "ten a spell are none too many"
