"""Scalable, task-compatible coding (de Andrade and Bajic, arXiv 2405.10244)."""
