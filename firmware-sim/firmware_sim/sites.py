"""Site files as the witness needs them: an example turned towards our responders, or a site made up in any size.

Only what a witness must know is read: who is told by webhook and with which secret, and which terminal stands
where. Whether a file is right is for the gateway to say.
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from ruamel.yaml import YAML

from firmware_sim.fleet import Member
from firmware_sim.responders import Responder
from firmware_sim.terminal import TerminalConfig

__all__ = ["NANJING", "ROLE_WORDS", "TECHNICAL", "SiteFile", "TerminalEntry", "example", "made_up"]

NANJING = ("guardian", "hotline", "service_center", "community", "district", "ambulance_120")
"""Who is told at the same time in Nanjing (R1)."""

TECHNICAL = ("service_center", "community")
"""Who hears of a broken terminal in a made-up site that tells them apart."""

ROLE_WORDS = {
    "guardian": "监护人",
    "relative": "亲属",
    "hotline": "热线平台",
    "service_center": "居家服务中心",
    "community": "社区",
    "district": "区民政",
    "ambulance_120": "120 急救",
    "fire_119": "119 消防",
    "police_110": "110 报警",
    "neighbour": "邻居",
    "neighbourhood_committee": "居委会",
    "care_station": "驿站",
}

_CENTRE = (32.0603, 118.7969)
_BROKEN = ("power_lost", "low_battery", "tamper")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalEntry:
    """A terminal of a site file. ``home`` is the registered place of its household where there is one."""

    id: str
    secret: str = field(repr=False)
    household: str | None
    home: tuple[float, float] | None

    def member(self, **settings: Any) -> Member:
        """Return the terminal for a fleet; `settings` are those of `TerminalConfig`."""
        return Member(
            config=TerminalConfig(id=self.id, **{"home": self.home or _CENTRE, **settings}), secret=self.secret
        )


class SiteFile:
    """The content of a site file, to be changed and written again."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    @classmethod
    def load(cls, path: Path) -> "SiteFile":
        """Read a site file.

        Raises:
            ValueError: Not a mapping, so no site file.
        """
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError(f"{path} is not a site file")  # noqa: TRY004 # the file is wrong, not an argument's type
        return cls(document)

    def save(self, path: Path) -> None:
        """Write the file; it holds secrets, so only its owner may read it."""
        yaml = YAML()
        path.touch(mode=0o600)
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(self._document, file)

    def responders(self) -> list[Responder]:
        """Return everybody who is told by webhook."""
        return [
            Responder(party=party["id"], role=party["role"], secret=webhook["secret"])
            for party in self._document["parties"]
            if (webhook := _webhook(party)) is not None
        ]

    def roles_of(self, terminal: str) -> dict[str, str]:
        """Return the parties of the household of `terminal`: id to role."""
        roles = {party["id"]: party["role"] for party in self._document["parties"]}
        for household in self._document["households"]:
            if terminal in household.get("terminals", ()):
                return {party: roles[party] for party in household.get("parties", ())}
        return {}

    def point_webhooks(self, url: Callable[[str], str]) -> None:
        """Let every webhook go to what `url` says for the id of its party."""
        for party in self._document["parties"]:
            if (webhook := _webhook(party)) is not None:
                webhook["url"] = url(party["id"])

    def reach_by_phone(self, party: str, phone: str, channels: list[dict[str, Any]]) -> None:
        """Give a party a phone, and these channels in place of its own."""
        entry = next(one for one in self._document["parties"] if one["id"] == party)
        entry |= {"phone": phone, "channels": channels}

    def give_sim(self, terminal: str, phone: str) -> None:
        """Give a terminal a SIM with this number."""
        entry = next(one for one in self._document["terminals"] if one["id"] == terminal)
        entry["phone"] = phone

    def give_phone(self, terminal: str, phone: str) -> None:
        """Give a phone to the first person of the household of a terminal."""
        home = next(one for one in self._document["households"] if terminal in one["terminals"])
        home["persons"][0]["phone"] = phone

    def run_procedure(self, procedure: str) -> None:
        """Let every plan run this procedure."""
        for plan in self._document["plans"]:
            plan["procedure"] = procedure

    def call_once(self) -> None:
        """Let every plan call each role once and no more."""
        for plan in self._document["plans"]:
            plan["roles"] = [{"role": role, "times": 1} for role in plan["roles"]]

    def terminals(self) -> list[TerminalEntry]:
        """Return the terminals with their credentials.

        Raises:
            ValueError: One has no secret in the file; the gateway made one up and only it knows.
        """
        place = {
            terminal: household
            for household in self._document.get("households", ())
            for terminal in household.get("terminals", ())
        }
        found = []
        for terminal in self._document.get("terminals", ()):
            if terminal.get("secret") is None:
                raise ValueError(f"terminal {terminal['id']} has no secret in the site file")
            household = place.get(terminal["id"])
            found.append(
                TerminalEntry(
                    id=terminal["id"],
                    secret=terminal["secret"],
                    household=None if household is None else household["id"],
                    home=None if household is None else _home(household["address"]),
                )
            )
        return found

    def fill_secrets(self, rng: Random) -> None:
        """Give a secret to every terminal that has none."""
        for terminal in self._document["terminals"]:
            if terminal.get("secret") is None:
                terminal["secret"] = rng.randbytes(32).hex()

    def add_neighbours(self, ids: Iterable[str], rng: Random) -> None:
        """Add a household with a terminal for each of `ids`, next door to the first one and with the same parties."""
        model = self._document["households"][0]
        model_terminal = self._document["terminals"][0]
        for number, terminal in enumerate(ids, start=1):
            household = deepcopy(model)
            household["id"] = f"neighbour-{number}"
            household["address"]["room"] = str(900 + number)
            household["persons"] = []
            household["terminals"] = [terminal]
            self._document["households"].append(household)
            self._document["terminals"].append(
                {"id": terminal, "model": model_terminal["model"], "secret": rng.randbytes(32).hex()}
            )


