"""Migration 0005 on a database with data in it: what is counted later is derived from what was before."""

from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

import gateway.store.migrate as migrations
from gateway.embedded.postgres import Postgres

_CASES = """
    INSERT INTO data_key (id, subject, wrapped) VALUES (gen_random_uuid(), 'site:x', '');
    INSERT INTO cases (id, subject, class, state, district, kinds, received_at, owner, owned_at, closed_at, outcome,
                       key_id)
    SELECT gen_random_uuid(), name, 'emergency', 'closed', '1', '{sos}', '2026-01-01Z', 'seat-7', owned, '2026-01-02Z',
           outcome, (SELECT id FROM data_key)
    FROM (VALUES ('owned', '2026-01-01 00:00:09Z'::timestamptz, 'helped'), ('fact', '2026-01-01 00:00:09Z', 'hospital'),
                 ('alone', NULL, 'false_alarm')) AS c (name, owned, outcome);
    INSERT INTO leg (id, case_id, role, district, origin, state, ended_at)
    SELECT gen_random_uuid(), id, 'guardian', '1', 'plan', 'failed', now() FROM cases;
    INSERT INTO fact (case_id, fact, role, by_whom, at)
    SELECT id, f.fact, 'guardian', 'x', f.at FROM cases, (VALUES ('heard', '2026-01-01 00:00:01Z'::timestamptz),
        ('informed', '2026-01-01 00:00:05Z'), ('on_scene', '2026-01-01 00:00:30Z')) AS f (fact, at)
    WHERE subject = 'fact';
"""


def test_cases_of_before_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    every = migrations.available()
    with TemporaryDirectory(prefix="onekey-test-") as name:
        postgres = Postgres(Path(name) / "data", log=Path(name) / "log")
        try:
            url = postgres.start()
            with monkeypatch.context() as patched:
                patched.setattr(migrations, "available", lambda: [one for one in every if one.number < 5])
                migrations.migrate(url)
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute(_CASES)
                migrations.migrate(url)
                found = conn.execute(
                    "SELECT subject, false_alarm, extract(epoch FROM human_at - received_at)::int FROM cases"
                ).fetchall()
                granted = conn.execute(
                    "SELECT t, has_table_privilege('onekey_runtime', t, 'UPDATE'), "
                    "has_table_privilege('onekey_runtime', t, 'DELETE') "
                    "FROM unnest(ARRAY['work_order', 'judgement', 'inspection']) AS t"
                ).fetchall()
        finally:
            postgres.stop()
    assert sorted(found) == [("alone", "other", None), ("fact", None, 5), ("owned", None, 9)]
    assert granted == [("work_order", True, False), ("judgement", False, False), ("inspection", False, False)]
