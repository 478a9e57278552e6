"""What vidlbc 0.1.0 wrote with temporal=chunk, and what is said of it."""

RETIRED = "temporal=chunk, which this version no longer reads: vidlbc 0.1.0 is the last one that does"
# The header of a stream: units of 4 frames.
CHUNK_HEADER = bytes.fromhex(
    "564c42430401251425b0ea01e907bf67c674f6fec7664b6f0ce03be98673056368756e6b0308051006200705060700040011022194"
)
