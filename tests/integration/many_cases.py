"""A year of a busy hotline, made by the database in seconds: closed cases with facts, steps and work orders.

python -m tests.integration.many_cases 100000       measures how long figures over so many take
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg

from gateway.embedded.postgres import Postgres
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.figures import figures_of
from gateway.service.run_procedures import store_shipped
from gateway.service.work_orders import Wanted, list_orders
from gateway.site.load import load
from gateway.store.directory import Directory
from gateway.store.migrate import migrate
from gateway.store.pool import open_pool
from tests.conftest import ROOT

__all__ = ["fill"]

_OPERATORS = 40


def fill(conn: psycopg.Connection, *, site: str, count: int) -> None:
    """Put `count` closed cases into the tables, spread over the 360 days before now. `conn` is the owner's."""
    with conn.transaction():
        conn.execute("ALTER TABLE cases DISABLE TRIGGER USER")
        conn.execute("ALTER TABLE fact DISABLE TRIGGER USER")
        conn.execute("SELECT setseed(0.5)")
        conn.execute(
            """
            CREATE TEMP TABLE made ON COMMIT DROP AS
            SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS run, 'seat-' || n %% %s AS seat,
                   now() - interval '360 days' * (n::float8 / %s) AS at, random() AS luck,
                   interval '1 s' * (2 + 9 * random()) AS answer
            FROM generate_series(1, %s) AS n
            """,
            (_OPERATORS, count, count),
        )
        conn.execute(
            """
            INSERT INTO cases (id, subject, class, state, district, site_id, kinds, received_at, opened_at, owner,
                               first_owner, owned_at, human_at, safe_at, closed_at, closed_by, outcome,
                               false_alarm, key_id, wake_at)
            SELECT m.id, 'household:' || m.n, CASE WHEN m.n %% 10 = 0 THEN 'service' ELSE 'emergency' END, 'closed',
                   '32010' || m.n %% 12, s.id, '{sos}', m.at, m.at, m.seat, m.seat, m.at + m.answer,
                   m.at + least(m.answer, interval '20 s' * (0.5 + m.luck)),
                   m.at + interval '30 min', m.at + interval '40 min', m.seat,
                   CASE WHEN m.luck < 0.2 THEN 'false_alarm' ELSE 'helped' END,
                   CASE WHEN m.luck < 0.1 THEN 'accidental' WHEN m.luck < 0.2 THEN 'other' END, s.key_id, NULL
            FROM made m CROSS JOIN site s WHERE s.id = %s
            """,
            (site,),
        )
        conn.execute(
            "INSERT INTO fact (case_id, fact, role, by_whom, at) "
            "SELECT m.id, f.fact, f.role, 'party:x', m.at + f.after * (0.5 + m.luck) FROM made m CROSS JOIN (VALUES "
            "('informed', 'guardian', interval '20 s'), ('dispatched', 'ambulance_120', interval '90 s'), "
            "('on_scene', 'ambulance_120', interval '9 min')) AS f (fact, role, after)"
        )
        conn.execute(
            "INSERT INTO run (id, case_id, procedure, version, started_at, ended_at) "
            "SELECT run, id, 'nanjing-emergency', 1, at, at + interval '1 day' FROM made"
        )
        conn.execute(
            """
            INSERT INTO step (id, run_id, case_id, district, name, does, seat, state, planned_at, started_at, due_at,
                              breached_at, ended_at, result)
            SELECT gen_random_uuid(), m.run, m.id, '320102', t.name, 'task', 'A', 'done', m.at, m.at, m.at + t.due,
                   CASE WHEN m.luck * t.share > 0.95 THEN m.at + t.due END, m.at + t.due * m.luck * 1.05, 'done'
            FROM made m CROSS JOIN (VALUES ('take', interval '10 s', 1.0), ('call-120', interval '1 min', 0.97),
                ('family', interval '5 min', 0.99), ('community', interval '5 min', 0.5),
                ('supervisor', interval '15 min', 0.98), ('to-hospital', interval '1 h', 0.5),
                ('follow-up', interval '1 day', 1.0), ('report', interval '1 day', 1.0)) AS t (name, due, share)
            """
        )
        conn.execute(
            """
            INSERT INTO work_order (id, site_id, district, case_id, origin, kind, operator, called_at, reply_needed,
                                    rating, rating_asked_at, over, missing, accurate, sealed, key_id)
            SELECT gen_random_uuid(), s.id, '32010' || m.n %% 12, m.id, 'case',
                   CASE WHEN m.n %% 10 = 0 THEN 'public_service_query' ELSE 'emergency_rescue' END, m.seat, m.at, true,
                   CASE WHEN m.luck < 0.8 THEN 1 + (m.n %% 17 > 0)::int + 3 * (m.n %% 13 > 0)::int END,
                   CASE WHEN m.luck < 0.9 THEN m.at + interval '1 day' END, true,
                   CASE WHEN m.luck > 0.93 THEN '{person.age}'::text[] ELSE '{}' END,
                   CASE WHEN m.n %% 20 = 0 THEN m.n %% 240 > 0 END, '', s.key_id
            FROM made m CROSS JOIN site s WHERE s.id = %s
            """,
            (site,),
        )
        conn.execute("ALTER TABLE cases ENABLE TRIGGER USER")
        conn.execute("ALTER TABLE fact ENABLE TRIGGER USER")
    conn.execute("VACUUM ANALYZE")


async def _measure(url: str, count: int) -> None:
    keyring = Keyring(bytes(range(32)))
    directory = Directory(keyring)
    async with open_pool(url, name="measure", size=2) as pool:
        await store_shipped(pool)
        await apply_site(pool, keyring, load(ROOT / "examples" / "nanjing.yaml").site, prune=False)
        with psycopg.connect(url, autocommit=True) as owner:
            fill(owner, site="nanjing-demo", count=count)
        today = datetime.now(UTC).date()
        year, month = today - timedelta(days=365), today - timedelta(days=30)
        questions = {
            "figures of a year": lambda: figures_of(pool, directory, first=year),
            "figures of a year, one operator": lambda: figures_of(pool, directory, first=year, operator="seat-7"),
            "figures of a month": lambda: figures_of(pool, directory, first=month),
            "newest work orders": lambda: list_orders(pool, directory, Wanted()),
            "overdue work orders": lambda: list_orders(pool, directory, Wanted(overdue=True)),
        }
        for name, ask in questions.items():
            took_s = []
            for _ in range(5):
                began = time.monotonic()
                await ask()
                took_s.append(time.monotonic() - began)
            sys.stdout.write(f"{name:34} first {took_s[0]:.3f} s, median {median(took_s):.3f} s\n")


def _main(count: int) -> None:
    with TemporaryDirectory(prefix="onekey-measure-") as name:
        postgres = Postgres(Path(name) / "data", log=Path(name) / "log")
        try:
            url = postgres.start()
            migrate(url)
            asyncio.run(_measure(url, count))
        finally:
            postgres.stop()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
