"""Requests to SMS providers: the two worked examples of the documentation, filled in and signed."""

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from gateway.notify.channels.http_sms import request
from gateway.site.model import HttpSmsEntry, to_channel

NOW = datetime(2026, 11, 27, 6, 31, 5, 412000, tzinfo=UTC)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "modems.md"


def examples() -> list[dict[str, Any]]:
    """The channels in the documentation, as they stand there."""
    blocks = re.findall(r"<!-- http_sms -->\n```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return [YAML(typ="safe", pure=True).load(block)["channels"][0] for block in blocks]


def filled(channel: dict[str, Any], text: str = "【求助】跌倒") -> tuple[bytes, dict[str, str]]:
    options = to_channel(HttpSmsEntry.model_validate(channel)).options
    return request(options, number="+8613812345678", text=text, id="msg_1", now=NOW, nonce="n0nce")


def test_a_provider_that_takes_a_form() -> None:
    body, headers = filled(examples()[0])
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Authorization"].startswith("Basic ")
    assert parse_qs(body.decode()) == {"To": ["+8613812345678"], "From": ["+15005550006"], "Body": ["【求助】跌倒"]}


def test_a_provider_that_takes_json_and_a_signature() -> None:
    body, headers = filled(examples()[1], text='он сказал "помогите"\n')
    assert headers["Content-Type"] == "application/json"
    sent = json.loads(body)
    assert sent["phone"] == "13812345678"
    assert sent["content"] == 'он сказал "помогите"\n'
    assert sent["timestamp"] == "1795761065412"
    signed = hashlib.md5(f"{sent['account']}the-password{sent['timestamp']}".encode()).hexdigest()  # noqa: S324
    assert sent["sign"] == signed


@pytest.mark.parametrize("written", ["hex", "base64"])
def test_hmacs(written: str) -> None:
    channel = {
        "kind": "http_sms",
        "url": "https://sms.example/",
        "body": '{"n":"{number}","t":"{text}"}',
        "headers": {"X-Signature": "{signature}"},
        "sign": {
            "how": "hmac-sha256",
            "over": "{timestamp}.{nonce}.{number}.{text}",
            "secret": "s",
            "written": written,
        },
    }
    _, headers = filled(channel)
    digest = hmac.digest(b"s", "1795761065.n0nce.+8613812345678.【求助】跌倒".encode(), "sha256")
    assert headers["X-Signature"] == (digest.hex() if written == "hex" else base64.b64encode(digest).decode())


@pytest.mark.parametrize("body", ['{"t":"{text}"}', '{"n":"{number}"}', '{"n":"{number}","t":"{text}","x":"{nobody}"}'])
def test_a_template_that_cannot_work_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(HttpSmsEntry).validate_python({"kind": "http_sms", "url": "https://sms.example/", "body": body})


@given(st.text(max_size=100))
def test_no_text_breaks_out_of_its_place(text: str) -> None:
    text = text.encode("utf-8", errors="replace").decode()
    body, _ = filled(examples()[1], text=text)
    assert json.loads(body)["content"] == text
    body, _ = filled(examples()[0], text=text)
    assert parse_qs(body.decode(), keep_blank_values=True)["Body"] == [text]
    assert set(parse_qs(body.decode(), keep_blank_values=True)) == {"To", "From", "Body"}
