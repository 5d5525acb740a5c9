"""Write the published contracts for firmware vendors and platforms, or check that they are up to date.

    python -m schemas.export            writes schemas/published/*.schema.json, asyncapi.yaml and sms-alarm.json
    python -m schemas.export --check    exits 1 when they differ from the code

Files that this module does not know are left alone: ``openapi.json`` comes from the API.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from schemas.audit import AuditMessage
from schemas.commands import Ack, Command, Progress
from schemas.notices import Answer, Notice
from schemas.reports import AlarmReport, EventReport, FixReport, HeartbeatReport, ResultReport
from schemas.sms import LAYOUT

__all__ = ["MODELS", "PUBLISHED", "asyncapi", "drift", "main", "render", "schema_of"]

_CLAUSES = re.compile(r" \([RDI]\d+(, [RDI]\d+)*\)")

PUBLISHED = Path(__file__).parent / "published"

_REPORTS: Mapping[str, type[BaseModel]] = {
    "alarm": AlarmReport,
    "heartbeat": HeartbeatReport,
    "fix": FixReport,
    "event": EventReport,
    "result": ResultReport,
}
_ORDERS: Mapping[str, type[BaseModel]] = {"ack": Ack, "command": Command, "progress": Progress}
_PARTY: Mapping[str, type[BaseModel]] = {"notice": Notice, "answer": Answer, "audit": AuditMessage}
_BY_HTTP_ALONE = frozenset({"answer", "audit"})

MODELS: Mapping[str, type[BaseModel]] = {**_REPORTS, **_ORDERS, **_PARTY}
"""Every published message by the name of its file."""


class _WithoutFieldTitles(GenerateJsonSchema):
    """Pydantic repeats the name of every field as its title; a reader learns nothing from it."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  (pydantic's signature)
        return False


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the message `name`."""
    schema = MODELS[name].model_json_schema(schema_generator=_WithoutFieldTitles)
    dialect = "okp" if name in _PARTY else "okc"
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:onekey:{dialect}:v1:{name}",
        **_for_others(schema),
    }


def _for_others(value: Any) -> Any:
    """Return a schema as it is published.

    It allows for fields of later versions, which whoever receives a message has to ignore, and its
    descriptions are Markdown without the numbers of our own clauses.
    """
    match value:
        case dict():
            return {
                key: _prose(item) if key == "description" and isinstance(item, str) else _for_others(item)
                for key, item in value.items()
                if (key, item) != ("additionalProperties", False)
            }
        case list():
            return [_for_others(item) for item in value]
        case _:
            return value


def _prose(docstring: str) -> str:
    return _CLAUSES.sub("", docstring).replace("``", "`")


def _summary(name: str) -> str:
    return _prose(MODELS[name].__doc__ or "").partition("\n")[0]


def _text(text: str) -> str:
    """Return text that stays in lines in YAML."""
    block: str = LiteralScalarString(cleandoc(text) + "\n")
    return block


def _message(name: str) -> dict[str, Any]:
    schema = schema_of(name)
    return {
        "name": name,
        "title": schema["title"],
        "summary": _summary(name),
        "contentType": "application/json",
        "payload": {"$ref": f"./{name}.schema.json"},
        "examples": [{"payload": example} for example in schema["examples"]],
    }


def _channel(name: str, address: str, parameter: str) -> dict[str, Any]:
    return {
        "address": address,
        "title": name,
        "description": _summary(name),
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {parameter: {"$ref": f"#/components/parameters/{parameter}"}},
    }


def _operation(name: str, action: str, qos: int, summary: str, *, reply: str | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"mqtt": {"qos": qos, "retain": False, "bindingVersion": "0.2.0"}},
    }
    if reply is not None:
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{reply}"},
            "messages": [{"$ref": f"#/channels/{reply}/messages/{reply}"}],
        }
    return operation


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0.0 document of the MQTT side, as seen by a terminal."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:onekey:okc:v1",
        "info": {
            "title": "onekey over MQTT",
            "version": "1.0.0",
            "description": _text(
                """
                How one-key terminals talk to the gateway, and how a party's platform hears of cases.

                Written from the terminal's side: the terminal *sends* what the gateway takes in and *receives* what the
                gateway says. Only `receiveNotice` belongs to another application, the platform of a party.

                A message may come twice, and fields that you do not know are to be ignored. The payloads are JSON
                Schema 2020-12; they use nothing that draft 7 reads differently. See docs/terminals.md and
                docs/parties.md.
                """
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": "{host}:{port}",
                "protocol": "mqtt",
                "protocolVersion": "3.1.1",
                "title": "Broker of the gateway",
                "description": _text(
                    """
                    Client id and user name of a terminal are its id; a second connection adds `~` and a suffix to the
                    client id. Sites with their own broker may offer MQTT 5 and TLS as well.
                    """
                ),
                "variables": {
                    "host": {"default": "127.0.0.1", "description": "Where the broker listens."},
                    "port": {"default": "1883", "description": "1883 plain, 8883 with TLS."},
                },
                "security": [{"$ref": "#/components/securitySchemes/secret"}],
                "bindings": {"mqtt": {"cleanSession": True, "keepAlive": 60, "bindingVersion": "0.2.0"}},
            }
        },
        "channels": {
            **{name: _channel(name, f"okc/v1/{{terminal}}/up/{name}", "terminal") for name in _REPORTS},
            **{name: _channel(name, f"okc/v1/{{terminal}}/down/{name}", "terminal") for name in _ORDERS},
            "notice": _channel("notice", "okp/v1/{party}/notice", "party"),
        },
        "operations": {
            "sendAlarm": _operation(
                "alarm", "send", 1, "Ask for help, again and again until the ack for it comes.", reply="ack"
            ),
            "sendHeartbeat": _operation("heartbeat", "send", 1, "Say that the terminal is alive; QoS 0 will do."),
            "sendFix": _operation("fix", "send", 1, "Say where the terminal is; QoS 0 will do."),
            "sendEvent": _operation("event", "send", 1, "Say what happened; QoS 0 will do."),
            "sendResult": _operation("result", "send", 1, "Say how a command ended."),
            "receiveAck": _operation("ack", "receive", 0, "Learn that an alarm is on disk: stop repeating it."),
            "receiveCommand": _operation("command", "receive", 0, "Do what the gateway asks.", reply="result"),
            "receiveProgress": _operation("progress", "receive", 0, "Show or say how far help is."),
            "receiveNotice": _operation(
                "notice", "receive", 1, "Platform of a party: hear of a case. `id` is added, the same on every retry."
            ),
        },
        "components": {
            "messages": {name: _message(name) for name in MODELS if name not in _BY_HTTP_ALONE},
            "parameters": {
                "terminal": {
                    "description": "Id of the terminal: A-Z a-z 0-9 _ -, at most 64.",
                    "examples": ["860000000000001"],
                },
                "party": {
                    "description": "Id of the party: A-Z a-z 0-9 _ -, at most 64.",
                    "examples": ["hotline-12349"],
                },
            },
            "securitySchemes": {
                "secret": {
                    "type": "userPassword",
                    "description": "A terminal: its id, its secret. A platform: party~ before its id, its password.",
                }
            },
        },
    }


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=2) + "\n"


def _yaml(document: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    stream.write("# Generated by `python -m schemas.export`; change the models instead.\n")
    yaml.dump(document, stream)
    return stream.getvalue()


def render() -> dict[str, str]:
    """Return every published file that belongs to this module: its name and its text."""
    files = {f"{name}.schema.json": _json(schema_of(name)) for name in MODELS}
    files["asyncapi.yaml"] = _yaml(asyncapi())
    files["sms-alarm.json"] = json.dumps(LAYOUT.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"
    return files


def drift(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that are missing or differ from the code."""
    return [
        name
        for name, text in render().items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the published files, or with ``--check`` compare them. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description="Write the published contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file differs")
    parser.add_argument("--folder", type=Path, default=PUBLISHED, help="where the files are (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.check:
        drifting = drift(options.folder)
        for name in drifting:
            sys.stderr.write(f"{options.folder / name} is not what the code says\n")
        if drifting:
            sys.stderr.write("run `python -m schemas.export` and commit the result\n")
        return 1 if drifting else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (options.folder / name).write_bytes(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
