"""python -m vidlbc COMMAND ...: as `vidlbc COMMAND ...`."""

from vidlbc.commands import main

if __name__ == "__main__":
    main()
