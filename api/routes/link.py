"""The page behind a signed link. Opening it ends nothing and is on record; only a button counts (I7, R22)."""

from typing import Annotated

from fastapi import APIRouter, Form, Query
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from api import answer_page
from api.dependencies import DirectoryDep, PoolDep
from gateway.domain.outbox import PartyAnswer
from gateway.service.case_commands import answer_leg
from gateway.service.case_reading import read_link

__all__ = ["router"]

router = APIRouter(prefix="/r", include_in_schema=False)

_VIA = "link"
_Lang = Annotated[str | None, Query(max_length=8)]
_Field = Annotated[str, Form(max_length=500)]


@router.get("/{token}")
async def show_link(token: str, pool: PoolDep, directory: DirectoryDep, lang: _Lang = None) -> Response:
    """Show who needs help, as far as the role of the link may know."""
    view = await read_link(pool, directory, token, shown=True)
    return answer_page.shown(view, lang=answer_page.language(lang, view.locale))


@router.post("/{token}")
async def answer_link(
    token: str,
    pool: PoolDep,
    directory: DirectoryDep,
    answer: _Field = "",
    minutes: _Field = "",
    reason: _Field = "",
    more: _Field = "",
    lang: _Lang = None,
) -> Response:
    """Record what was pressed, then show the page again: reloading that sends nothing."""
    view = await read_link(pool, directory, token)
    language = answer_page.language(lang, view.locale)
    match answer:
        case "coming":
            given = PartyAnswer("coming", minutes=int(minutes) if minutes in map(str, answer_page.MINUTES) else None)
        case "arrived":
            given = PartyAnswer("arrived")
        case "cannot":
            given = PartyAnswer("cannot", reason=answer_page.reason(reason, more, language))
        case _:
            raise HTTPException(400, "No such button.")
    await answer_leg(pool, directory, view.leg_id, given, via=_VIA)
    return RedirectResponse(f"?lang={language}", 303)  # relative: a proxy may serve this under another path
