"""The real gateway keeps the proof while it is killed again and again: one sequence, one file, everything covered."""

import asyncio
from pathlib import Path
from random import Random

from gateway.keyring import Keyring
from gateway.service.checkpoints import export_checkpoints
from gateway.service.proof import case_ids, examine, prove_case
from gateway.store.pool import open_pool
from tests.e2e.plant import fleet_running, plant

HOUSEHOLDS = 8


async def test_checkpoints_survive_kills_and_a_torn_file(tmp_path: Path) -> None:
    rng = Random(20261122)
    file = tmp_path / "checkpoints" / "journal.jsonl"
    async with plant(tmp_path, households=HOUSEHOLDS, ONEKEY_CHECKPOINT_EVERY_S="1") as site:
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            for round_ in range(3):
                for terminal in fleet.terminals:
                    fleet.press(terminal)
                    await asyncio.sleep(0.01)
                await fleet.wait_received()
                before = await site.rows("SELECT coalesce(max(number), 0) FROM checkpoint")
                await site.eventually(f"SELECT max(number) > {before[0][0]} FROM checkpoint", [(True,)])
                await asyncio.sleep(rng.uniform(0, 1))
                site.kill_gateway()
                with file.open("ab") as torn:  # as a write that was cut off would leave it
                    torn.write(b'{"v":1,"number":' * round_)
                site.start_gateway()
                await site.ready()
        site.kill_gateway()  # it would write while the table and the file are compared
        keyring = Keyring.from_text(site.master_key)
        async with open_pool(site.database, name="test", size=1) as pool:
            await export_checkpoints(pool, keyring, file)
            evidence = await examine(pool, keyring, file=file)
            assert (evidence.flaws, evidence.notes) == ([], [])
            assert evidence.checked >= 3
            proofs = [await prove_case(pool, keyring, case, evidence) async for page in case_ids(pool) for case in page]
        assert len(proofs) == HOUSEHOLDS
        for proof in proofs:
            assert proof.breaks == ()
            assert proof.cover is not None
            assert proof.entries - proof.cover.entries < 20  # what is sent meanwhile is for the next
