"""Errors a user meets. Each carries one line: what is wrong, where, and what was expected.

The tools print that line and exit with status 2; a stack trace appears only with `debug=true`.
"""

# Ends the line about whatever was made with temporal kind `chunk` (docs/log.md says why it went).
RETIRED = "temporal=chunk, which this version no longer reads: vidlbc 0.1.0 is the last one that does"


class VidlbcError(Exception):
    """Base of every error that vidlbc raises on purpose."""


class InputError(VidlbcError, ValueError):
    """A path, a value or a configuration is not what was expected."""


class VideoError(VidlbcError):
    """A media file cannot be read, or lacks what was asked of it."""


class BitstreamError(VidlbcError):
    """A bitstream is damaged, truncated or of an unknown format."""


class WeightsMismatch(BitstreamError):
    """A bitstream was written with other weights than those at hand."""


class ShardError(VidlbcError):
    """A shard, a manifest or a plan is damaged or does not fit the run."""


def one_line(error: Exception, most: int = 200) -> str:
    """What another library says, fit to be part of a line: at most that many characters, all of them printable."""
    text = " ".join(str(error).split())[:most]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) or type(error).__name__


def check_switch(name: str, value: object) -> None:
    """Raises InputError where a switch that may be left open is anything else."""
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name}={value}: expected true, false or null")
