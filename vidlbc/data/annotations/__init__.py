"""Annotation families, each read as it was distributed; which one it is, is told from content."""
