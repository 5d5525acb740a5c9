"""A font with Chinese for reports: the one that is set, else one of the system's, else Adobe's that viewers bring."""

import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from gateway.config import ConfigError

__all__ = ["BUILT_IN", "font_for"]

_log = logging.getLogger(__name__)

BUILT_IN = "STSong-Light"
"""Not embedded: every viewer has to bring it. Others are embedded as far as they are used."""

_NEEDED = "救援报告时间线"
_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_KNOWN = (
    "sourcehansanssc-regular",
    "sourcehansanscn-regular",
    "notosanssc-regular",
    "notosanscjk-regular",
    "notosanscjksc-regular",
    "msyh",
    "deng",
    "pingfang",
    "wqy-microhei",
    "wqy-zenhei",
    "simhei",
    "stheiti light",
    "simsun",
    "droidsansfallbackfull",
    "uming",
    "ukai",
    "gbsn00lp",
)
"""Names of files, the best first. Fonts with PostScript outlines cannot be embedded and are passed over."""


@lru_cache
def font_for(path: Path | None) -> str:
    """Return the name of a font with Chinese that is ready to be used; `path` is the one that is set.

    Raises:
        ConfigError: The font that is set cannot be used.
    """
    if path is not None:
        name = _registered(path)
        if name is None:
            raise ConfigError(f"report_font: {path} is no TrueType font with Chinese")
        return name
    for found in _of_the_system():
        if (name := _registered(found)) is not None:
            return name
    _log.warning("no TrueType font with Chinese was found: reports need a viewer that brings one; set report_font")
    pdfmetrics.registerFont(UnicodeCIDFont(BUILT_IN))
    return BUILT_IN


def _registered(path: Path) -> str | None:
    name = f"onekey-{path.stem}"
    try:
        font = TTFont(name, str(path), subfontIndex=0)
    except (TTFError, OSError):
        return None
    if any(ord(char) not in font.face.charToGlyph for char in _NEEDED):
        return None
    pdfmetrics.registerFont(font)
    return name


def _of_the_system() -> Iterator[Path]:
    data = os.environ.get("XDG_DATA_HOME")
    folders = [Path(folder).expanduser() for folder in _FOLDERS] + ([Path(data) / "fonts"] if data else [])
    found: dict[str, Path] = {}
    for folder in folders:
        for pattern in ("*.ttf", "*.ttc", "*.TTF", "*.TTC"):
            for file in folder.rglob(pattern):
                found.setdefault(file.stem.lower(), file)
    for name in _KNOWN:
        if name in found:
            yield found[name]
