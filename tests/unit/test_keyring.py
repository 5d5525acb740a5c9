"""Everything secret at rest hangs on the master key: what it opens, and what it must not (D6, D15)."""

import base64
import os
import stat
import string
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.keyring import DataKey, ErasedKey, Keyring, KeyringError

MASTER, OTHER_MASTER = bytes(range(32)), bytes(range(1, 33))
KEYRING, OTHER = Keyring(MASTER), Keyring(OTHER_MASTER)
LEG = UUID("bd5f27ac-dd2f-5477-b191-013a582e1de4")
KEY_ID = UUID("7d0a1c52-51b5-4d1c-9d3a-64b5f4f0c2aa")


def fresh() -> DataKey:
    return KEYRING.unwrap(*KEYRING.new_key())


DATA_KEY, OTHER_DATA_KEY = fresh(), fresh()
TOKEN = KEYRING.link_token(LEG)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=8,
)
places = st.text(st.characters(codec="utf-8"), max_size=30)


# What was sealed, derived or sent by an earlier version. Who changes these locks every terminal and record out.


def test_the_hash_of_a_terminals_secret_never_changes() -> None:
    expected = "4f2c3c30bf40f5a8ba03041ca988cb1b730d48b4347717571f26b01c073a6b60"
    assert KEYRING.mac("terminal", "860000000000001", "secret").hex() == expected


def test_a_record_sealed_by_an_earlier_version_opens() -> None:
    wrapped = bytes.fromhex(
        "0000000000000000000000001e9c8594e359cfa2bbc1cbfdda3aaec390d2832eb85b87a3"
        "daf9046921c5155d2b93252bca3437182109c4a0098bfd1b"
    )
    sealed = bytes.fromhex(
        "000102030405060708090a0b412702191ae9669ae0f50e495f4a4c5e06740f74d084c192cd51701eeb1b2bc814cb1bd5"
    )
    assert KEYRING.unwrap(KEY_ID, wrapped).open(sealed, about="person wang-xiulan") == {"name": "王秀兰"}


def test_a_link_sent_by_an_earlier_version_is_read() -> None:
    assert KEYRING.read_link("vV8nrN0vVHexkQE6WC4d5BxIjY74_oBK-HPfqmy5V30") == LEG


# Sealing


@given(values, places)
def test_what_is_sealed_opens(value: Any, about: str) -> None:
    assert DATA_KEY.open(DATA_KEY.seal(value, about=about), about=about) == value


@given(values, places, places)
def test_a_ciphertext_opens_in_its_own_place_only(value: Any, about: str, elsewhere: str) -> None:
    assume(about != elsewhere)
    with pytest.raises(KeyringError):
        DATA_KEY.open(DATA_KEY.seal(value, about=about), about=elsewhere)


@given(values)
def test_a_ciphertext_opens_with_its_own_key_only(value: Any) -> None:
    with pytest.raises(KeyringError):
        OTHER_DATA_KEY.open(DATA_KEY.seal(value, about="x"), about="x")


@given(values, st.data())
def test_a_ciphertext_with_one_wrong_bit_does_not_open(value: Any, data: st.DataObject) -> None:
    sealed = bytearray(DATA_KEY.seal(value, about="x"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(KeyringError):
        DATA_KEY.open(bytes(sealed), about="x")


@given(st.binary(max_size=64))
def test_bytes_that_nobody_sealed_do_not_open(sealed: bytes) -> None:
    with pytest.raises(KeyringError):
        DATA_KEY.open(sealed, about="x")


def test_the_same_value_is_never_sealed_alike() -> None:
    assert len({DATA_KEY.seal("王秀兰", about="x") for _ in range(100)}) == 100


def test_a_ciphertext_does_not_show_the_value() -> None:
    assert "王秀兰".encode() not in DATA_KEY.seal({"name": "王秀兰"}, about="x")


# Wrapping


def test_two_data_keys_are_two() -> None:
    (one, wrapped), (other, other_wrapped) = KEYRING.new_key(), KEYRING.new_key()
    assert one != other
    assert wrapped != other_wrapped


def test_a_data_key_is_unwrapped_by_every_gateway_with_the_same_master_key() -> None:
    key_id, wrapped = KEYRING.new_key()
    sealed = KEYRING.unwrap(key_id, wrapped).seal("x", about="y")
    assert Keyring(MASTER).unwrap(key_id, wrapped).open(sealed, about="y") == "x"


def test_another_master_key_unwraps_nothing() -> None:
    key_id, wrapped = KEYRING.new_key()
    with pytest.raises(KeyringError, match="not the one that sealed this database"):
        OTHER.unwrap(key_id, wrapped)


def test_a_wrapped_key_in_the_row_of_another_is_refused() -> None:
    _, wrapped = KEYRING.new_key()
    with pytest.raises(KeyringError):
        KEYRING.unwrap(uuid4(), wrapped)


@given(st.binary(max_size=80))
def test_bytes_that_nobody_wrapped_are_refused(wrapped: bytes) -> None:
    with pytest.raises(KeyringError):
        KEYRING.unwrap(KEY_ID, wrapped)


def test_an_erased_key_stays_erased_even_where_it_was_used_before() -> None:
    key_id, wrapped = KEYRING.new_key()
    KEYRING.unwrap(key_id, wrapped)
    with pytest.raises(ErasedKey, match=str(key_id)):
        KEYRING.unwrap(key_id, None)


# The master key


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_master_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyringError, match=f"{length} bytes"):
        Keyring(bytes(length))


def test_a_master_key_is_read_from_text() -> None:
    read = Keyring.from_text(base64.b64encode(MASTER).decode())
    assert read.mac("x", "y") == KEYRING.mac("x", "y")


@given(st.text(max_size=43) | st.text(string.ascii_letters + string.digits + "+/=", max_size=43))
def test_any_shorter_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(KeyringError):
        Keyring.from_text(text)


def test_a_master_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    first = Keyring.load(path, create=True)
    text = path.read_bytes()
    assert Keyring.load(path, create=True).mac("x", "y") == first.mac("x", "y")
    assert Keyring.load(path, create=False).mac("x", "y") == first.mac("x", "y")
    assert path.read_bytes() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]


