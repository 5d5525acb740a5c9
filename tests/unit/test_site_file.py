"""The site file: every mistake with its line, the examples, and the way into the directory."""

import sys
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from gateway.domain import directory
from gateway.domain.plan import Plan, legs_for
from gateway.domain.privacy import Privacy
from gateway.site.load import LARGEST_FILE_BYTES, LoadedSite, Problem, SiteFileError, load
from gateway.site.model import KNOWN_ROLES, to_household, to_party, to_plan

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TODAY = date(2026, 11, 22)

# Complete, and without a single warning. Line numbers in the tests below are those of this text.
GOOD = """\
site: test-site
district: "320102"
timezone: Asia/Shanghai
locale: zh-CN
fallback: [hotline]
parties:
  - id: hotline
    role: hotline
    name: 热线
    phone: "12349"
    channels:
      - {kind: stream}
  - id: daughter
    role: guardian
    name: 王小明
    district: "320104"
    phone: "+8613800000001"
    channels:
      - kind: webhook
        url: https://example.org/guardian
        secret: whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=
        timeout_s: 5
      - kind: mqtt
        secret: a-long-password-of-the-platform
households:
  - id: wang-501
    address:
      district: 玄武区
      street: 梅园新村街道
      room: "501"
      landmark: 北门对面是小学
      approach: 从北门进
      lat: 32.0611
      lon: 118.7921
    persons:
      - id: wang-xiulan
        name: 王秀兰
        born: 1941-03-02
        phone: "+8613900000001"
        health: {conditions: [高血压], blood: A+}
    parties: [daughter, hotline]
    terminals: ["860000000000001"]
terminals:
  - {id: "860000000000001", model: okt-1, phone: "+8614400000001", secret: only-for-demos-and-tests}
plans:
  - id: emergency
    kinds: [sos, fall]
    roles: [guardian, hotline]
    privacy: {guardian: full}
  - id: anything-else
    kinds: ["*"]
    roles: [hotline]
"""

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: str | bytes) -> Path:
        path = tmp_path / "site.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def problems_of(path: Path) -> list[Problem]:
    try:
        return load(path, today=TODAY).problems
    except SiteFileError as exc:
        return exc.problems


def brief(problem: Problem) -> tuple[int, str, str, str]:
    return problem.line, problem.severity, problem.where, problem.what


def test_a_good_file_has_no_problems(write: Write) -> None:
    loaded = load(write(GOOD), today=TODAY)
    assert isinstance(loaded, LoadedSite)
    assert loaded.problems == []
    assert loaded.site.site == "test-site"
    assert loaded.site.households[0].persons[0].born == date(1941, 3, 2)
    assert loaded.site.plans[0].privacy == {"guardian": Privacy.FULL}


@pytest.mark.parametrize("name", ["nanjing", "beijing"])
def test_the_examples_have_no_problems(name: str) -> None:
    assert load(EXAMPLES / f"{name}.yaml", today=TODAY).problems == []


