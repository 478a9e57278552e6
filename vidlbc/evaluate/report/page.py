"""One HTML file: style, script, data and videos are all in it, nothing is fetched.

Page.table, .text, .curves, .accuracy, .player ... --> Page.write(path)
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidlbc.errors import InputError
from vidlbc.evaluate.report.player import Player
from vidlbc.run.atomic_files import write_atomic
from vidlbc.video import writes_mp4

_SHOWN_SIDE = 520  # of the pictures under the maps
_SCRIPTS = ("page.js", "charts.js", "pictures.js")
_PARTS = ("page.html", "style.css", *_SCRIPTS)
_KINDS = ("curves", "charts", "players", "accuracy", "series", "confusions", "maps")
_POINT = ("medium", "head", "qp", "bytes", "bpp", "top1", "ci95", "clips")
_LONG = 24  # rows; a longer table scrolls in a box of its own
_BRIGHTEST = 0.998  # of all cells; the few beyond would leave the rest in the dark


@dataclass
class Page:
    """Sections in the order in which they are added."""

    title: str
    footer: str = ""
    _sections: list[str] = field(default_factory=list)
    _data: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _KINDS})

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
        self._sections.append(f'<div class="scroll{" long" * (len(rows) > _LONG)}">{table}</div>')

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Names and values, such as settings; long values are broken into lines."""
        rows = "".join(f"<tr>{_cell(name, False)}{_cell(value, False)}</tr>" for name, value in facts.items())
        long = " long" * (len(facts) > _LONG)
        self._sections.append(f'<div class="scroll{long}"><table class="facts"><tbody>{rows}</tbody></table></div>')

    def tiles(self, tiles: Sequence[tuple[str, str, str]]) -> None:
        """The figures that matter most: (what it is, the figure, what belongs beside it)."""
        made = (
            f'<div class="tile"><span>{html.escape(name)}</span><b>{html.escape(figure)}</b>'
            f"<span>{html.escape(beside)}</span></div>"
            for name, figure, beside in tiles
        )
        self._sections.append(f'<div class="tiles">{"".join(made)}</div>')

    def curves(self, curves: Mapping[str, Sequence[Mapping[str, Any]]], charts: Sequence[Mapping[str, Any]]) -> None:
        """Points of each curve by name, `label` and numbers; charts: x, y (names of numbers), xname, yname, xunit,
        yunit, digits. x is logarithmic. Once a page."""
        self._data["curves"] = [{"name": name, "points": [dict(p) for p in points]} for name, points in curves.items()]
        self._data["charts"] = [dict(chart) for chart in charts]
        self._sections.append('<div class="legend" id="legend"></div>')
        figures = "".join(f'<figure data-chart="{index}"></figure>' for index in range(len(charts)))
        self._sections.append(f'<div class="charts">{figures}</div>')

    def accuracy(self, points: Sequence[Mapping[str, Any]], chance: float | None = None) -> None:
        """Top-1 against the bytes of a clip, with 95% intervals, and the same as a table.

        A point: `medium` (str), `head` (str), `qp` (int, or None for what has no quality), `bytes` (mean of a clip),
        `bpp` (or None), `top1` and `ci95` (low, high), fractions, and `clips` (the denominator). A line a medium, or a
        medium and head where there are several heads; points without a quality, such as source pixels, are horizontal
        bands, as their bytes may lie far away. `chance`: top-1 of a guess. Raises InputError for a point that is not
        so.
        """
        for point in points:
            _check_point(point)
        several = len({point["head"] for point in points}) > 1
        lines: dict[str, list[dict[str, Any]]] = {}
        for point in points:
            name = f"{point['medium']}, {point['head']}" if several else str(point["medium"])
            lines.setdefault(name, []).append({key: point[key] for key in _POINT})
        index = self._add(
            "accuracy",
            {
                "chance": chance,
                "lines": [
                    {"name": name, "points": some, "reference": all(point["qp"] is None for point in some)}
                    for name, some in lines.items()
                ],
            },
        )
        self._sections.append(f'<div data-accuracy="{index}"><div class="legend"></div><figure></figure></div>')
        header = ["input", "head", "qp", "bytes a clip", "bit/pixel", "top-1", "95% interval", "clips"]
        self.table(header, [_accuracy_row(point) for some in lines.values() for point in some])

    def series(
        self,
        title: str,
        series: Mapping[str, Sequence[float | None]],
        xname: str,
        yname: str,
        x: Sequence[float] | None = None,
        stacked: bool = False,
        digits: int = 1,
    ) -> str:
        """Values over frames or steps, a line each or bars on one another; None leaves a gap in a line.

        Returns the chart for `row`. `x`: by default 0, 1, ... Raises InputError where lengths differ.
        """
        places = list(range(len(next(iter(series.values()))))) if x is None else list(x)
        for name, values in series.items():
            if len(values) != len(places):
                raise InputError(f"series '{name}' has {len(values)} values for {len(places)} places")
        index = self._add(
            "series",
            {
                "x": places,
                "xname": xname,
                "yname": yname,
                "stacked": stacked,
                "digits": digits,
                "series": [{"name": name, "values": list(values)} for name, values in series.items()],
            },
        )
        return (
            f'<div data-series="{index}"><h3>{html.escape(title)}</h3><div class="legend"></div><figure></figure></div>'
        )

    def row(self, charts: Sequence[str]) -> None:
        """Charts beside one another, or below one another where there is no room."""
        self._sections.append(f'<div class="charts">{"".join(charts)}</div>')

    def confusion(self, classes: Sequence[str], counts: Mapping[str, np.ndarray]) -> None:
        """Confusion matrices by input, counts (true, predicted), one at a time, and the accuracy of each class."""
        index = self._add(
            "confusions",
            {
                "classes": list(classes),
                "counts": {name: _sparse(np.asarray(c)) for name, c in counts.items()},
            },
        )
        self.row(
            [
                f'<div data-confusion="{index}"><h3>Confusion</h3><div class="bar"><select aria-label="input"></select>'
                '</div><div class="grid-of-classes"></div></div>',
                f'<div data-classes="{index}"><h3>Accuracy of each class</h3><div class="legend"></div>'
                "<figure></figure></div>",
            ]
        )

    def bit_maps(self, pictures: np.ndarray, frames: Sequence[int], maps: Mapping[str, np.ndarray], cell: int) -> None:
        """Where the bits go: pictures uint8 (n, H, W, 3), their frame numbers, and by name the bits of each cell of
        `cell` x `cell` pixels, (n, rows, columns)."""
        n, height, width = pictures.shape[:3]
        spread = {name: bits / cell**2 for name, bits in maps.items()}
        highest = max((float(np.quantile(bits, _BRIGHTEST)) for bits in spread.values()), default=0.0) or 1.0
        rows, columns = next(iter(maps.values())).shape[1:]
        index = self._add(
            "maps",
            {
                "width": width,
                "height": height,
                "cell": cell,
                "rows": rows,
                "columns": columns,
                "highest": highest,
                "frames": list(frames),
                "pictures": [_jpeg(picture) for picture in pictures],
                "maps": [
                    {"name": name, "bits": maps[name].sum((1, 2)).tolist(), "shares": _shares(bits / highest)}
                    for name, bits in spread.items()
                ],
            },
        )
        self._sections.append(
            f'<div data-maps="{index}"><div class="maps"></div><div class="bar">'
            f'<label><output>frame</output><input type="range" min="0" max="{n - 1}" step="1" value="{n // 2}" '
            'aria-label="frame"></label><label>map over picture <input type="range" min="0" max="1" step="0.05" '
            'value="0.6" aria-label="strength of the map"></label></div><div class="key"><canvas class="scale" '
            'width="256" height="1"></canvas><div class="marks"></div>bit/pixel</div></div>'
        )

    def _add(self, kind: str, spec: dict[str, Any]) -> int:
        self._data[kind].append(spec)
        return len(self._data[kind]) - 1

    def player(self, player: Player) -> None:
        """The clips; a line in their place where no mp4 can be written."""
        if not writes_mp4():
            self.text("No clips to look at: PyAV, which writes the video, is not installed.", note=True)
            return
        index = self._add("players", player.spec())
        data, shown = player.video()
        video = base64.b64encode(data).decode()
        self._sections.append(
            f'<div class="player" data-player="{index}"><video muted loop playsinline preload="auto" '
            f'src="data:video/mp4;base64,{video}"></video><canvas></canvas></div>'
            '<div class="bar"><button type="button">play</button><input type="range" min="0" max="1" step="0.001" '
            'value="0" aria-label="time"><select aria-label="left"></select><select aria-label="right"></select></div>'
            '<p class="note"></p>'
        )
        total = len(player.panels[0].frames)
        if shown < total:
            self.text(f"Shown: the first {shown} of {total} frames, to keep this page small.", note=True)

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
            "title": html.escape(self.title),
            "style": parts["style.css"],
            "sections": "\n".join(self._sections),
            "footer": html.escape(self.footer),
            "data": data,
            "script": "".join(parts[name] for name in _SCRIPTS),
        }
        pieces = parts["page.html"].split("{{")
        text = pieces[0]
        for piece in pieces[1:]:
            name, rest = piece.split("}}", 1)
            text += filled[name] + rest
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8"))


