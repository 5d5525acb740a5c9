"""The commands at the rack, as an administrator types them: simulated modems, and a look at one."""

import asyncio
import json
import sys
from pathlib import Path


async def onekey(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_simulated_modem_is_looked_at_and_its_network_does_what_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "modem0"
    modem = await onekey("simulate-modem", str(path), "--persona", "ec25", "--speed", "20", "--pin", "4711")
    assert modem.stdin is not None
    assert modem.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert b"EC25, number +86139" in await modem.stdout.readline()
        options = ("--data", str(tmp_path / "data"), "modem", "test", str(path), "--json")
        looking = await onekey(*options, "--pin", "4711")
        out, _ = await asyncio.wait_for(looking.communicate(), 30)
        found = {one["name"]: one for one in json.loads(out)}
        assert looking.returncode == 0, found
        assert found["SIM"]["words"] == "ready, its PIN is right"
        modem.stdin.write("text +8613811112222 摔倒了\nphone +8613811112222 busy\nnonsense\n".encode())
        await asyncio.sleep(0.5)
        looking = await onekey(*options)
        out, _ = await asyncio.wait_for(looking.communicate(), 30)
        assert {one["name"]: one for one in json.loads(out)}["store ME"]["words"] == "1 of 255 messages"
        modem.stdin.write(b"modem 2\nsignal 3\nsim barred\n")
        looking = await onekey(*options)
        out, _ = await asyncio.wait_for(looking.communicate(), 30)
        found = {one["name"]: one for one in json.loads(out)}
        assert found["signal"]["good"] is False
        assert found["signal"]["words"] == "-107 dBm: weak, move its antenna"
        modem.stdin.write(b"sim out\n")
        await asyncio.sleep(0.5)
        looking = await onekey(*options)
        out, _ = await asyncio.wait_for(looking.communicate(), 30)
        assert [one["name"] for one in json.loads(out) if one["good"] is False] == ["SIM"]
        modem.stdin.write(b"sim in\nsignal 21\nsilent\n")
        looking = await onekey(*options)
        out, _ = await asyncio.wait_for(looking.communicate(), 30)
        assert looking.returncode == 1
        assert [one["name"] for one in json.loads(out) if one["good"] is False] == ["answers"]
        modem.stdin.write(b"quit\n")
        rest = (await asyncio.wait_for(modem.stdout.read(), 10)).decode()
        assert "+8613811112222 is a phone: busy" in rest
        assert await asyncio.wait_for(modem.wait(), 10) == 0
        assert not path.exists()
    finally:
        if modem.returncode is None:
            modem.kill()
            await modem.wait()


async def test_what_a_person_did_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    for arguments, words in (
        (("simulate-modem", "x", "--persona", "nokia"), "nokia is none of sim800"),
        (("modem", "test", "/dev/null", "--pin", "12"), "a PIN has 4 to 8 digits"),
        (("modem", "test", str(tmp_path / "nothing")), "there is no such port"),
    ):
        process = await onekey("--data", str(tmp_path), *arguments)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert words in " ".join((out + err).decode().replace("│", " ").split())
        assert process.returncode in (1, 2)
        assert b"Traceback" not in err