# One mistake each: what is replaced by what, then line, column, where, what and a part of the hint.
ERRORS = {
    "unknown field": (
        ("    role: hotline\n", "    rolle: hotline\n"),
        [(7, 5, "parties[0].role", "is missing", "guardian"), (8, 5, "parties[0].rolle", "unknown field", "role?")],
    ),
    "unknown field far from any": (
        ("locale: zh-CN\n", "locale: zh-CN\nxyzzy: 1\n"),
        [(5, 1, "xyzzy", "unknown field", "fields are site, district")],
    ),
    "unknown field of a channel": (
        ("        timeout_s: 5\n", "        timeout: 5\n"),
        [(22, 9, "parties[1].channels[0].timeout", "unknown field", "did you mean timeout_s?")],
    ),
    "missing top-level field": (
        ('district: "320102"\n', ""),
        [(1, 1, "district", "is missing", "320102")],
    ),
    "missing field of a party": (
        ("    name: 热线\n", ""),
        [(7, 5, "parties[0].name", "is missing", "name in one line")],
    ),
    "missing field of a channel": (
        ("      - kind: mqtt\n        secret: a-long-password-of-the-platform\n", "      - {kind: mqtt}\n"),
        [(23, 9, "parties[1].channels[1].secret", "is missing", "ASCII")],
    ),
    "missing address": (
        ("    address:\n", "    adress:\n"),
        [
            (26, 5, "households[0].address", "is missing", "fields are district"),
            (27, 5, "households[0].adress", "unknown field", "did you mean address?"),
        ],
    ),
    "missing street": (
        ("      street: 梅园新村街道\n", ""),
        [(27, 5, "households[0].address.street", "is missing", "one line")],
    ),
    "id that YAML reads as a number": (
        ('  - {id: "860000000000001"', "  - {id: 860000000000001"),
        [(44, 6, "terminals[0].id", "is read as a number, not as a text", 'put it in quotes: "…"')],
    ),
    "reference that YAML reads as a number": (
        ('    terminals: ["860000000000001"]', "    terminals: [860000000000001]"),
        [(42, 17, "households[0].terminals[0]", "is read as a number, not as a text", "quotes")],
    ),
    "room that YAML reads as a number": (
        ('      room: "501"', "      room: 0501"),
        [(30, 7, "households[0].address.room", "is read as a number, not as a text", "quotes")],
    ),
    "name that YAML reads as a boolean": (
        ("    name: 热线", "    name: true"),
        [(9, 5, "parties[0].name", "is read as true or false, not as a text", "quotes")],
    ),
    "bad id": (
        ("  - id: hotline\n", "  - id: hot line\n"),
        [(7, 5, "parties[0].id", "does not have the right form", "1 to 64 letters")],
    ),
    "empty value": (
        ("    name: 热线\n", "    name:\n"),
        [(9, 5, "parties[0].name", "is empty", "name in one line")],
    ),
    "bad role": (
        ("    role: guardian\n", "    role: Guardian\n"),
        [(14, 5, "parties[1].role", "does not have the right form", "did you mean guardian?")],
    ),
    "bad phone": (
        ('"+8613800000001"', '"+86 138 0000"'),
        [(17, 5, "parties[1].phone", "does not have the right form", "country code")],
    ),
    "bad kind of channel": (
        ("{kind: stream}", "{kind: steam}"),
        [(12, 10, "parties[0].channels[0].kind", "is not a kind of channel", "did you mean stream?")],
    ),
    "channel without kind": (
        ("{kind: stream}", "{}"),
        [(12, 9, "parties[0].channels[0].kind", "is missing", "webhook, mqtt or stream")],
    ),
    "channel that is no mapping": (
        ("{kind: stream}", "stream"),
        [(12, 9, "parties[0].channels[0]", "must be a mapping", "begin with kind:")],
    ),
    "bad url": (
        ("https://example.org/guardian", "example.org"),
        [(20, 9, "parties[1].channels[0].url", "is not a web address", "http:// or https://")],
    ),
    "url with another scheme": (
        ("https://example.org/guardian", "ftp://example.org/"),
        [(20, 9, "parties[1].channels[0].url", "is not a web address", "http:// or https://")],
    ),
    "url with a bad port": (
        ("https://example.org/guardian", "https://example.org:99999/"),
        [(20, 9, "parties[1].channels[0].url", "is not a web address", "http:// or https://")],
    ),
    "secret without prefix": (
        ("whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=", "Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA="),
        [(21, 9, "parties[1].channels[0].secret", "does not begin with whsec_", "base64")],
    ),
    "secret that is no base64": (
        ("whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=", "whsec_Z3Vh?"),
        [(21, 9, "parties[1].channels[0].secret", "is not valid base64 behind whsec_", "24 to 64")],
    ),
    "secret that is too short": (
        ("whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=", "whsec_Z3VhcmRpYW4="),
        [(21, 9, "parties[1].channels[0].secret", "holds a key of 8 bytes", "24 to 64")],
    ),
    "timeout too long": (
        ("timeout_s: 5", "timeout_s: 61"),
        [(22, 9, "parties[1].channels[0].timeout_s", "must not be more than 60", "1 to 60")],
    ),
    "timeout too short": (
        ("timeout_s: 5", "timeout_s: 0"),
        [(22, 9, "parties[1].channels[0].timeout_s", "must not be less than 1", "1 to 60")],
    ),
    "timeout in quotes": (
        ("timeout_s: 5", 'timeout_s: "5"'),
        [(22, 9, "parties[1].channels[0].timeout_s", "must be a number", "without quotes")],
    ),
    "lat and lon swapped": (
        ("      lat: 32.0611\n      lon: 118.7921\n", "      lat: 118.7921\n      lon: 32.0611\n"),
        [(33, 7, "households[0].address.lat", "must not be more than 90", "swapped")],
    ),
    "lat in quotes": (
        ("lat: 32.0611", 'lat: "32.0611"'),
        [(33, 7, "households[0].address.lat", "must be a number", "without quotes")],
    ),
    "lat that is no number": (
        ("lat: 32.0611", "lat: .nan"),
        [(33, 7, "households[0].address.lat", "must be a number", "32.0611")],
    ),
    "lat without lon": (
        ("      lon: 118.7921\n", ""),
        [(33, 7, "households[0].address.lat", "lat stands without lon", "both or neither")],
    ),
    "lon without lat": (
        ("      lat: 32.0611\n", ""),
        [(33, 7, "households[0].address.lon", "lon stands without lat", "both or neither")],
    ),
    "bad datum": (
        ("      lon: 118.7921\n", "      lon: 118.7921\n      datum: gjc02\n"),
        [(35, 7, "households[0].address.datum", "must be 'wgs84', 'gcj02' or 'bd09'", "did you mean gcj02?")],
    ),
    "no such day": (
        ("1941-03-02", "1941-02-30"),
        [(38, 9, "households[0].persons[0].born", "there is no such day", "year-month-day")],
    ),
    "a number as date": (
        ("1941-03-02", "19410302"),
        [(38, 9, "households[0].persons[0].born", "is not a date", "year-month-day")],
    ),
    "a number in quotes as date": (
        ("1941-03-02", '"19410302"'),
        [(38, 9, "households[0].persons[0].born", "is not a date", "year-month-day")],
    ),
    "born too early": (
        ("1941-03-02", "1889-12-31"),
        [(38, 9, "households[0].persons[0].born", "lies before 1890-01-01", "year-month-day")],
    ),
    "born tomorrow": (
        ("1941-03-02", "2026-11-23"),
        [(38, 9, "households[0].persons[0].born", "lies in the future", "not after today")],
    ),
    "health that is no mapping": (
        ("{conditions: [高血压], blood: A+}", "高血压"),
        [(40, 9, "households[0].persons[0].health", "must be a mapping", "name: value")],
    ),
    "a text where a list belongs": (
        ("fallback: [hotline]", "fallback: hotline"),
        [(5, 1, "fallback", "must be a list", "brackets")],
    ),
    "empty fallback": (
        ("fallback: [hotline]", "fallback: []"),
        [(5, 1, "fallback", "is an empty list", "at least one party")],
    ),
    "bad time zone": (
        ("Asia/Shanghai", "Asia/Shangai"),
        [(3, 1, "timezone", "is not a time zone; did you mean Asia/Shanghai?", "IANA")],
    ),
    "a folder of time zones": (
        ("Asia/Shanghai", "Asia"),
        [(3, 1, "timezone", "is not a time zone", "IANA")],
    ),
    "bad locale": (
        ("locale: zh-CN", "locale: zh_CN"),
        [(4, 1, "locale", "does not have the right form", "zh-CN")],
    ),
    "bad level of privacy": (
        ("{guardian: full}", "{guardian: ful}"),
        [
            (
                49,
                15,
                "plans[0].privacy.guardian",
                "must be 'full', 'care', 'family' or 'neighbour'",
                "did you mean full?",
            )
        ],
    ),
    "bad role in privacy": (
        ("{guardian: full}", "{Guardian: full}"),
        [(49, 15, "plans[0].privacy.Guardian", "is not a role", "did you mean guardian?")],
    ),
    "plan without kinds": (
        ("kinds: [sos, fall]", "kinds: []"),
        [(47, 5, "plans[0].kinds", "is an empty list", "kinds of alarm")],
    ),
    "secret with a space": (
        ("only-for-demos-and-tests", "only for demos"),
        [(44, 68, "terminals[0].secret", "does not have the right form", "without spaces")],
    ),
    "unknown fallback party": (
        ("fallback: [hotline]", "fallback: [hotlin]"),
        [(5, 12, "fallback[0]", "there is no party hotlin", "did you mean hotline?")],
    ),
    "unknown party": (
        ("parties: [daughter, hotline]", "parties: [daughter, hotline, son]"),
        [(41, 34, "households[0].parties[2]", "there is no party son", "add it to parties")],
    ),
    "unknown terminal": (
        ('terminals: ["860000000000001"]', 'terminals: ["860000000000001", "860000000000002"]'),
        [(42, 36, "households[0].terminals[1]", "there is no terminal 860000000000002", "mean 860000000000001?")],
    ),
    "kind in two plans": (
        ('kinds: ["*"]', 'kinds: ["*", sos]'),
        [(51, 18, "plans[1].kinds[1]", "plan emergency already has the kind sos", "one plan")],
    ),
    "two plans for everything else": (
        ("kinds: [sos, fall]", 'kinds: [sos, "*"]'),
        [(51, 13, "plans[1].kinds[0]", "plan emergency already has the kind *", "one plan")],
    ),
    "fallback party without channel": (
        ("    channels:\n      - {kind: stream}\n", ""),
        [(7, 5, "parties[0]", "fallback party hotline has no channel", "never be told")],
    ),
    "two plans with one id": (
        ("  - id: anything-else\n", "  - id: emergency\n"),
        [(50, 5, "plans[1].id", "a second plan has the id emergency", "the first is plans[0]")],
    ),
    "key twice": (
        ("locale: zh-CN\n", "locale: zh-CN\nlocale: en\n"),
        [(5, 1, "locale", "stands here twice", "remove")],
    ),
    "tag": (
        ("    name: 热线\n", "    name: !secret 热线\n"),
        [(9, 11, "parties[0].name", "has a tag, which means nothing here", "!")],
    ),
    "character that cannot be stored": (
        ("    name: 热线\n", '    name: 热线\n    district: "a\\ud800"\n'),
        [(10, 15, "parties[0].district", "has a character that cannot be stored", "escape")],
    ),
    "key that cannot be stored": (
        ("blood: A+", '"a\\0": 1'),
        [(40, 37, "households[0].persons[0].health", "has a key that cannot be stored", "escape")],
    ),
    "key that is a list": (
        ("locale: zh-CN\n", "locale: zh-CN\n? [a, b]\n: c\n"),
        [(5, 3, "", "has a key that is a list or a mapping", "colon")],
    ),
    "merge of something else": (
        ("      district: 玄武区\n", "      district: 玄武区\n      <<: [x]\n"),
        [(29, 7, "households[0].address", "<< names something that is no mapping", "anchor")],
    ),
    "nothing for everything else": (
        ('kinds: ["*"]', "kinds: [smoke]"),
        [(45, 1, "plans", 'no plan has the kind "*"', "fallback only")],
    ),
    "an emergency that would wait": (
        ("    privacy: {guardian: full}\n", "    delay: 10 min\n"),
        [(49, 5, "plans[0].delay", "would let sos, fall wait", "only technical kinds")],
    ),
    "a countdown for more than falls": (
        ("    privacy: {guardian: full}\n", "    countdown: 20 s\n"),
        [(49, 5, "plans[0].countdown", "is only for falls", "of its own")],
    ),
    "calls faster than anybody answers": (
        ("    roles: [guardian, hotline]\n", "    roles: [{role: guardian, again: 1 s}, hotline]\n"),
        [(48, 30, "plans[0].roles[0].again", "is shorter than 5 s", "at least 5 s")],
    ),
    "a template nobody can fill": (
        ("    privacy: {guardian: full}\n", '    template: {zh: "{adress}"}\n'),
        [(49, 16, "plans[0].template.zh", "has a placeholder that nobody fills", "")],
    ),
    "no such duration": (
        ("    roles: [guardian, hotline]\n", "    roles: [{role: guardian, within: soon}, hotline]\n"),
        [(48, 30, "plans[0].roles[0].within", "is not a duration", "10 min")],
    ),
    "hours that never are": (
        ("    privacy: {guardian: full}\n", "    when: {between: 22-7}\n"),
        [(49, 12, "plans[0].when.between", "is not a time of day", "22:00-07:00")],
    ),
}


