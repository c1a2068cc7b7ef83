"""Dies before it is ready."""

import sys

sys.exit("no luck today")
