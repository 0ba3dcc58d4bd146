"""Settings of a whole job on a few small grains, and what it leaves."""

import json

import pytest

from rice_jax import config


def small(name, cache_dir, **fields):
    made = config.default(name)
    with made.unlocked():
        made.update_from_flattened_dict(
            {
                "data.path": "synthetic",
                "data.image_size": 32,
                "data.synthetic_per_class": 10,
                "data.cache_dir": str(cache_dir),
                "data.keep_decoded": False,
                "train.epochs": 2,
                "train.batch_size": 16,
            }
            | fields
        )
    return made


def read(workdir, name):
    return json.loads((workdir / name).read_text(), parse_constant=pytest.fail)
