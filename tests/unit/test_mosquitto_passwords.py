"""Passwords as Mosquitto keeps them."""

import base64

import pytest

from gateway.embedded.mosquitto import hashed, matches

# Made by «mosquitto_passwd -b» of Mosquitto 2.0.11 for the passwords beside them.
REAL = [
    (
        "s1",
        "$7$101$VNdbhfteVOKc2K1A$9EDy8C2ET/jpXHbwznRLtN08yVJtKNIlvAb+8pcq83H642qjOtvh0XojGsOtL860aMHQVA8GriX1wT5R1P3SJw==",
    ),
    (
        "g",
        "$7$101$QNqm970AA1c6nFDV$zbP6GSGZ0hnw2ZExZeA+yLj5ndKkLenjZufH7z/uGhpU4LXg0cZRsvB20moAyBY3gN71jdScpB0FPc0K5kaKag==",
    ),
]


@pytest.mark.parametrize(("password", "kept"), REAL)
def test_we_make_what_mosquitto_makes(password: str, kept: str) -> None:
    salt = base64.b64decode(kept.split("$")[3])
    assert hashed(password, salt=salt) == kept
    assert matches(password, kept)
    assert not matches(password + "x", kept)


@pytest.mark.parametrize("kept", ["", "s1", "$7$", "$7$x$y$z", "$6$abc$def", "$7$101$====$AAAA", "$7$0$AAAA$AAAA"])
def test_a_damaged_line_matches_nothing(kept: str) -> None:
    assert not matches("s1", kept)
