"""`python -m klieg.cli` is the command `klieg`."""

import sys

from klieg.cli import main

sys.exit(main())
