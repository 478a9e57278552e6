"""A door to vidlbc/commands/models.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("models")
