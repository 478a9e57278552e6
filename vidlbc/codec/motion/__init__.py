"""Motion: the temporal stage predicts from decoded pictures, moved.

    decoded latents of t-1 --reference synthesis--> reference picture --vectors of t--> moved picture
    moved picture --prediction analysis--> predicted latents and features of t --> prior of t's symbols

    field.py        block vectors, and the levels that they are coded as
    warp.py         a picture moved by block vectors
    search.py       vectors of a frame, on the encoder's side; any search decodes
    networks.py     reference synthesis and prediction analysis
    prior.py        distributions of vectors

Latents of a moved picture are not the moved latents (strides of 8 to 32 pixels alias), but the previous picture, moved
and analysed again, predicts them nearly as well as their own rounding keeps them. A decoder repeats all of it, so all
of it but the search is exact (vidlbc.codec.prior.grid).
"""
