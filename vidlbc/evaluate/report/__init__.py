"""Reports to look at: one self-contained HTML file that works offline, on a laptop and a phone, light and dark."""

from vidlbc.evaluate.report.clip import SHOWN_FRAMES, ShownClip, add_clip, show_clip
from vidlbc.evaluate.report.environment import environment
from vidlbc.evaluate.report.evaluation import choose_clip, write_evaluation_report
from vidlbc.evaluate.report.page import Page
from vidlbc.evaluate.report.player import Panel, Player

__all__ = [
    "SHOWN_FRAMES",
    "Page",
    "Panel",
    "Player",
    "ShownClip",
    "add_clip",
    "choose_clip",
    "environment",
    "show_clip",
    "write_evaluation_report",
]
