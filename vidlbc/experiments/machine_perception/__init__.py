"""Compression for machine perception (Codevilla et al., arXiv 2111.02249), on clips."""
