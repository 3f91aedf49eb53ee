"""``python -m pytorch_lightning COMMAND``: the commands of ``pytorch_lightning.commands``, by name."""

import sys

from pytorch_lightning.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
