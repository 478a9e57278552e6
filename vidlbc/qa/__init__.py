"""Quality: speed and memory beside other codecs, fuzzing, long runs under bad conditions."""
