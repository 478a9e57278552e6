"""Losses of the stages, one file each."""