@pytest.mark.parametrize(("change", "expected"), ERRORS.values(), ids=ERRORS)
def test_errors_name_line_column_place_and_remedy(
    write: Write, change: tuple[str, str], expected: list[tuple[int, int, str, str, str]]
) -> None:
    path = write(changed(*change))
    with pytest.raises(SiteFileError) as caught:
        load(path, today=TODAY)
    errors = [problem for problem in caught.value.problems if problem.severity == "error"]
    assert [(one.line, one.column, one.where, one.what) for one in errors] == [one[:4] for one in expected]
    for problem, (*_, hint) in zip(errors, expected, strict=True):
        assert hint in problem.hint


WARNINGS = {
    "unknown role, near miss": (
        ("    role: guardian\n", "    role: gardian\n"),
        (14, "parties[1].role", "role gardian is not one of the known ones", "did you mean guardian?"),
    ),
    "unknown role, made up": (
        ("    role: guardian\n", "    role: temple\n"),
        (14, "parties[1].role", "role temple is not one of the known ones", "known are guardian, "),
    ),
    "unknown role in a plan": (
        ("roles: [guardian, hotline]", "roles: [guardian, hotline, hotlines]"),
        (48, "plans[0].roles[2]", "role hotlines is not one of the known ones", "did you mean hotline?"),
    ),
    "plan without anybody": (
        ("roles: [guardian, hotline]", "roles: [guardian, hotline, district]"),
        (
            41,
            "households[0].parties",
            "plan emergency tells the role district, which household wang-501 has nobody for",
            "failed leg",
        ),
    ),
    "household without terminal": (
        ('    terminals: ["860000000000001"]\n', ""),
        (26, "households[0]", "household wang-501 has no terminal", "nobody there can call"),
    ),
    "terminal without household": (
        ('    terminals: ["860000000000001"]\n', ""),
        (43, "terminals[0]", "terminal 860000000000001 is in no household", "fallback only"),
    ),
    "party never told": (
        ("parties: [daughter, hotline]", "parties: [hotline]"),
        (13, "parties[1]", "party daughter is never told", "name it in a household"),
    ),
    "party without channel": (
        ("  - id: daughter\n", "  - {id: son, role: relative, name: 王小刚}\n  - id: daughter\n"),
        (13, "parties[1]", "party son has no channel", "webhook, mqtt or stream"),
    ),
    "no coordinates": (
        ("      lat: 32.0611\n      lon: 118.7921\n", ""),
        (27, "households[0].address", "has no lat and lon", "no map"),
    ),
    "no landmark": (
        ("      landmark: 北门对面是小学\n", ""),
        (27, "households[0].address", "has no landmark", "(R6)"),
    ),
    "no approach": (
        ("      approach: 从北门进\n", ""),
        (27, "households[0].address", "has no approach", "(R13)"),
    ),
    "no date of birth": (
        ("        born: 1941-03-02\n", ""),
        (36, "households[0].persons[0]", "person wang-xiulan has no date of birth", "add born"),
    ),
    "no phone of a person": (
        ('        phone: "+8613900000001"\n', ""),
        (36, "households[0].persons[0]", "person wang-xiulan has no phone", "add phone"),
    ),
    "short secret of a terminal": (
        ("only-for-demos-and-tests", "fifteen-letters"),
        (44, "terminals[0].secret", "is shorter than 16 characters", "only for demos"),
    ),
    "short secret of a platform": (
        ("a-long-password-of-the-platform", "short"),
        (24, "parties[1].channels[1].secret", "is shorter than 16 characters", "only for demos"),
    ),
    "unencrypted webhook": (
        ("https://example.org/guardian", "http://10.1.2.3:9001/guardian"),
        (20, "parties[1].channels[0].url", "sends names and health records over an unencrypted connection", "https://"),
    ),
    "unknown kind": (
        ("kinds: [sos, fall]", "kinds: [sos, fal]"),
        (47, "plans[0].kinds[1]", "kind fal is not one of the known ones", "did you mean fall?"),
    ),
    "privacy of a role that is not told": (
        ("{guardian: full}", "{guardian: full, district: full}"),
        (49, "plans[0].privacy.district", "role district is not told by plan emergency", "add it to roles"),
    ),
    "party listed twice": (
        ("parties: [daughter, hotline]", "parties: [daughter, hotline, daughter]"),
        (41, "households[0].parties[2]", "party daughter is listed twice", "once"),
    ),
    "role listed twice": (
        ("roles: [guardian, hotline]", "roles: [guardian, guardian, hotline]"),
        (48, "plans[0].roles[1]", "role guardian is listed twice", "once"),
    ),
    "kind listed twice": (
        ("kinds: [sos, fall]", "kinds: [sos, fall, sos]"),
        (47, "plans[0].kinds[2]", "kind sos is listed twice", "once"),
    ),
}


