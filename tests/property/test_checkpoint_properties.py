"""Whatever is done to a sequence of checkpoints shows, but for an end that is cut off (D15)."""

from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.domain.checkpoint import FIRST, digest
from tests.unit.test_checkpoint import CASE, examined, line


def written(heads: Sequence[int]) -> list[bytes]:
    lines: list[bytes] = []
    for number, n in enumerate(heads, start=1):
        lines.append(line(number, digest(lines[-1]) if lines else FIRST, [(CASE, n, bytes([n]) * 32)]))
    return lines


sequences = st.lists(st.integers(1, 255), min_size=1, max_size=6).map(written)


@given(sequences)
def test_what_was_written_is_whole(lines: list[bytes]) -> None:
    assert examined(lines).flaws == []


@given(sequences, st.data())
def test_any_line_taken_out_before_the_end_shows(lines: list[bytes], data: st.DataObject) -> None:
    assume(len(lines) > 1)
    place = data.draw(st.integers(0, len(lines) - 2))
    assert examined([*lines[:place], *lines[place + 1 :]]).flaws != []


@given(sequences, st.data())
def test_any_other_order_shows(lines: list[bytes], data: st.DataObject) -> None:
    turned = data.draw(st.permutations(lines))
    assume(turned != lines)
    assert examined(turned).flaws != []


@given(sequences, st.data())
def test_any_other_byte_shows_and_vouches_for_nothing(lines: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(lines) - 1))
    spot = data.draw(st.integers(0, len(lines[place]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (lines[place][spot], 10)))
    altered = lines[place][:spot] + bytes([byte]) + lines[place][spot + 1 :]
    found = examined([*lines[:place], altered, *lines[place + 1 :]])
    assert found.flaws != []
    assert place + 1 not in [number for _, _, number in found.heads.of(CASE)]


@given(sequences, st.data())
def test_any_line_put_in_twice_shows(lines: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(lines)))
    assert examined([*lines[:place], data.draw(st.sampled_from(lines)), *lines[place:]]).flaws != []
