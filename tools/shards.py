"""A door to vidlbc/commands/shards.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("shards")
