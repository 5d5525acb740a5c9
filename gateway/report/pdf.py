"""The report on paper: A4, black on white, one page where the case is short."""

import io
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from gateway.report.compose import answer_text
from gateway.report.fonts import font_for
from gateway.report.words import Words, words_of
from schemas.report import ReportOut, ReportParty, ReportPerson

__all__ = ["render_pdf"]

_MARGIN = 15 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_INK = colors.HexColor("#1b2430")
_SOFT = colors.HexColor("#5b6675")
_LINE = colors.HexColor("#c9d0d9")
_TINT = colors.HexColor("#eef2f7")
_BLUE = colors.HexColor("#1f4e79")
_RED = colors.HexColor("#b3261e")
_GREEN = colors.HexColor("#1b7a43")

_OTHER_DAY = "%m-%d %H:%M"

Cells = list[list[Any]]


def render_pdf(report: ReportOut, *, font: Path | None = None) -> bytes:
    """Return the report as a PDF document.

    Raises:
        ConfigError: The font that is set cannot be used.
    """
    return _Sheet(report, font_for(font)).rendered()


class _Numbered(Canvas):  # type: ignore[misc]  # reportlab has no types
    """Writes the foot of every page when their number is known."""

    def __init__(self, *args: Any, foot: "_Foot", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._foot = foot
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._pages, start=1):
            self.__dict__.update(page)
            self._foot.draw(self, number, len(self._pages))
            super().showPage()
        super().save()


class _Foot:
    def __init__(self, font: str, left: str, page: str) -> None:
        self._font, self._left, self._page = font, left, page

    def draw(self, canvas: Canvas, number: int, pages: int) -> None:
        canvas.saveState()
        canvas.setStrokeColor(_LINE)
        canvas.setLineWidth(0.4)
        canvas.line(_MARGIN, 12.5 * mm, A4[0] - _MARGIN, 12.5 * mm)
        canvas.setFont(self._font, 7)
        canvas.setFillColor(_SOFT)
        canvas.drawString(_MARGIN, 8.5 * mm, self._left)
        canvas.drawRightString(A4[0] - _MARGIN, 8.5 * mm, self._page.format(page=number, pages=pages))
        canvas.restoreState()


class _Milestones(Flowable):  # type: ignore[misc]
    """The course of the rescue at a glance: a line with a point for every milestone that was reached."""

    def __init__(self, points: Sequence[tuple[str, str]], font: str) -> None:
        super().__init__()
        self._points, self._font = points, font
        self.width, self.height = _WIDTH, 15 * mm

    def draw(self) -> None:
        canvas, y = self.canv, 8.2 * mm
        step = _WIDTH / len(self._points)
        centres = [step * (n + 0.5) for n in range(len(self._points))]
        canvas.setStrokeColor(_BLUE)
        canvas.setLineWidth(1.2)
        canvas.line(centres[0], y, centres[-1], y)
        for n, (x, (name, after)) in enumerate(zip(centres, self._points, strict=True)):
            canvas.setFillColor(_RED if n == 0 else _BLUE)
            canvas.circle(x, y, 1.5 * mm, stroke=0, fill=1)
            canvas.setFillColor(_INK)
            canvas.setFont(self._font, 8)
            canvas.drawCentredString(x, y + 2.9 * mm, name)
            canvas.setFillColor(_SOFT)
            canvas.setFont(self._font, 7.5)
            canvas.drawCentredString(x, y - 4.9 * mm, after)


