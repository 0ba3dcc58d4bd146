"""Train a net, evaluate it, count its compute and look for filters that do nothing.

  python -m rice_jax.main --config=configs/final.py [--workdir=DIR] [--stages=train,evaluate,...]

The same as `rice-jax train`, whose --help tells the rest.
"""

import sys

from rice_jax.commands.entry import enter

if __name__ == "__main__":
    enter(["train", *sys.argv[1:]])
