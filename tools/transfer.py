"""A door to vidlbc/experiments/transfer/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("transfer")
