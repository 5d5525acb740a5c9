"""The published contracts: up to date, valid, in step with the code and with the documents about them."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from ruamel.yaml import YAML
from standardwebhooks import Webhook

from gateway.domain.kinds import EMERGENCIES, SERVICE, TECHNICAL
from protocols.okc import Down, Up, down_topic, notice_topic, up_topic
from schemas.export import MODELS, PUBLISHED, asyncapi, drift, main, render, schema_of
from schemas.reports import AlarmReport

DOCS = Path(__file__).parents[2] / "docs"
names = pytest.mark.parametrize("name", MODELS)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the JSON blocks of a document with the name of the message that each of them shows."""
    text = (DOCS / page).read_text(encoding="utf-8")
    marked = re.findall(r"<!-- (\w+) -->\s+```json\n(.*?)```", text, re.DOTALL)
    assert len(marked) == text.count("```json")
    return marked


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_the_published_files_are_up_to_date() -> None:
    assert drift(PUBLISHED) == [], "run `python -m schemas.export` and commit the result"


def test_check_names_what_drifts_and_how_to_mend_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "published"
    assert main(["--folder", str(folder)]) == 0
    assert main(["--check", "--folder", str(folder)]) == 0
    assert capsys.readouterr().err == ""
    (folder / "alarm.schema.json").write_text("{}")
    (folder / "asyncapi.yaml").unlink()
    assert main(["--check", "--folder", str(folder)]) == 1
    told = capsys.readouterr().err
    assert str(folder / "alarm.schema.json") in told
    assert str(folder / "asyncapi.yaml") in told
    assert "ack.schema.json" not in told
    assert "python -m schemas.export" in told
    assert not (folder / "asyncapi.yaml").exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text("{}")
    assert main(["--folder", str(tmp_path)]) == 0
    assert (tmp_path / "openapi.json").read_text() == "{}"
    assert main(["--check", "--folder", str(tmp_path)]) == 0


@names
def test_a_schema_is_valid_and_tells_who_it_is(name: str) -> None:
    schema = schema_of(name)
    Draft202012Validator.check_schema(schema)
    # AsyncAPI tools read payloads as draft 7.
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:onekey:{'okp' if name in ('notice', 'answer', 'audit') else 'okc'}:v1:{name}"
    assert schema["title"]
    for node in nodes(schema):
        for field, described in node.get("properties", {}).items():
            assert "description" in described, f"{name}: {field}"
        assert node.get("additionalProperties") is not False, "a receiver must allow for fields of later versions"


@names
def test_examples_keep_their_contract(name: str) -> None:
    schema = schema_of(name)
    for example in schema["examples"]:
        Draft202012Validator(schema).validate(example)
        MODELS[name].model_validate_json(json.dumps(example), strict=True)


def test_numbers_carry_their_units() -> None:
    units = {node["unit"] for name in MODELS for node in nodes(schema_of(name)) if "unit" in node}
    assert units == {"%", "dBm", "mV", "s", "°C", "°", "m", "min", "a"}


def test_a_schema_refuses_what_breaks_the_contract() -> None:
    validator = Draft202012Validator(schema_of("alarm"))
    for wrong in ({"v": 1}, {"kinds": ["sos"]}, {"v": 2, "kinds": ["sos"]}, {"v": 1, "kinds": []}):
        assert not validator.is_valid(wrong)
    assert validator.is_valid({"v": 1, "kinds": ["着火"], "colour": "red"})


def test_contract_and_domain_know_the_same_kinds() -> None:
    assert set(AlarmReport.KINDS) == EMERGENCIES | TECHNICAL | SERVICE


def test_asyncapi_has_every_topic() -> None:
    addresses = {channel["address"] for channel in asyncapi()["channels"].values()}
    assert addresses == {
        *(up_topic("{terminal}", kind) for kind in Up),
        *(down_topic("{terminal}", kind) for kind in Down),
        notice_topic("{party}"),
    }


def test_asyncapi_directions() -> None:
    channels = asyncapi()["channels"]
    for operation in asyncapi()["operations"].values():
        address = channels[operation["channel"]["$ref"].removeprefix("#/channels/")]["address"]
        assert operation["action"] == ("send" if "/up/" in address else "receive")
        assert operation["bindings"]["mqtt"]["retain"] is False
    assert asyncapi()["operations"]["sendAlarm"]["bindings"]["mqtt"]["qos"] == 1


def test_every_reference_of_asyncapi_leads_somewhere() -> None:
    document = YAML(typ="safe").load((PUBLISHED / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert document["asyncapi"] == "3.0.0"
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        file, _, pointer = reference.partition("#")
        if file:
            assert (PUBLISHED / file).is_file()
        target = document
        for part in pointer.split("/")[1:]:
            target = target[part]
    assert {f"./{name}" for name in render() if name.endswith(".schema.json")} - set(references) == {
        "./answer.schema.json",
        "./audit.schema.json",
    }


def test_rendering_is_repeatable() -> None:
    assert render() == render()


@pytest.mark.parametrize("page", ["terminals.md", "parties.md"])
def test_documents_show_messages_that_keep_their_contract(page: str) -> None:
    for name, text in blocks(page):
        Draft202012Validator(schema_of(name)).validate(json.loads(text))
        MODELS[name].model_validate_json(text, strict=True)


def test_the_document_for_terminals_shows_every_message_and_kind() -> None:
    assert {name for name, _ in blocks("terminals.md")} == set(MODELS) - {"notice", "answer", "audit"}
    text = (DOCS / "terminals.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \| \S+ \| (emergency|technical|service)", text, re.MULTILINE)
    assert dict(table) == {
        **dict.fromkeys(EMERGENCIES, "emergency"),
        **dict.fromkeys(TECHNICAL, "technical"),
        **dict.fromkeys(SERVICE, "service"),
    }


def test_the_pressed_examples_of_the_document_keep_the_contract() -> None:
    text = (DOCS / "terminals.md").read_text(encoding="utf-8")
    pressed = re.findall(r"-t (\S+)(?: -e \S+)? -m '(.*?)'", text)
    assert len(pressed) == 3
    for topic, payload in pressed:
        assert topic.startswith("okc/v1/860000000000001/up/")
        MODELS[topic.rpartition("/")[2]].model_validate_json(payload, strict=True)


def test_the_document_for_platforms_verifies_signatures() -> None:
    text = (DOCS / "parties.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(code, "parties.md", "exec"), scope)  # noqa: S102  (our own document, and it must work when pasted)
    secret = "whsec_aG90bGluZS1kZW1vLXNlY3JldC0wMDAwMDAwMDAwMDA="
    now = datetime.now(UTC)
    body = '{"type": "case.alert"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": "v1,AAAA " + Webhook(secret).sign("msg_1", now, body),
    }
    assert scope["verified"](secret, headers, body.encode())
    assert not scope["verified"](secret, headers, body.encode() + b" ")
    assert not scope["verified"](secret, headers | {"webhook-id": "msg_2"}, body.encode())
    assert not scope["verified"](secret, headers | {"webhook-signature": "v1,AAAA"}, body.encode())
    old = datetime(2026, 1, 1, tzinfo=UTC)
    stale = {
        "webhook-timestamp": str(int(old.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", old, body),
    }
    assert not scope["verified"](secret, headers | stale, body.encode())
