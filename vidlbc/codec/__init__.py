"""Frames to bytes and back, exactly.

    frames --image_stage--> symbols at several strides --temporal_stage, prior, motion--> distributions
           --entropy--> packets --bitstream--> bytes of one clip, and all of it backwards; coding/ joins the steps

`vidlbc.codec.load` builds a codec from a model folder (vidlbc.codec.models).
"""
