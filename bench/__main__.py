"""`python -m bench` is `python -m bench.cli`."""

import sys

from .cli import main

sys.exit(main())
