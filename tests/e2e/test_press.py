"""One press, from the terminal to six parties and back."""

from pathlib import Path

from tests.e2e.plant import fleet_running, plant

SIX = {"guardian", "hotline", "service_center", "community", "district", "ambulance_120"}


async def test_a_press_reaches_six_parties_and_the_terminal_hears_received(tmp_path: Path) -> None:
    async with plant(tmp_path) as site:
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            press = fleet.press(fleet.terminals[0])
            await fleet.wait_received(press)
            await site.responders.wait(lambda arrivals: len(arrivals) >= 6)
        arrivals = site.responders.arrivals
        assert {arrival.role for arrival in arrivals} == SIX
        assert all(arrival.verified and arrival.problem is None for arrival in arrivals)
        assert {arrival.case for arrival in arrivals} == {press.case}
        assert all(arrival.notice is not None and arrival.notice.data.location is not None for arrival in arrivals)
        await site.eventually("SELECT state, count(*) FROM leg GROUP BY state", [("delivered", 6)])
