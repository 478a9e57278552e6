"""Speed and memory, beside other codecs, in one run on one machine with one number of threads.

    clip.py      the frames that every contestant gets
    contestants  vidlbc | CompressAI image models | CompressAI ssf2020 | x265, as vidlbc.evaluate.codecs has them
    race.py      rounds of all contestants in turn, so that a busy machine slows them all alike; medians
    range_coder  symbols a second, without any network
    memory.py    peak memory of a fresh process against the length of the clip
    report.py    ratios as a table and as JSON

And by itself: what a frame costs, in time and memory, from clips of 100 frames to one of an hour.

    long.py      the videos, and processes that take turns
    long_worker  one process: clips of one length, encoded or decoded, with samples of time and memory
    long_report  a table, a verdict, JSON and a plot
"""
