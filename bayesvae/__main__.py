"""``python -m bayesvae``: the command line."""

import sys

from bayesvae.cli import main

sys.exit(main())
