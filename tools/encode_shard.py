"""A door to vidlbc/commands/encode_shard.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("encode_shard")
