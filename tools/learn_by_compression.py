"""A door to vidlbc/experiments/learning_by_compression/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("learn_by_compression")
