"""Reports to look at: one self-contained HTML file that works offline, on a laptop and a phone, light and dark."""

from vidlbc.report.evaluation import make_player, write_evaluation_report
from vidlbc.report.page import Page
from vidlbc.report.player import Panel, Player

__all__ = ["Page", "Panel", "Player", "make_player", "write_evaluation_report"]