@pytest.mark.parametrize(("change", "expected"), WARNINGS.values(), ids=WARNINGS)
def test_warnings_do_not_stop_a_file(
    write: Write, change: tuple[str, str], expected: tuple[int, str, str, str]
) -> None:
    problems = load(write(changed(*change)), today=TODAY).problems
    line, where, what, hint = expected
    found = [one for one in problems if (one.line, one.where, one.what) == (line, where, what)]
    assert [(one.severity, hint in one.hint) for one in found] == [("warning", True)], problems


SECOND_HOUSEHOLD = """\
  - id: {id}
    address: {{district: 玄武区, street: 某街道, landmark: 桥, approach: 桥下, lat: 32.0, lon: 118.7}}
    persons: [{{id: {person}, name: 李四, born: 1940-01-01, phone: "+8613900000002"}}]
    parties: [daughter, hotline]
    terminals: ["{terminal}"]
"""


def with_second_household(*, household: str = "li-1", person: str = "li", terminal: str = "860000000000002") -> str:
    second = SECOND_HOUSEHOLD.format(id=household, person=person, terminal=terminal)
    text = changed("\nterminals:\n", f"\n{second}terminals:\n")
    return text.replace("plans:\n", '  - {id: "860000000000002", model: okt-1, phone: "+8614400000002"}\nplans:\n')


