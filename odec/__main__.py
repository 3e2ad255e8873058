"""`python -m odec` is the command `odec`."""

import sys

from odec.cli import main

sys.exit(main())
