"""Numbers, answers by SMS and key, and the settings of modems."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config import ModemSettings, load
from gateway.domain.answers import LETTERS, answer_of_key, free_code, read_answer
from gateway.domain.phones import is_emergency_line, masked, tail
from gateway.embedded.supervisor import as_environment


@pytest.mark.parametrize(
    "forms",
    [
        ("+8613812345678", "13812345678", "8613812345678", "008613812345678", "138 1234 5678"),
        ("+862588011234", "02588011234", "025-8801 1234"),
        ("+861088011234", "01088011234"),
        ("10086",),
        ("10690000123456",),
    ],
)
def test_a_number_is_the_same_however_it_is_written(forms: tuple[str, ...]) -> None:
    assert len({tail(form) for form in forms}) == 1


def test_numbers_that_differ_differ() -> None:
    numbers = ["+8613812345678", "+8613812345679", "+862588011234", "10086", "10010", "Vodafone", "110"]
    assert len({tail(number) for number in numbers}) == len(numbers)


def test_what_a_list_shows_of_a_number_tells_nobody_the_number() -> None:
    assert masked("+8613812345678") == "+86138****5678"
    assert masked("10086") == "10086"
    assert masked("8801123") == "****23"


@pytest.mark.parametrize(
    ("said", "answer", "letter"),
    [
        ("1", "coming", None),
        (" １ ", "coming", None),
        ("1。", "coming", None),
        ("2", "arrived", None),
        ("0", "cannot", None),
        ("1B", "coming", "B"),
        ("0 c", "cannot", "C"),
        ("1，10分钟", "coming", None),
        ("1B 马上", "coming", "B"),
        ("马上来", "coming", None),
        ("来不了！", "cannot", None),
        ("On my way.", "coming", None),
        ("收到", "accepted", None),
        ("120 已经叫了", None, None),
        ("1000", None, None),
        ("我1点到", None, None),
        ("help is coming", None, None),
        ("10086", None, None),
        ("", None, None),
        ("1st floor", None, None),
        ("1am", None, None),
        ("1 a few minutes", "coming", None),
        ("1 b, coming", "coming", "B"),
        ("1AB", "coming", "AB"),
        ("1没空", None, None),
        ("1不来了", None, None),
        ("2没到", None, None),
        ("1 not now", None, None),
        ("0马上来", None, None),
        ("1没问题", "coming", None),
        ("2 没人开门", "arrived", None),
        ("1没带钥匙，马上来", "coming", None),
        ("1不好意思，马上到", "coming", None),
        ("1，不在家但马上赶过去", "coming", None),
        ("1 can't talk, coming", "coming", None),
        ("1 not far", "coming", None),
        ("2还没到", None, None),
        ("1 no problem", "coming", None),
        ("0不来了", "cannot", None),
    ],
)
def test_answers_are_read(said: str, answer: str | None, letter: str | None) -> None:
    read = read_answer(said)
    assert (read.answer, read.code) == (answer, letter)


def test_minutes_and_words_go_along() -> None:
    read = read_answer("1，10分钟到")
    assert (read.answer, read.minutes, read.text) == ("coming", 10, "10分钟到")


@given(st.text(max_size=200))
def test_whatever_is_written_is_an_answer_or_words(said: str) -> None:
    read = read_answer(said, {"A", "AA"})
    assert read.answer in (None, "coming", "arrived", "cannot", "accepted")
    assert read.code is None or set(read.code) <= set(LETTERS)


def test_only_three_keys_answer() -> None:
    assert [answer_of_key(keys) for keys in ("1", "2", "0", "10", "5", "#1", "")] == [
        *("coming", "arrived", "cannot", "coming"),
        *(None, None, None),
    ]


def test_letters_are_given_out_one_by_one() -> None:
    used: set[str] = set()
    assert free_code(used, urgent=False) == "AA"
    for expected in LETTERS:
        assert free_code(used, urgent=True) == expected
        used.add(expected)
    while len(used) < 500:
        code = free_code(used, urgent=True)
        assert code not in used
        assert read_answer(f"1{code}", used | {code}).code == code
        used.add(code)
    assert not {"I", "O"} & set(LETTERS)


def test_a_pin_is_digits_and_is_never_shown() -> None:
    with pytest.raises(ValidationError):
        ModemSettings.model_validate({"path": "/dev/x", "pin": "12a4"})
    settings = load(modems=[{"path": "/dev/x", "pin": "4711"}])
    assert "4711" not in json.dumps(settings.shown(), default=str)
    assert "4711" not in repr(settings)


def test_modems_reach_the_programs_of_the_supervisor() -> None:
    settings = load(modems=[{"path": "/dev/x", "pin": "4711", "power_cycle": ["uhubctl", "{path}"]}])
    written = json.loads(as_environment(settings)["ONEKEY_MODEMS"])
    assert [ModemSettings.model_validate(one) for one in written] == settings.modems


@pytest.mark.parametrize("number", ["120", "119", "110", "025120", "0512-120", "+8625120", "+86120", "0086110", "999"])
def test_lines_that_no_machine_calls(number: str) -> None:
    assert is_emergency_line(number)


@pytest.mark.parametrize("number", ["+8613812345120", "02588011120", "12349", "10086", "96120", "+862588011119"])
def test_lines_that_only_look_like_those(number: str) -> None:
    assert not is_emergency_line(number)
