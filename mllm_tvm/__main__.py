"""``python -m mllm_tvm``: the command line."""

import sys

from mllm_tvm.cli import main

sys.exit(main())
