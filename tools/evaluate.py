"""A door to vidlbc/commands/evaluate.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("evaluate")
