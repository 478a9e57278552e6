"""A door to vidlbc/qa/benchmark/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("benchmark")
