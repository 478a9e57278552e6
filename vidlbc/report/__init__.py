"""Reports to look at: one self-contained HTML file that works offline, on a laptop and a phone, light and dark."""

from vidlbc.report.clip import SHOWN_FRAMES, ShownClip, add_clip, show_clip
from vidlbc.report.environment import environment
from vidlbc.report.evaluation import choose_clip, write_evaluation_report
from vidlbc.report.page import Page
from vidlbc.report.player import Panel, Player

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
