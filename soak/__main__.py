"""Run it from the command line. Apart from run.py, so that worker processes find that by name."""

import sys

from .run import main

sys.exit(main())
