"""`python -m afpjax`, the same as `python -m afpjax.run`."""

import sys

from afpjax.run import main

sys.exit(main())
