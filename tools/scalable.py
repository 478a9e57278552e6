"""A door to vidlbc/experiments/scalable/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("scalable")