class _Sheet:
    """One report being laid out."""

    def __init__(self, report: ReportOut, font: str) -> None:
        self._report = report
        self._words: Words = words_of(report.language)
        self._font = font
        self._styles: dict[tuple[float, Any], ParagraphStyle] = {}

    def rendered(self) -> bytes:
        report, words = self._report, self._words
        out = io.BytesIO()
        document = BaseDocTemplate(
            out,
            pagesize=A4,
            leftMargin=_MARGIN,
            rightMargin=_MARGIN,
            topMargin=10 * mm,
            bottomMargin=15 * mm,
            title=f"{self._title()} {report.case}",
            author="onekey",
            subject=str(report.case),
            lang="zh-CN" if report.language == "zh" else "en",
        )
        frame = Frame(_MARGIN, 15 * mm, _WIDTH, A4[1] - 25 * mm, 0, 0, 0, 0)
        document.addPageTemplates(PageTemplate(frames=[frame]))
        foot = _Foot(self._font, f"{words['footer']} · {words['case']} {report.case}", words["page"])
        document.build(self._parts(), canvasmaker=lambda *args, **kwargs: _Numbered(*args, foot=foot, **kwargs))
        return out.getvalue()

    # Pieces

    def _text(self, text: str | None, *, size: float = 8, color: Any = _INK, align: int = 0) -> Paragraph:
        style = self._styles.get((size + align / 10, color))
        if style is None:
            style = ParagraphStyle(
                f"{size} {color} {align}",
                fontName=self._font,
                fontSize=size,
                leading=size * 1.25,
                textColor=color,
                alignment=align,
                wordWrap="CJK" if self._report.language == "zh" else None,
            )
            self._styles[size + align / 10, color] = style
        plain = "".join(char if char.isprintable() else " " for char in (text or self._words["none"]))
        return Paragraph(escape(plain, quote=False), style)

    def _soft(self, text: str) -> Paragraph:
        return self._text(text, size=7.5, color=_SOFT)

    def _heading(self, text: str) -> list[Flowable]:
        title = Table([[self._text(text, size=9.5, color=_BLUE)]], colWidths=[_WIDTH])
        title.setStyle(
            TableStyle(
                [
                    ("LINEBELOW", (0, 0), (-1, -1), 0.8, _BLUE),
                    ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("TOPPADDING", (0, 0), (-1, -1), 2.5),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
                ]
            )
        )
        title.keepWithNext = True
        return [title]

    def _table(self, head: Sequence[str], rows: Cells, widths: Sequence[float]) -> Table:
        cells = [[self._soft(name) for name in head], *rows]
        table = Table(cells, colWidths=[_WIDTH * width for width in widths], repeatRows=1)
        table.setStyle(
            TableStyle(
                [
                    ("BACKGROUND", (0, 0), (-1, 0), _TINT),
                    ("LINEBELOW", (0, 0), (-1, -1), 0.3, _LINE),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 2.5),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 2.5),
                    ("TOPPADDING", (0, 0), (-1, -1), 0.8),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 1.1),
                ]
            )
        )
        return table

    def _grid(self, pairs: Sequence[tuple[str, str | None]], *, columns: int = 2) -> Table:
        """Return names with values, side by side where there are two columns."""
        filled = [*pairs, *([("", "")] * (-len(pairs) % columns))]
        rows = [
            [cell for name, value in filled[n : n + columns] for cell in (self._soft(name), self._text(value))]
            for n in range(0, len(filled), columns)
        ]
        name, value = (0.125, 0.375) if columns == 2 else (0.125, 0.875)
        table = Table(rows, colWidths=[_WIDTH * width for width in (name, value) * columns])
        table.setStyle(
            TableStyle(
                [("BACKGROUND", (column, 0), (column, -1), _TINT) for column in range(0, 2 * columns, 2)]
                + [
                    ("GRID", (0, 0), (-1, -1), 0.3, _LINE),
                    ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 3),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 3),
                    ("TOPPADDING", (0, 0), (-1, -1), 1),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 1.2),
                ]
            )
        )
        return table

    # Parts

    def _parts(self) -> list[Flowable]:
        parts = [*self._head(), *self._summary(), *self._timeline(), *self._parties()]
        parts += [*self._tasks(), *self._facts(), *self._disclosures()]
        return [*parts, KeepTogether([*self._proof(), *self._signatures()])]

    def _title(self) -> str:
        words, case_class = self._words, self._report.case_class
        return words["title"] if case_class == "emergency" else words.name("title", case_class)

    def _head(self) -> list[Flowable]:
        report, words = self._report, self._words
        right = (
            f"{words['case']}{words['colon']}{report.case}",
            f"{words['made']}{words['colon']}{words.clock(report.made_at, report.timezone)}"
            + words.aside(report.timezone),
        )
        table = Table(
            [
                [
                    self._text(self._title(), size=17, color=_INK),
                    [self._text(line, size=7.5, color=_SOFT, align=2) for line in right],
                ]
            ],
            colWidths=[_WIDTH * 0.45, _WIDTH * 0.55],
        )
        table.setStyle(
            TableStyle(
                [
                    ("VALIGN", (0, 0), (-1, -1), "BOTTOM"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                    ("LINEBELOW", (0, 0), (-1, -1), 1.6, _BLUE),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
                ]
            )
        )
        notes = [words["test"]] if report.test else []
        if report.erased:
            notes.append(words["erased"])
        return [table, *(self._text(note, size=8.5, color=_RED) for note in notes), Spacer(1, 2 * mm)]

    def _summary(self) -> list[Flowable]:
        report, words = self._report, self._words
        people = words["stop"].join(self._person(person) for person in report.persons)
        pairs = [
            (words["person"], people or (words["erased_short"] if report.erased else None)),
            (words["kinds"], words.kinds(report.kinds) + self._pressed()),
            (words["terminal"], self._terminal()),
            (words["received"], self._received()),
            (words["site"], f"{report.site} · {report.district}"),
            (words["state"], words.name("state", report.state)),
            (words["owner"], self._owner()),
            (words["safe"], self._when(report.safe_by, report.safe_at)),
            (words["outcome"], words.name("outcome", report.outcome)),
            (words["closed"], self._when(report.closed_by, report.closed_at)),
        ]
        wide = [(words["address"], self._address()), (words["location"], self._location())]
        if report.note:
            wide.append((words["note"], report.note))
        if report.problem:
            wide.append((words["problem"], report.problem))
        if report.previous is not None:
            wide.append((words["previous"], str(report.previous)))
        return [self._grid(pairs), self._grid(wide, columns=1), Spacer(1, 1.5 * mm)]

    def _person(self, person: ReportPerson) -> str:
        words = self._words
        age = None if person.age is None else words["age"].format(n=person.age)
        return words["comma"].join(part for part in (person.name, age, person.phone) if part)

    def _pressed(self) -> str:
        words, count = self._words, len(self._report.presses)
        return "" if count < 2 else words.aside(words["pressed"].format(n=count))

    def _terminal(self) -> str:
        report, words = self._report, self._words
        press = report.presses[0] if report.presses else None
        battery = None if press is None or press.battery_pct is None else words["battery"].format(n=press.battery_pct)
        return words["comma"].join(
            part for part in (report.terminal or words["none"], report.household, battery) if part
        )

    def _received(self) -> str:
        report, words = self._report, self._words
        pressed = report.presses[0].pressed_at if report.presses else None
        theirs = (
            words["no_terminal_time"]
            if pressed is None
            else words["terminal_time"].format(time=words.clock(pressed, report.timezone, day=False))
        )
        return words.clock(report.received_at, report.timezone, tenths=True) + words.aside(theirs)

    def _owner(self) -> str | None:
        report, words = self._report, self._words
        if report.owner is None:
            return None
        first = report.first_owner or report.owner
        now = "" if first == report.owner else words.aside(words["owner_now"].format(who=report.owner))
        return f"{first}{now} · {words.clock(report.owned_at, report.timezone, day=False)}"

    def _when(self, who: str | None, at: datetime | None) -> str | None:
        return None if at is None else f"{self._words.who(who)} · {self._words.clock(at, self._report.timezone)}"

    def _address(self) -> str | None:
        address, words = self._report.address, self._words
        if address is None:
            return words["erased_short"] if self._report.erased else None
        more = [(words["landmark"], address.landmark), (words["approach"], address.approach)]
        return words["stop"].join([address.text, *(f"{name}{words['colon']}{text}" for name, text in more if text)])

    def _location(self) -> str:
        place, words = self._report.location, self._words
        if place is None:
            return words["erased_short"] if self._report.erased else words["no_location"]
        parts = [
            f"{place.lat:.6f}, {place.lon:.6f}" + words.aside(place.datum.upper()),
            words.name("source", place.source),
        ]
        if place.accuracy_m is not None:
            parts.append(words["accuracy"].format(n=f"{place.accuracy_m:.0f}"))
        if place.age_s is not None:
            parts.append(words["age_at_press"].format(age=words.after(place.age_s).lstrip("+")))
        return words["stop"].join(parts)

    def _timeline(self) -> list[Flowable]:
        report, words, times = self._report, self._words, self._report.times
        first = words.clock(report.received_at, report.timezone, day=False, tenths=True)
        reached = sorted(
            (after, words[f"milestone.{name}"].format(n=times.told))
            for name in ("stored", "told", "owned", "answered", "on_scene", "safe", "closed")
            if (after := getattr(times, f"{name}_s")) is not None
        )
        points = [(words["milestone.press"], first), *((name, words.after(after)) for after, name in reached)]
        colour = {"breached": _RED, "failed": _RED, "tries": _RED, "safe": _GREEN}
        rows = [
            [
                self._text(self._short(line.at, tenths=True)),
                self._text(words.after(line.after_s), color=_SOFT),
                self._text(line.text, color=colour.get(line.kind, _INK)),
            ]
            for line in report.timeline
        ]
        return [
            *self._heading(words["timeline"]),
            Spacer(1, 1 * mm),
            _Milestones(points, self._font),
            self._table([words["when"], words["elapsed"], words["event"]], rows, (0.12, 0.12, 0.76)),
        ]

    def _other_day(self, at: datetime) -> bool:
        clock, zone = self._words.clock, self._report.timezone
        return clock(at, zone)[:10] != clock(self._report.received_at, zone)[:10]

    def _parties(self) -> list[Flowable]:
        words, zone = self._words, self._report.timezone
        head = [words[name] for name in ("party", "addressed", "told", "channel", "answer")]
        rows = [
            [
                self._text(f"{words.name('role', party.role)} {party.name or party.party or ''}"),
                self._text(words.clock(party.addressed_at, zone, day=False, tenths=True)),
                self._text(None if party.told_after_s is None else words.after(party.told_after_s)),
                self._text(self._channel(party)),
                self._text(self._answer(party)),
            ]
            for party in self._report.parties
        ]
        return [*self._heading(words["parties"]), self._table(head, rows, (0.31, 0.12, 0.12, 0.15, 0.30))]

    def _channel(self, party: ReportParty) -> str | None:
        if party.channel is None:
            return None
        more = self._words.aside(self._words["tries"].format(n=party.tries)) if party.tries > 1 else ""
        return self._words.name("channel", party.channel) + more

    def _answer(self, party: ReportParty) -> str:
        words = self._words
        if not party.answers:
            state = words.name("leg", party.state)
            return state if party.told_at is None else words["no_answer"] + words.aside(state)
        last = party.answers[-1]
        return f"{words.after(last.after_s)} · {answer_text(last, words)}"

    def _tasks(self) -> list[Flowable]:
        words = self._words
        shown = [task for task in self._report.tasks if task.state != "skipped"]
        if not shown:
            return []
        head = [words[name] for name in ("task", "seat", "due", "done", "result", "by")]
        rows = [
            [
                self._text(task.title + words.aside(words["aftercare"] if task.aftercare else None)),
                self._text(words.name("seat", task.seat)),
                self._text(self._short(task.due_at)),
                self._text(self._short(task.ended_at)),
                self._text(
                    words.name("result", task.result) if task.state == "done" else words.name("step", task.state)
                ),
                self._text(
                    words["comma"].join(
                        part
                        for part in (
                            None if task.by is None else words.who(task.by),
                            words["late"] if task.breached_at is not None else None,
                        )
                        if part
                    )
                    or None,
                    color=_RED if task.breached_at is not None else _INK,
                ),
            ]
            for task in shown
        ]
        return [*self._heading(words["tasks"]), self._table(head, rows, (0.38, 0.09, 0.15, 0.15, 0.10, 0.13))]

    def _short(self, at: datetime | None, *, tenths: bool = False) -> str:
        """Return the time of the day, or day and minute on another day than that of the press."""
        if at is not None and self._other_day(at):
            return at.astimezone(ZoneInfo(self._report.timezone)).strftime(_OTHER_DAY)
        return self._words.clock(at, self._report.timezone, day=False, tenths=tenths)

    def _facts(self) -> list[Flowable]:
        report, words = self._report, self._words
        if not report.facts:
            return []
        known: dict[str, list[str]] = {}
        for fact in report.facts:
            said = words.aside(words.who(fact.by))
            text = f"{words.name('role', fact.role)} {self._short(fact.at)} {words.after(fact.after_s)}{said}"
            known.setdefault(words.name("fact", fact.fact), []).append(text)
        pairs = [(name, words["stop"].join(texts)) for name, texts in known.items()]
        return [*self._heading(words["facts"]), Spacer(1, 1 * mm), self._grid(pairs, columns=1)]

    def _disclosures(self) -> list[Flowable]:
        report, words = self._report, self._words
        if not report.disclosures:
            return []
        seen: dict[str, list[str]] = {}
        for one in report.disclosures:
            more = words.aside(words.name("privacy", one.privacy))
            text = f"{words.name('what', one.what)}{more} {words.clock(one.at, report.timezone)}"
            seen.setdefault(words.who(one.who), []).append(text)
        pairs = [(name, words["stop"].join(texts)) for name, texts in seen.items()]
        return [*self._heading(words["disclosures"]), Spacer(1, 1 * mm), self._grid(pairs, columns=1)]

    def _proof(self) -> list[Flowable]:
        report, words, proof = self._report, self._words, self._report.proof
        wrong = [*(one.what for one in proof.breaks), *proof.checkpoint_flaws]
        cover = (
            words["no_checkpoint"]
            if proof.checkpoint is None
            else words["checkpoint_is"].format(
                number=proof.checkpoint.number,
                at=words.clock(proof.checkpoint.at, report.timezone),
                n=proof.checkpoint.entries,
            )
        )
        pairs = [
            (
                words["chain"],
                words["chain_broken"].format(what=words["stop"].join(wrong))
                if wrong
                else words["chain_intact"].format(n=proof.entries),
            ),
            (words["head"], proof.head),
            (words["checkpoint"], cover),
            (words["check"], f"onekey case verify {report.case}"),
        ]
        return [*self._heading(words["proof"]), Spacer(1, 1 * mm), self._grid(pairs, columns=1)]

    def _signatures(self) -> list[Flowable]:
        words = self._words
        names = [words[f"sign.{name}"] for name in ("operator", "supervisor", "office", "date")]
        table = Table([[self._soft(name) for name in names]], colWidths=[_WIDTH / 4] * 4, rowHeights=[12.5 * mm])
        table.setStyle(
            TableStyle(
                [
                    ("GRID", (0, 0), (-1, -1), 0.3, _LINE),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 3),
                ]
            )
        )
        return [Spacer(1, 2 * mm), table]
