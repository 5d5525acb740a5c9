"""The names behind seat numbers (坐席姓名): the work order shows them, everything else knows numbers only."""

from dataclasses import dataclass

from gateway.domain.case import NotFound
from gateway.service.order_content import name_of
from gateway.service.work_orders import only_site
from gateway.store import work_orders
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["Operator", "drop_operator", "list_operators", "name_operator"]


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who works at a seat."""

    id: str
    site: str
    name: str | None


async def list_operators(pool: Pool, directory: Directory) -> list[Operator]:
    """Return all whose names are known, by seat number."""
    async with pool.connection() as conn:
        rows = await work_orders.operators(conn)
        return [Operator(row.id, row.site_id, await name_of(conn, directory.keyring, row.id)) for row in rows]


async def name_operator(
    pool: Pool, directory: Directory, operator: str, *, name: str, site: str | None = None
) -> Operator:
    """Say who works at a seat. Work orders made before keep the name that they were made with.

    Raises:
        NotFound: No such site.
        StateConflict: There are several sites, and none was named.
    """
    async with pool.connection() as conn, conn.transaction():
        view = await only_site(conn, directory, site)
        sealed = view.key.seal({"name": name}, about=f"operator {operator}")
        await work_orders.set_operator(conn, operator, site=view.id, sealed=sealed, key=view.key.id)
    return Operator(operator, view.id, name)


async def drop_operator(pool: Pool, operator: str) -> None:
    """Forget who works at a seat.

    Raises:
        NotFound: Nobody is known there.
    """
    async with pool.connection() as conn:
        if not await work_orders.drop_operator(conn, operator):
            raise NotFound(f"Nobody is known at the seat {operator}.")
