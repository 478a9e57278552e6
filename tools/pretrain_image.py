"""A door to vidlbc/commands/pretrain_image.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("pretrain_image")
