"""A door to vidlbc/experiments/machine_perception/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("machine_perception")
