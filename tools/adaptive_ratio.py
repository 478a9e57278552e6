"""A door to vidlbc/experiments/learning_by_compression/adaptive_ratio_command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("adaptive_ratio")
