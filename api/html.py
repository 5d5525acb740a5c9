"""HTML built from values: everything that is not built here is escaped."""

from html import escape

__all__ = ["Html", "element", "join"]

_VOID = frozenset({"br", "col", "hr", "input", "meta"})


class Html(str):
    """Text that is HTML already. Only this module makes any."""

    __slots__ = ()


def join(*parts: str | None) -> Html:
    """Return the parts in a row; a None is left out, and a plain text is escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts if part is not None))


def element(name: str, *parts: str | None, **attributes: str | bool | None) -> Html:
    """Return an element. An attribute that is None or False is left out; ``class_`` stands for class."""
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    inside = "" if name in _VOID else f"{join(*parts)}</{name}>"
    return Html(f"<{name}{''.join(written)}>{inside}")


def style(css: str) -> Html:
    """Return a style element; `css` is ours and holds no value from outside."""
    return Html(f"<style>{css}</style>")
