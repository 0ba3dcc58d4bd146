"""The commands that a page tells, as they are to be given for its run."""

import os
import shlex
from collections.abc import Iterator
from typing import Any

from rice_jax import config as configuration
from rice_jax import nets
from rice_jax.report import markdown
from rice_jax.report.page.blocks import Section
from rice_jax.report.record import Record
from rice_jax.run import Run

_FOLLOWS = ("model.name", "model.classes", "model.narrowed")
"""Fields that a net's file or its run's folder tells by itself."""


def stage_command(run: Run, record: Record, stage: str) -> str:
    """The command that does stages of this run, as 'evaluate,profile'; those with the training
    that they need, where there is neither one yet nor weights to be taken as they are."""
    weights = record.config.config["model"].get("weights", "")
    if weights in ("", "random") and not _has_a_net(record) and stage not in ("train", "profile"):
        stage = stage if "train" in stage else f"train,{stage}"
    given = [_run(run, record), f"--stages={stage}", *_besides_the_file(record)]
    return f"rice-jax train {' '.join(given)}"


def _run(run: Run, record: Record) -> str:
    """The arguments that name the run, and the file of a net that is not the package's."""
    folder = _flag("workdir", str(run))
    return folder if record.model in nets.NETS else f"{folder} --config=YOUR_NET.py"


def _besides_the_file(record: Record) -> Iterator[str]:
    """The fields that were set over the file of a net of the user's own: `train` begins with it.

    Where the net is not known, as in a comparison, which does without its file, all but the net's
    own that are not as the study has them: what the file sets too is then told once more.
    """
    if record.model in nets.NETS:
        return
    known = record.model in nets.names()
    like = configuration.default(record.model if known else "final")
    usual = dict(configuration.flat(configuration.to_json(like)))
    if not known:
        usual = {name: usual[name] for name in configuration.FIELDS}
    for name, value in configuration.flat(record.config.config):
        if name in usual and name not in _FOLLOWS and value != usual[name]:
            yield _flag(f"config.{name}", _plain(value))


def _plain(value: Any) -> str:
    """A field's value as it is given; a list in a list as Python writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        nested = any(isinstance(each, list) for each in value)
        return repr(value) if nested or not value else ",".join(map(_plain, value))
    return str(value)


def _flag(name: str, value: str) -> str:
    return shlex.quote(f"--{name}={value}")


def _named(run: Run) -> str:
    """The run's folder by its name: '../final' where it is told as '.'."""
    folder = str(run)
    if os.path.basename(folder) not in ("", ".", ".."):
        return folder
    return os.path.join(folder, os.pardir, os.path.basename(os.path.abspath(folder)))


def how_to_go_on(run: Run, record: Record) -> Section:
    """Commands for what a person may want next."""
    folder = _run(run, record)
    if not _has_a_net(record):
        train = stage_command(run, record, "train,evaluate,profile,inspect")
        lines = ["# a net that images can be given to", train]
        return ["## How to go on", markdown.commands(lines)]
    lines = [
        "# the class of an image of your own",
        f"rice-jax predict {folder} IMAGE.jpg",
        *_lighter(record, f"rice-jax prune {folder}", _flag("out", f"{_named(run)}_pruned")),
        "# beside other runs",
        f"rice-jax compare {_flag('workdirs', f'{run},OTHER_RUN')} --out=comparison",
        "# a file that runs without this package",
        f"rice-jax export {folder} {_flag('out', f'{record.model}.onnx')}",
    ]
    return ["## How to go on", markdown.commands(lines)]


def _lighter(record: Record, prune: str, out: str) -> list[str]:
    """How to remove what does nothing; where no filter of the run is known to be dead, or all that
    the command would find are gone, how to find what can be spared."""
    census = record.dead_filters
    if census is not None and not any(layer.dead_clean for layer in census.layers):
        return ["# no filter is dead: what fewer of them would cost", f"{prune} --suggest"]
    if _is_rid_of_the_dead(record):
        known = "# what is dead on validation images is gone: what fewer filters would cost"
        return [known, f"{prune} --suggest"]
    return ["# remove the filters that do nothing", f"{prune} {out} --drop=dead"]


def _is_rid_of_the_dead(record: Record) -> bool:
    """Whether `--drop=dead` made the run: the census, of test images, may still tell of others."""
    request = record.prune and record.prune.request
    if not request or record.history:  # training may leave new ones
        return False
    everywhere = request.split == "validation" and not request.only and not request.skip
    return request.drop == "dead" and everywhere


def _has_a_net(record: Record) -> bool:
    """Whether the run's folder has weights: all else is told of a net without any too."""
    told = (record.history, record.evaluation, record.dead_filters, record.prune, record.lighten)
    return any(told)
