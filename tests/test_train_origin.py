"""What of a configuration a training is of: where one goes on, and where it is another."""

import pytest

from rice_jax import config as configuration
from rice_jax import identity
from rice_jax.errors import UserError
from rice_jax.records import ConfigFile, ImagesTold
from rice_jax.run import Run
from rice_jax.train.origin import changes

OF_ONE_SCHEDULE = {
    **{f"train.{name}": 7.0 for name in ("learning_rate", "plateau_factor", "plateau_min_delta")},
    "train.plateau_patience": 7,
    **{f"train.quick.{name}": 0.7 for name in ("peak_rate", "warmup", "weight_decay")},
    **{f"train.quick.{name}": (7, 7) for name in ("shrink", "epochs")},
}

SOME = ImagesTold(name="some", synthetic=False, fingerprint="f", classes=("a", "b"))


@pytest.mark.parametrize("field", OF_ONE_SCHEDULE)
@pytest.mark.parametrize("schedule", ["study", "quick"])
def test_a_training_goes_on_whatever_the_other_schedule_would_do(schedule, field):
    """As where a version has other defaults for it; who gives such a field is told so."""
    before, now = (configuration.default("final") for _ in range(2))
    for each in (before, now):
        each.train.schedule = schedule
    now.update_from_flattened_dict({field: OF_ONE_SCHEDULE[field]})
    its_own = field.startswith("train.quick.") == (schedule == "quick")
    found = changes(*map(configuration.to_json, (before, now)))
    assert [path for path, *_ in found] == ([field] if its_own else [])
    assert bool(configuration.idle(now, [field])) != its_own
    assert refused(before, now) == (field if its_own else "")


def refused(before, now):
    """The field by which a folder with the one configuration is another run's; '' for none."""
    told = (ConfigFile(config=configuration.to_json(each), data=SOME) for each in (before, now))
    try:
        identity.refuse_another(Run("run"), *told)
    except UserError as error:
        return str(error).partition("a run with ")[2].partition("=")[0]
    return ""


@pytest.mark.parametrize("schedule", ["study", "quick"])
def test_an_older_version_s_run_goes_on_where_its_kernels_are_drawn_alike(schedule):
    """Such a version had no field for it, and drew as the net says."""
    now = configuration.default("final")
    now.train.schedule = schedule
    content = configuration.to_json(now)
    del content["train"]["initializer"]
    before = configuration.from_json(configuration.completed(content))
    assert refused(before, now) == ("" if schedule == "study" else "train.initializer")


@pytest.mark.parametrize(("before", "now"), [("study", "quick"), ("quick", "study")])
def test_of_another_schedule_that_is_told_first(before, now):
    configurations = [configuration.default("googlenet") for _ in range(2)]
    for each, schedule in zip(configurations, (before, now), strict=True):
        each.train.schedule = schedule
    assert refused(*configurations) == "train.schedule"


@pytest.mark.parametrize("told", ["cosine", "", 7, None, []])
def test_a_schedule_that_there_is_not_is_another(told):
    now = configuration.to_json(configuration.default("final"))
    before = {**now, "train": {**now["train"], "schedule": told}}
    assert changes(before, now) == [("train.schedule", told, "study")]