def _check_point(point: Mapping[str, Any]) -> None:
    """Raises InputError where a point of the accuracy chart lacks something."""
    missing = [name for name in _POINT if name not in point]
    if missing:
        raise InputError(f"accuracy point {dict(point)} lacks {', '.join(missing)}")
    low, high = point["ci95"]
    if not point["bytes"] > 0 or not 0 <= low <= high <= 1 or not 0 <= point["top1"] <= 1:
        raise InputError(f"accuracy point {dict(point)}: expected bytes above 0, and fractions from 0 to 1")


def _accuracy_row(point: Mapping[str, Any]) -> list[Any]:
    rate = None if point["bpp"] is None else f"{point['bpp']:.4f}"
    low, high = point["ci95"]
    interval = f"{100 * low:.1f} to {100 * high:.1f}%"
    row = [point["medium"], point["head"], point["qp"], f"{point['bytes']:,.0f}", rate]
    return [*row, f"{100 * point['top1']:.1f}%", interval, point["clips"]]


def _sparse(counts: np.ndarray) -> list[list[int]]:
    """(true, predicted, count) of what occurs: a table of hundreds of classes is mostly zeros."""
    return [[int(i), int(j), int(counts[i, j])] for i, j in zip(*np.nonzero(counts), strict=True)]


def _jpeg(picture: np.ndarray) -> str:
    """uint8 (H, W, 3) -> a data URI, no larger than a map is shown."""
    image = Image.fromarray(picture)
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    sink = io.BytesIO()
    image.save(sink, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"


def _shares(shares: np.ndarray) -> str:
    """The root of each share of the highest value, in 255 steps: low values are most of a map."""
    stored = (255 * np.sqrt(shares.clip(0, 1))).round().astype(np.uint8)
    return base64.b64encode(stored.tobytes()).decode()


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
