"""Train a net, evaluate it, count its compute and look for filters that do nothing.

  python -m rice_jax.main --config=configs/final.py [--workdir=DIR] [--stages=train,evaluate,...]

Every field of the configuration can be set, as --config.train.epochs=10. Without
--config.data.path and without RICE_IMAGE_DATASET the images are the 1,000 photographs that come
with the package, and the run starts from the zoo's net where there is one of that name. The same
command given again goes on where the run in --workdir stands.
"""

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from rice_jax import cli, cluster
from rice_jax.stages import STAGES, run_stages

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/NAME.")
_STAGES = flags.DEFINE_list("stages", list(STAGES), f"Which of {', '.join(STAGES)} to do.")


def main(argv: Sequence[str]) -> None:
    """Run the stages that the flags ask for."""
    cluster.join()
    flag = flags.FLAGS["config"]
    given = config_flags.get_override_values(flag) if flag.value else {}
    with cluster.first_alone_speaks():
        run_stages(flag.value, _WORKDIR.value, _STAGES.value, given)


if __name__ == "__main__":
    cli.define_config(sys.argv)
    cli.run(main)