def test_a_new_master_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    before = os.umask(0)
    try:
        Keyring.load(path, create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_installations_have_two_master_keys(tmp_path: Path) -> None:
    one, other = (Keyring.load(tmp_path / name, create=True) for name in ("one", "other"))
    assert one.mac("x", "y") != other.mac("x", "y")


def test_a_missing_master_key_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    with pytest.raises(KeyringError, match=str(path)):
        Keyring.load(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601])
def test_a_master_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    Keyring.load(path, create=True)
    path.chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600"):
        Keyring.load(path, create=True)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not base64!", id="no base64"),
        pytest.param(base64.b64encode(bytes(16)), id="too short"),
        pytest.param(bytes(range(224, 256)), id="the bare bytes, not as base64"),
    ],
)
def test_a_malformed_master_key_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyringError):
        Keyring.load(path, create=True)
    assert path.read_bytes() == content


# Keyed hashes


@given(st.lists(st.text(string.ascii_letters, max_size=5), min_size=1, max_size=4), st.data())
def test_neither_purpose_nor_part_nor_their_borders_can_be_exchanged(parts: list[str], data: st.DataObject) -> None:
    other = data.draw(
        st.permutations(parts)
        | st.just(["".join(parts)])
        | st.just([*parts, ""])
        | st.lists(st.text(string.ascii_letters, max_size=5), min_size=1, max_size=4)
    )
    assert (KEYRING.mac(*parts) == KEYRING.mac(*other)) == (parts == other)


def test_another_master_key_makes_other_hashes() -> None:
    assert KEYRING.mac("terminal", "a", "b") != OTHER.mac("terminal", "a", "b")


# Links


@given(st.uuids())
def test_a_link_leads_to_its_leg(leg: UUID) -> None:
    token = KEYRING.link_token(leg)
    assert KEYRING.read_link(token) == leg
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@given(st.uuids())
def test_a_link_of_another_installation_leads_nowhere(leg: UUID) -> None:
    assert OTHER.read_link(KEYRING.link_token(leg)) is None


@given(st.uuids(), st.uuids())
def test_the_mark_of_one_leg_opens_no_other(leg: UUID, other: UUID) -> None:
    assume(leg != other)
    mark = base64.urlsafe_b64decode(KEYRING.link_token(leg) + "=")[16:]
    assert KEYRING.read_link(base64.urlsafe_b64encode(other.bytes + mark).rstrip(b"=").decode()) is None


@given(st.integers(0, 255))
def test_a_link_with_one_wrong_bit_leads_nowhere(bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TOKEN + "="))
    raw[bit // 8] ^= 1 << bit % 8
    assert KEYRING.read_link(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()) is None


@given(st.integers(0, len(TOKEN) - 1), st.characters() | st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_no_other_letters_lead_to_another_leg(place: int, letter: str) -> None:
    # Not "nowhere": the last letter has bits that mean nothing, and base64 passes over what is no letter of its own.
    assert KEYRING.read_link(TOKEN[:place] + letter + TOKEN[place + 1 :]) in (None, LEG)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_text_that_we_did_not_make_leads_anywhere(token: str) -> None:
    assert KEYRING.read_link(token) is None


@pytest.mark.parametrize("token", [TOKEN[:-1], TOKEN[1:], TOKEN + "A", TOKEN[:22], "", "=", "é" * 43])
def test_part_of_a_link_leads_nowhere(token: str) -> None:
    assert KEYRING.read_link(token) is None
