"""The tools of a checkout by name:  python -m vidlbc offline pack ...  is  python tools/offline.py pack ..."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    tools = Path(__file__).resolve().parent.parent / "tools"
    known = sorted(path.stem for path in tools.glob("*.py"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        wanted = f"expected one of {', '.join(known)}" if known else "the tools run from a checkout of vidlbc"
        print(f"error: python -m vidlbc {name}: no such tool; {wanted}", file=sys.stderr)
        sys.exit(2)
    sys.argv = sys.argv[1:]
    runpy.run_path(str(tools / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
