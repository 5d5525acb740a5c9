"""Around every request: a bound on its body, headers for what must not be kept, one line in the log."""

import logging
from time import monotonic

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Envelope"]

_log = logging.getLogger("api.access")

LARGEST_BODY = 65_536


class Envelope:
    """Wraps the routes. The log names the route and the id of the key: never the path of a link, a query or a body."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = monotonic()
        status = 0
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:
                raise HTTPException(413, f"A body has at most {LARGEST_BODY} bytes.")
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        finally:
            route = getattr(scope.get("route"), "path", "?")
            _log.log(
                logging.DEBUG if route.startswith("/health") else logging.INFO,
                "request",
                extra={
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "key": scope.get("state", {}).get("key", "-"),
                    "took_ms": round((monotonic() - began) * 1000, 1),
                },
            )