def test_two_households_are_fine(write: Write) -> None:
    assert load(write(with_second_household()), today=TODAY).problems == []


def test_a_party_listed_twice_is_told_once(write: Write) -> None:
    text = changed("parties: [daughter, hotline]", "parties: [daughter, hotline, daughter]")
    site = load(write(text), today=TODAY).site
    assert [party.id for party in to_household(site, site.households[0]).parties] == ["daughter", "hotline"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            with_second_household(household="wang-501"),
            (43, "error", "households[1].id", "a second household has the id wang-501"),
        ),
        (
            with_second_household(person="wang-xiulan"),
            (45, "error", "households[1].persons[0].id", "a second person has the id wang-xiulan"),
        ),
        (
            with_second_household(terminal="860000000000001"),
            (
                47,
                "error",
                "households[1].terminals[0]",
                "terminal 860000000000001 already belongs to household wang-501",
            ),
        ),
        (
            with_second_household().replace('"860000000000002", model', '"860000000000001", model'),
            (50, "error", "terminals[1].id", "a second terminal has the id 860000000000001"),
        ),
        (
            with_second_household().replace("+8614400000002", "+8614400000001"),
            (50, "warning", "terminals[1].phone", "has the number of terminal 860000000000001 too"),
        ),
        (
            changed("  - id: daughter\n", "  - id: hotline\n"),
            (13, "error", "parties[1].id", "a second party has the id hotline"),
        ),
    ],
)
def test_the_second_of_two_is_the_one_at_fault(write: Write, text: str, expected: tuple[int, str, str, str]) -> None:
    assert expected in [brief(problem) for problem in problems_of(write(text))]


