"""The demo corpus, see vidlbc/data/motions.py:  python datasets/make_motions.py out/demo/videos"""

import sys

from vidlbc.data.motions import main

if __name__ == "__main__":
    sys.exit(main())