def _webhook(party: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((channel for channel in party.get("channels", ()) if channel["kind"] == "webhook"), None)


def _home(address: Mapping[str, Any]) -> tuple[float, float] | None:
    lat, lon = address.get("lat"), address.get("lon")
    # Another datum would be some hundred metres off, which no test of ours looks at.
    return None if lat is None or lon is None else (float(lat), float(lon))


def example(name: str) -> Path:
    """Return an example of the project, in a checkout or in an installed package.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "examples", here.parents[2] / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no example {name} beside {here.parent}")


def made_up(
    households: int,
    *,
    seed: int,
    roles: tuple[str, ...] = NANJING,
    prefix: str = "sim",
    groups: tuple[str, ...] = ("",),
    technical: bool = False,
) -> SiteFile:
    """Return a site of so many households with one terminal each, told to one party for each role.

    With `technical` only `TECHNICAL` hear of terminals that are broken or lost their power.

    Each of the `groups` has parties of its own, whose ids carry its name; households belong to them in turn.
    The same arguments give the same secrets, so a fleet can be run against a site that was applied earlier: such a
    site is for test installations only.
    """
    rng = Random(f"{prefix}/{seed}")
    parties = [
        {
            "id": "-".join(filter(None, (prefix, group, role))),
            "role": role,
            "name": ROLE_WORDS.get(role, role),
            "channels": [
                {
                    "kind": "webhook",
                    "url": "http://127.0.0.1:9/",
                    "secret": "whsec_" + base64.b64encode(rng.randbytes(32)).decode(),
                }
            ],
        }
        for group in groups
        for role in roles
    ]
    homes = []
    for number in range(1, households + 1):
        lat, lon = (centre + rng.uniform(-0.05, 0.05) for centre in _CENTRE)
        first = (number - 1) % len(groups) * len(roles)
        homes.append(
            {
                "id": f"{prefix}-household-{number:05}",
                "address": {
                    "district": "玄武区",
                    "street": "测试街道",
                    "compound": f"模拟小区{number // 100 + 1}区",
                    "building": str(number // 10 + 1),
                    "room": str(100 * (number % 10 + 1) + 1),
                    "landmark": "模拟地标",
                    "approach": "东门进，电梯到层",
                    "lat": round(lat, 6),
                    "lon": round(lon, 6),
                },
                "persons": [
                    {
                        "id": f"{prefix}-person-{number:05}",
                        "name": f"模拟老人{number}",
                        "born": date(1930 + number % 30, 1 + number % 12, 1 + number % 28),
                        # Nobody's number: no subscriber's begins with three zeros.
                        "phone": f"000{number:08}",
                        "health": {"conditions": ["高血压"], "allergies": ["青霉素"]},
                    }
                ],
                "parties": [party["id"] for party in parties[first : first + len(roles)]],
                "terminals": [f"{prefix}-{number:05}"],
            }
        )
    return SiteFile(
        {
            "site": f"{prefix}-site",
            "district": "320102",
            "timezone": "Asia/Shanghai",
            "locale": "zh-CN",
            "fallback": [parties[0]["id"]],
            "parties": parties,
            "households": homes,
            "terminals": [
                {"id": f"{prefix}-{number:05}", "model": "simulated", "secret": rng.randbytes(32).hex()}
                for number in range(1, households + 1)
            ],
            "plans": [
                {"id": f"{prefix}-emergency", "kinds": ["*"], "roles": list(roles)},
                *(
                    [{"id": f"{prefix}-technical", "kinds": list(_BROKEN), "roles": list(TECHNICAL)}]
                    if technical
                    else []
                ),
            ],
        }
    )