def test_a_household_without_anybody_is_doubted(write: Write) -> None:
    household = "  - id: empty\n    address: {district: a, street: b}\n"
    problems = load(write(changed("households:\n", f"households:\n{household}")), today=TODAY).problems
    assert (26, "warning", "households[0]", "household empty has no person") in [brief(one) for one in problems]
    lines_of_missing_roles = [one.line for one in problems if "has nobody for" in one.what]
    assert lines_of_missing_roles == [26, 26, 26]


def test_no_plan_at_all_is_doubted(write: Write) -> None:
    text = GOOD[: GOOD.index("plans:\n")]
    assert [brief(one) for one in load(write(text), today=TODAY).problems] == [
        (1, "warning", "", 'no plan has the kind "*"')
    ]


UNREADABLE: dict[str, tuple[str | bytes, int, int, str, str]] = {
    "empty": ("", 1, 1, "the file is empty", "begin with site:"),
    "comments only": ("# nothing\n\n", 1, 1, "the file is empty", "begin with site:"),
    "a list": ("- a\n- b\n", 1, 1, "must be a mapping", "fields are site, district"),
    "a text": ("hello", 1, 1, "must be a mapping", "fields are site, district"),
    "tab": ("site: a\nparties:\n\t- id: a\n", 3, 1, "not valid YAML: found character", "not with tabs"),
    "chinese colon": ("site: a\nlocale：zh-CN\ndistrict: b\n", 3, 1, "not valid YAML", "not as the Chinese ："),
    "open quote": ('site: "a\nlocale: b\n', 3, 1, "not valid YAML: found unexpected end", "quotes"),
    "open bracket": ("fallback: [a\nsite: b\n", 2, 5, "not valid YAML: expected ',' or ']'", "indentation"),
    "indentation": ("site: a\n   locale: b\n", 2, 10, "not valid YAML: mapping values", "indentation"),
    "two documents": ("site: a\n---\nsite: b\n", 2, 1, "not valid YAML: expected a single document", ""),
    "unknown alias": ("site: *a\n", 1, 7, "not valid YAML: found undefined alias", ""),
    "alias into itself": ("site: a\nparties: &a [*a]\n", 2, 10, "an alias contains itself", "write out"),
    "too deep": ("site: " + "[" * 90 + "]" * 90, 1, 57, "an alias contains itself, or the file is nested too", ""),
    "much too deep": ("site: " + "[" * 600, 1, 1, "the file is nested too deeply", "brackets"),
    "gbk": ("site: a\n# 南\nlocale: 王\n".encode("gbk"), 2, 3, "the file is not UTF-8, perhaps GBK", "as UTF-8"),
    "gbk behind a mark": (b"\xef\xbb\xbf# \xe5\x8d\x97 \xcd\xf5", 1, 5, "the file is not UTF-8", "as UTF-8"),
    "utf-16": ("site: a\n".encode("utf-16"), 1, 1, "the file is UTF-16, not UTF-8", "as UTF-8"),
    "nul": (b"site: a\nlocale: z\x00h\n", 2, 10, "the character U+0000 must not stand in a file", "invisible"),
    "bell": (b"site: a\n# \x07\n", 2, 3, "the character U+0007 must not stand in a file", "invisible"),
}


