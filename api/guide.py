"""The guide to the API as one page without anything from elsewhere: it has to work in a closed network."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from api.html import Html, element, style

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#777;--code:#8881}
body{margin:0 auto;max-width:900px;padding:24px 16px 80px;font:16px/1.55 system-ui,sans-serif}
h1{margin:0 0 8px}
h2{margin:40px 0 8px;border-bottom:1px solid var(--line)}
article{margin:0 0 10px;border:1px solid var(--line);border-radius:8px;padding:0 14px}
summary{padding:10px 0;cursor:pointer;overflow-wrap:anywhere}
summary b{display:inline-block;min-width:52px;color:#0b7a3b}
summary b.post{color:#1557b8}
summary span{color:var(--soft)}
code,pre{font:14px/1.5 ui-monospace,monospace;background:var(--code);border-radius:6px}
code{padding:1px 5px}
pre{padding:10px 12px;overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:0 0 12px}
td{border-top:1px solid var(--line);padding:5px 10px 5px 0;vertical-align:top}
td:first-child{white-space:nowrap}
.soft{color:var(--soft)}
"""

_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}


def page(document: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the page for an OpenAPI document, and the headers to send with it."""
    body = element(
        "body",
        element("h1", f"{document['info']['title']} API"),
        *(element("p", part.replace("`", "")) for part in document["info"]["description"].split("\n\n")),
        element(
            "pre",
            "onekey key create NAME --role operator\n"
            "curl -H 'Authorization: Bearer okk_…' http://127.0.0.1:8080/v1/cases\n"
            "curl -H 'Authorization: Bearer okk_…' http://127.0.0.1:8080/v1/openapi.json",
        ),
        *(section for tag in document["tags"] for section in _tag(document, tag)),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width,initial-scale=1"),
        element("title", "onekey API"),
        style(_STYLE),
    )
    return "<!doctype html>" + element("html", head, body, lang="en"), _HEADERS


def _tag(document: Mapping[str, Any], tag: Mapping[str, str]) -> Iterator[Html]:
    yield element("h2", tag["name"])
    yield element("p", tag["description"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if tag["name"] in operation["tags"]:
                yield element("article", _operation(document, path, method, operation))


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> Html:
    told = operation["description"]
    parameters = [
        _row(parameter["name"], parameter["in"], parameter.get("description") or "")
        for parameter in operation.get("parameters", ())
    ]
    responses = [_row(status, response["description"]) for status, response in operation["responses"].items()]
    return element(
        "details",
        element(
            "summary",
            element("b", method.upper(), class_=method),
            element("code", path),
            element("span", " ", told.partition("\n")[0]),
        ),
        *(element("p", part) for part in told.split("\n\n")[1:]),
        element("table", *parameters) if parameters else None,
        *_examples(document, "Send", operation.get("requestBody", {})),
        *_examples(document, "Receive", operation["responses"].get("200", operation["responses"].get("201", {}))),
        element("table", *responses),
    )


def _row(name: str, *cells: str) -> Html:
    return element("tr", element("td", element("code", name)), *(element("td", cell) for cell in cells))


def _examples(document: Mapping[str, Any], title: str, message: Mapping[str, Any]) -> Iterator[Html]:
    """Yield the examples that the model of a message has, or its fields when it has none."""
    for content in message.get("content", {}).values():
        if "example" in content:
            yield element("pre", content["example"])
            continue
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        model = document["components"]["schemas"].get(name, {})
        if not model.get("properties"):
            continue
        yield element("p", f"{title} ", element("code", name), class_="soft")
        for example in model.get("examples", ()):
            yield element("pre", json.dumps(example, ensure_ascii=False, indent=2))
        rows = [_row(field, schema.get("description", "")) for field, schema in model["properties"].items()]
        yield element("table", *rows)
