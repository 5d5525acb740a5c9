"""Checkpoints: pinned to the byte, and what is found where somebody changed them (D15)."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.domain.checkpoint import FIRST, Checkpoint, Examiner, Heads, digest, parse, seal, unsigned
from gateway.keyring import Keyring

KEYRING, OTHER = Keyring(bytes(range(32))), Keyring(bytes(range(1, 33)))
CASE, SECOND = UUID("d6007f4b-0bef-5962-97f4-891cca7bf6c0"), UUID("0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11")
AT = datetime(2026, 11, 22, 6, 32, tzinfo=UTC)


def line(
    number: int, prev: str, heads: Sequence[tuple[UUID, int, bytes]], *, keyring: Keyring = KEYRING, late: int = 0
) -> bytes:
    at = AT + timedelta(minutes=number, seconds=late)
    text = unsigned(number=number, at=at, prev=prev, heads=heads, key=keyring.public.name)
    return seal(text, keyring.sign(text))


def written(count: int) -> list[bytes]:
    lines: list[bytes] = []
    for number in range(1, count + 1):
        heads = [(CASE, 3 * number, bytes([number]) * 32)] + [(SECOND, 5, bytes(32))] * (number == 2)
        lines.append(line(number, digest(lines[-1]) if lines else FIRST, heads))
    return lines


FIVE = written(5)


def examined(lines: Sequence[bytes], *, whole: bool = True) -> Examiner:
    found = Examiner("file", KEYRING.public.signed, Heads(), whole=whole)
    found.read(lines)
    return found


def test_a_checkpoint_never_changes_its_form() -> None:
    # Written down once: copies are kept elsewhere for years, and every later version has to read and confirm them.
    assert FIVE[0] == (
        b'{"v":1,"number":1,"at":"2026-11-22T06:33:00.000000Z","prev":"' + b"0" * 64 + b'",'
        b'"heads":[["d6007f4b-0bef-5962-97f4-891cca7bf6c0",3,"' + b"01" * 32 + b'"]],"key":"52b7da5fc29f683e",'
        b'"signature":"y+wR6akH4i6S2R3ArxitT8uvb/iMlmJVPZYYLt1UBJWe4Qff1MMofLpdy7ULXM4anpFwKIgTS7mWOvFWV2AzDg=="}'
    )


def test_anybody_can_check_a_checkpoint_without_this_program() -> None:
    text, _, rest = FIVE[1].rpartition(b',"signature":"')
    Ed25519PublicKey.from_public_bytes(KEYRING.public.raw).verify(base64.b64decode(rest[:-2]), text)
    value = json.loads(FIVE[1])
    assert value["prev"] == sha256(FIVE[0]).hexdigest()
    assert value["key"] == sha256(KEYRING.public.raw).hexdigest()[:16]
    assert [head[1] for head in value["heads"]] == [6, 5]


def test_what_was_written_is_whole() -> None:
    found = examined(FIVE)
    assert found.flaws == []
    assert found.newest == parse(FIVE[4])
    assert found.heads.of(CASE) == [(3 * n, bytes([n]) * 32, n) for n in range(1, 6)]
    assert found.heads.of(SECOND) == [(5, bytes(32), 2)]
    assert found.heads.of(UUID(int=0)) == []


@pytest.mark.parametrize(
    ("lines", "flaws"),
    [
        (FIVE[1:], ["file: checkpoint 1 is missing"]),
        ([FIVE[0], *FIVE[2:]], ["file: checkpoint 2 is missing"]),
        ([FIVE[0], FIVE[4]], ["file: checkpoints 2 to 4 are missing"]),
        (
            [FIVE[0], FIVE[2], FIVE[1], *FIVE[3:]],
            [
                "file: checkpoint 2 is missing",
                "file: checkpoint 2 stands behind checkpoint 3: the order was changed",
            ],
        ),
        ([*FIVE, FIVE[4]], ["file: checkpoint 5 stands behind checkpoint 5: the order was changed"]),
        (
            [*FIVE[:2], FIVE[2].replace(b"03" * 32, b"04" * 32), *FIVE[3:]],
            ["file: checkpoint 3 was altered or is not ours: its signature is wrong"],
        ),
        (
            [*FIVE[:2], FIVE[2][:-10] + (b"A" if FIVE[2][-10:-9] != b"A" else b"B") + FIVE[2][-9:], *FIVE[3:]],
            ["file: checkpoint 3 was altered or is not ours: its signature is wrong"],
        ),
        (
            [*FIVE[:2], line(3, digest(FIVE[1]), [], keyring=OTHER), *FIVE[3:]],
            ["file: checkpoint 3 was altered or is not ours: its signature is wrong"],
        ),
        (
            [*FIVE[:2], line(3, digest(FIVE[1]), [], late=1), *FIVE[3:]],
            ["file: checkpoint 4 does not follow the one before it: another one stood there"],
        ),
        ([*FIVE[:2], b"", *FIVE[2:]], ["file: a line behind checkpoint 2 is no checkpoint"]),
        (
            [*FIVE[:2], FIVE[2][:50], *FIVE[3:]],
            ["file: a line behind checkpoint 2 is no checkpoint", "file: checkpoint 3 is missing"],
        ),
    ],
)
def test_what_was_done_to_checkpoints_is_said(lines: list[bytes], flaws: list[str]) -> None:
    assert examined(lines).flaws == flaws


def test_what_is_genuine_counts_also_behind_a_flaw_and_what_is_not_never_does() -> None:
    forged = line(3, digest(FIVE[1]), [(CASE, 99, b"x" * 32)], keyring=OTHER)
    found = examined([FIVE[0], FIVE[1], forged, FIVE[3], FIVE[4]])
    assert [number for _, _, number in found.heads.of(CASE)] == [1, 2, 4, 5]


def test_a_copy_kept_elsewhere_may_begin_later_but_has_no_gaps() -> None:
    assert examined(FIVE[2:], whole=False).flaws == []
    assert examined([FIVE[2], FIVE[4]], whole=False).flaws == ["file: checkpoint 4 is missing"]
    assert examined([], whole=False).flaws == []


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b'{"v":2}', b"\xff", b"[" * 100_000, FIVE[0].replace(b'"v":1', b'"v":2')]
)
def test_what_is_no_checkpoint_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a checkpoint"):
        parse(text)


def test_a_signature_in_another_place_is_none() -> None:
    value = json.loads(FIVE[0])
    moved = json.dumps({"signature": value.pop("signature"), **value}, separators=(",", ":")).encode()
    with pytest.raises(ValueError, match="not a checkpoint"):
        parse(moved)


def test_only_the_cases_asked_for_are_kept() -> None:
    heads = Heads()
    found = Examiner("file", KEYRING.public.signed, heads, only=(SECOND,))
    found.read(FIVE)
    assert list(heads.cases()) == [SECOND]
    assert found.flaws == []


def test_a_checkpoint_says_whose_key_it_is() -> None:
    one: Checkpoint = parse(FIVE[0])
    assert one.signed(KEYRING.public.signed)
    assert not one.signed(OTHER.public.signed)
    renamed = FIVE[0].replace(KEYRING.public.name.encode(), OTHER.public.name.encode())
    assert not parse(renamed).signed(KEYRING.public.signed)


def test_another_way_to_write_the_same_signature_is_not_ours() -> None:
    letter = FIVE[0][-5:-4]
    following = bytes([letter[0] + 1])
    other = FIVE[0][:-5] + following + FIVE[0][-4:]
    assert base64.b64decode(other[-90:-2]) == base64.b64decode(FIVE[0][-90:-2])
    assert not parse(other).signed(KEYRING.public.signed)