@pytest.mark.parametrize(("content", "line", "column", "what", "hint"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_yaml_is_a_problem_with_a_line_too(
    write: Write, content: str | bytes, line: int, column: int, what: str, hint: str
) -> None:
    with pytest.raises(SiteFileError) as caught:
        load(write(content), today=TODAY)
    [problem] = caught.value.problems
    assert (problem.line, problem.column, problem.severity) == (line, column, "error")
    assert problem.what.startswith(what)
    assert hint in problem.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(SiteFileError, match=f"1:1: error: the file cannot be read: .*{reason}"):
            load(path)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for size, what in ((LARGEST_FILE_BYTES + 1, "larger than 64 MiB"), (LARGEST_FILE_BYTES, "the character U")):
        with path.open("wb") as file:
            file.truncate(size)
        with pytest.raises(SiteFileError, match=what):
            load(path)


@pytest.mark.parametrize(
    "bomb",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
        "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 45)),
        "m: &m {<<: [*m, *m], a: 1}\n",
    ],
    ids=["aliases", "merges", "merge into itself"],
)
def test_aliases_cannot_blow_the_file_up(write: Write, bomb: str) -> None:
    with pytest.raises(SiteFileError):
        load(write(bomb), today=TODAY)


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = changed("timezone: Asia/Shanghai", "timezone: Mars").replace('"12349"', "12349")
    text = text.replace("kinds: [sos, fall]", "kinds: sos").replace("    name: 热线", "    name: 热线\n    name: x")
    assert [(one.line, one.where) for one in problems_of(write(text))] == [
        (3, "timezone"),
        (10, "parties[0].name"),
        (11, "parties[0].phone"),
        (48, "plans[0].kinds"),
    ]


def test_a_problem_reads_like_a_compiler_message(write: Write) -> None:
    path = write(changed("    role: guardian\n", "    role: Guardian\n"))
    with pytest.raises(SiteFileError) as caught:
        load(path, today=TODAY)
    expected = f"{path}:14:5: error: parties[1].role: does not have the right form (did you mean guardian?)"
    assert str(caught.value) == str(caught.value.problems[0]) == expected


def test_no_message_echoes_a_name_a_number_or_a_secret(write: Write) -> None:
    private = ["王小明", "13800000001x", "whsec_kzzzz", "pass word", "糖尿病", "1841-03-02", "户主"]
    text = (
        changed("daughter, hotline]", "王小明]")
        .replace('"+8613800000001"', '"13800000001x"')
        .replace("whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=", "whsec_kzzzz")
        .replace("only-for-demos-and-tests", '"pass word"')
        .replace("{conditions: [高血压], blood: A+}", "糖尿病")
        .replace("1941-03-02", "1841-03-02")
        .replace("    role: guardian\n", "    role: guardian\n    户主: 王小明\n    户主: 王小明\n")
    )
    for content in (text, text + '  secret: "whsec_kzzzz\n'):
        with pytest.raises(SiteFileError) as caught:
            load(write(content), today=TODAY)
        shown = repr(caught.value.problems) + "".join(traceback.format_exception(caught.value))
        assert not [word for word in private if word in shown]


def test_a_printed_site_shows_ids_only(write: Write) -> None:
    site = load(write(GOOD), today=TODAY).site
    for shown in (repr(site), str(site.parties), repr(site.households), str(site.terminals[0])):
        assert not [word for word in ("王", "138", "whsec", "only-for", "高血压", "password") if word in shown]
    assert repr(site.parties[0]) == "PartyEntry(id='hotline')"


def test_anchors_and_merge_keys_work(write: Write) -> None:
    text = changed(
        "      - kind: webhook\n        url: https://example.org/guardian\n",
        "      - &hook\n        kind: webhook\n        url: https://example.org/guardian\n",
    ).replace(
        "      - kind: mqtt\n        secret: a-long-password-of-the-platform\n",
        "      - <<: *hook\n        url: https://example.org/second\n        timeout_s: 7\n      - *hook\n",
    )
    first, second, third = load(write(text), today=TODAY).site.parties[1].channels
    assert second.model_dump() == first.model_dump() | {"url": "https://example.org/second", "timeout_s": 7}
    assert third == first


def test_a_mistake_in_a_merged_key_is_shown_where_it_was_written(write: Write) -> None:
    text = changed("      - kind: webhook\n", "      - &hook\n        kind: webhook\n").replace(
        "      - kind: mqtt\n        secret: a-long-password-of-the-platform\n", "      - <<: *hook\n"
    )
    problems = problems_of(write(text.replace("timeout_s: 5", "timeout_s: 500")))
    assert [(one.line, one.where) for one in problems] == [
        (23, "parties[1].channels[0].timeout_s"),
        (23, "parties[1].channels[1].timeout_s"),
    ]


def test_an_anchor_may_be_used_again(write: Write) -> None:
    text = changed("site: test-site", "site: &a test-site").replace("locale: zh-CN", "locale: &a zh-CN")
    assert load(write(text), today=TODAY).problems == []


def test_yaml_1_2_and_windows_line_ends_and_a_byte_order_mark(write: Write) -> None:
    text = changed(
        "{conditions: [高血压], blood: A+}", "{smoker: no, since: 2019-05-01, 120: 0o17, ratio: 1.5e1, x: ~}"
    )
    path = write(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    person = load(path, today=TODAY).site.households[0].persons[0]
    assert person.health == {"smoker": "no", "since": "2019-05-01", "120": 15, "ratio": 15.0, "x": None}


def test_health_holds_nothing_that_json_cannot_say(write: Write) -> None:
    digits = sys.get_int_max_str_digits() + 1
    text = changed("{conditions: [高血压], blood: A+}", f"{{a: .nan, b: 1e999, c: {'9' * digits}, d: 2019-13-01}}")
    health = load(write(text), today=TODAY).site.households[0].persons[0].health
    assert health == {"a": ".nan", "b": "1e999", "c": "9" * digits, "d": "2019-13-01"}


def test_today_is_that_of_the_site(write: Write) -> None:
    assert load(write(GOOD)).problems == []


def test_parts_become_values_of_the_directory(write: Write) -> None:
    site = load(write(GOOD), today=TODAY).site
    hotline, daughter = (to_party(site, party) for party in site.parties)
    assert (hotline.district, daughter.district) == ("320102", "320104")
    assert hotline.channels == (directory.ChannelSpec(kind="stream"),)
    assert [channel.kind for channel in daughter.channels] == ["webhook", "mqtt"]
    assert daughter.channels[0].options == {
        "url": "https://example.org/guardian",
        "secret": "whsec_Z3VhcmRpYW4tZGVtby1zZWNyZXQtMDAwMDAwMDAwMDA=",
        "timeout_s": 5,
    }

    household = to_household(site, site.households[0])
    assert household == to_household(site, site.households[0], parties={one.id: one for one in (hotline, daughter)})
    assert household.parties == (daughter, hotline)
    assert household.site == "test-site"
    assert household.address.text() == "玄武区梅园新村街道501室"
    assert (household.address.lat, household.address.lon, household.address.datum) == (32.0611, 118.7921, "wgs84")
    assert household.persons[0].age(TODAY) == 85
    assert household.persons[0].health == {"conditions": ["高血压"], "blood": "A+"}

    plan = to_plan(site.plans[0], version=3)
    assert plan == Plan(
        id="emergency", version=3, kinds=("sos", "fall"), roles=("guardian", "hotline"), privacy={"guardian": "full"}
    )


def test_nanjing_tells_the_six_parties_of_the_standard_at_once() -> None:
    site = load(EXAMPLES / "nanjing.yaml", today=TODAY).site
    assert site.households[0].id == "wang-501"
    assert site.terminals[0].id == "860000000000001"
    assert site.terminals[0].secret == "only-for-demos-and-tests"
    plans = [to_plan(plan, version=1) for plan in site.plans]
    for entry in site.households:
        household = to_household(site, entry)
        legs = legs_for(["sos"], plans=plans, parties=household.parties, fallback=())
        assert {leg.role for leg in legs} == {
            "guardian",
            "hotline",
            "service_center",
            "community",
            "district",
            "ambulance_120",
        }
        assert all(leg.party is not None and leg.problem is None for leg in legs)
    ports = {channel.options["url"][:21] for party in site.parties for channel in to_party(site, party).channels[:1]}
    assert ports == {f"http://127.0.0.1:{port}" for port in range(9001, 9007)}


def test_beijing_adds_119_for_fire_and_keeps_110_for_the_operator() -> None:
    site = load(EXAMPLES / "beijing.yaml", today=TODAY).site
    plans = [to_plan(plan, version=1) for plan in site.plans]
    named = {"ambulance_120", "relative", "emergency_contact", "care_station", "neighbourhood_committee", "neighbour"}
    for entry in site.households:
        household = to_household(site, entry)
        assert "police_110" in {party.role for party in household.parties}
        for kind, extra in (("sos", set()), ("fall", set()), ("smoke", {"fire_119"}), ("gas", {"fire_119"})):
            legs = legs_for([kind], plans=plans, parties=household.parties, fallback=())
            assert {leg.role for leg in legs} == named | extra | {"hotline"}
            assert all(leg.party is not None and leg.problem is None for leg in legs)


def test_both_cities_use_known_roles_only() -> None:
    for name in ("nanjing", "beijing"):
        site = load(EXAMPLES / f"{name}.yaml", today=TODAY).site
        assert {party.role for party in site.parties} <= set(KNOWN_ROLES)


def test_two_hundred_households_load_and_are_checked(write: Write) -> None:
    households = "".join(SECOND_HOUSEHOLD.format(id=f"h-{n}", person=f"p-{n}", terminal=f"t-{n}") for n in range(200))
    terminals = "".join(f"  - {{id: t-{n}, model: okt-1}}\n" for n in range(200))
    text = changed("\nterminals:\n", f"\n{households}terminals:\n{terminals}")
    assert load(write(text), today=TODAY).problems == []
    unknown = text.replace("parties: [daughter, hotline]", "parties: [daughter, hotlime]")
    assert len([one for one in problems_of(write(unknown)) if "there is no party hotlime" in one.what]) == 201
