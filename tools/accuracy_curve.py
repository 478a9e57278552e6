"""A door to vidlbc/experiments/accuracy_curve/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("accuracy_curve")
