"""One HTML file: style, script, data and videos are all in it, nothing is fetched.

    Page.table, .text, .curves, .player ... --> Page.write(path)
"""

import base64
import html
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import InputError
from vidlbc.shards.layout import write_atomic
from vidlbc.video import write_mp4

# Of the videos in the page: near what the eye can tell from the decoded frames; the captions have the true figures.
_SHOWN_CRF = 12


@dataclass(frozen=True)
class Panel:
    """One choice of a player: frames uint8 (T, H, W, 3), a name and what is to be said of them."""

    name: str
    caption: str
    frames: np.ndarray


@dataclass(frozen=True)
class Player:
    """Panels of the same clip, two at a time with a divider. Raises InputError where their shapes differ."""

    panels: tuple[Panel, ...]
    fps: Fraction | float

    def __post_init__(self) -> None:
        if len({panel.frames.shape for panel in self.panels}) != 1:
            raise InputError("a player's panels must be frames of the same clip")

    def video(self) -> bytes:
        """An mp4 with the panels below one another: one video cannot run apart from itself."""
        stacked = np.concatenate([_even(panel.frames) for panel in self.panels], axis=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "panels.mp4"
            write_mp4(path, stacked, self.fps, crf=_SHOWN_CRF)
            return path.read_bytes()

    def spec(self) -> dict[str, Any]:
        height, width = _even(self.panels[0].frames).shape[1:3]
        told = [{"name": panel.name, "caption": panel.caption} for panel in self.panels]
        return {"width": width, "height": height, "panels": told}


def _even(frames: np.ndarray) -> np.ndarray:
    """4:2:0 pictures have even sides; a panel must begin on one."""
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")


@dataclass
class Page:
    """Sections in the order in which they are added."""

    title: str
    footer: str = ""
    _sections: list[str] = field(default_factory=list)
    _data: dict[str, Any] = field(default_factory=lambda: {"curves": [], "charts": [], "players": []})

    def heading(self, text: str) -> None:
        self._sections.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, note: bool = False) -> None:
        kind = ' class="note"' if note else ""
        self._sections.append(f"<p{kind}>{html.escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]], signed: bool = False) -> None:
        """`signed`: numbers below 0 are marked as good, above as bad (rates)."""
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in header)
        body = "".join(f"<tr>{''.join(_cell(value, signed) for value in row)}</tr>" for row in rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._sections.append(f'<div class="scroll">{table}</div>')

    def curves(self, curves: Mapping[str, Sequence[Mapping[str, Any]]], charts: Sequence[Mapping[str, Any]]) -> None:
        """Points of each curve by name, `label` and numbers; charts: x, y (names of numbers), xname, yname, xunit,
        yunit, digits. x is logarithmic. Once a page."""
        self._data["curves"] = [{"name": name, "points": [dict(p) for p in points]} for name, points in curves.items()]
        self._data["charts"] = [dict(chart) for chart in charts]
        self._sections.append('<div class="legend" id="legend"></div>')
        figures = "".join(f'<figure data-chart="{index}"></figure>' for index in range(len(charts)))
        self._sections.append(f'<div class="charts">{figures}</div>')

    def player(self, player: Player) -> None:
        index = len(self._data["players"])
        self._data["players"].append(player.spec())
        video = base64.b64encode(player.video()).decode()
        self._sections.append(
            f'<div class="player" data-player="{index}"><video muted loop playsinline preload="auto" '
            f'src="data:video/mp4;base64,{video}"></video><canvas></canvas></div>'
            '<div class="bar"><button type="button">play</button><input type="range" min="0" max="1" step="0.001" '
            'value="0" aria-label="time"><select aria-label="left"></select><select aria-label="right"></select></div>'
            '<p class="note"></p>'
        )

    def picture(self, png: bytes, caption: str) -> None:
        data = base64.b64encode(png).decode()
        text = html.escape(caption)
        self._sections.append(
            f'<figure><img style="max-width:100%" alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        parts = {name: files(__package__).joinpath(name).read_text(encoding="utf-8") for name in _PARTS}
        # "<" would end the script element where a name holds "</script>".
        data = json.dumps(_finite(self._data), allow_nan=False).replace("<", "\\u003c")
        filled = {
            "title": html.escape(self.title), "style": parts["style.css"], "sections": "\n".join(self._sections),
            "footer": html.escape(self.footer), "data": data, "script": parts["page.js"],
        }  # fmt: skip
        pieces = parts["page.html"].split("{{")
        text = pieces[0]
        for piece in pieces[1:]:
            name, rest = piece.split("}}", 1)
            text += filled[name] + rest
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8"))


_PARTS = ("page.html", "style.css", "page.js")


def _cell(value: Any, signed: bool) -> str:
    if value is None:
        return "<td>-</td>"
    if not signed or not str(value).startswith(("+", "-")):
        return f"<td>{html.escape(str(value))}</td>"
    return f'<td class="{"good" if str(value).startswith("-") else "bad"}">{html.escape(str(value))}</td>'


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: they become null."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
