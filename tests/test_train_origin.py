"""What of a configuration a training is of: where one goes on, and where it is another."""

import pytest

from rice_jax import config as configuration
from rice_jax.train.origin import changes

OF_ONE_SCHEDULE = {
    **{f"train.{name}": 7.0 for name in ("learning_rate", "plateau_factor", "plateau_min_delta")},
    "train.plateau_patience": 7,
    **{f"train.quick.{name}": 0.7 for name in ("peak_rate", "warmup", "weight_decay")},
    **{f"train.quick.{name}": (7, 7) for name in ("shrink", "epochs")},
}


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


@pytest.mark.parametrize("told", ["cosine", "", 7, None, []])
def test_a_schedule_that_there_is_not_is_another(told):
    now = configuration.to_json(configuration.default("final"))
    before = {**now, "train": {**now["train"], "schedule": told}}
    assert changes(before, now) == [("train.schedule", told, "study")]
