"""Accuracy against true bits: one probe on latents, decoded frames, x264 at the same bytes, and source pixels."""
