"""Which network makes the better codec at equal compute."""
