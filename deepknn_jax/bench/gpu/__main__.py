"""`python -m deepknn_jax.bench.gpu SECTION FILE.json`: one section, in this process."""

import sys
from pathlib import Path

from deepknn_jax.bench.gpu.command import measure

if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
