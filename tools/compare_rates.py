"""A door to vidlbc/experiments/rates/command.py."""

from vidlbc.commands import run_command

if __name__ == "__main__":
    run_command("compare_rates")
