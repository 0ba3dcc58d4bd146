"""FLOPs of the study's eight nets: its figures to the last digit, and XLA's own count."""

import pytest
from xla_count import lowered

from rice_jax import models, profile

STUDY_IMAGE = (224, 224, 3)


@pytest.fixture(scope="module")
def counts():
    return {
        name: profile.count(models.build(name), STUDY_IMAGE, frozen=net.frozen, measure_xla=True)
        for name, net in models.NETS.items()
        if name in profile.study.REPORTED
    }


@pytest.mark.parametrize("name", profile.study.REPORTED)
class TestTheEightNets:
    def test_the_study_is_reproduced_to_the_last_digit(self, counts, name):
        reported = profile.study.REPORTED[name]
        assert counts[name].flops.study == reported["flops"]
        assert counts[name].params == reported["params"]
        assert counts[name].trainable_params == reported["trainable"]

    def test_filters_are_the_studys_or_its_errata(self, counts, name):
        wrong = {e["field"]: e["correct"] for e in profile.study.ERRATA if e["model"] == name}
        reported = profile.study.REPORTED[name]["filters"]
        if name.startswith("googlenet"):
            assert counts[name].study_filters == reported
            assert counts[name].filters == wrong["filters"]
        else:
            assert counts[name].study_filters == wrong.get("filters", reported)
            assert counts[name].filters == counts[name].study_filters

    def test_xla_is_xlas_own_lowered_count(self, counts, name):
        own = lowered(models.build(name), (1, *STUDY_IMAGE))
        assert counts[name].flops.xla == pytest.approx(own, rel=1e-6)
        assert counts[name].xla_measured == pytest.approx(own, rel=1e-9)

    def test_nothing_is_left_uncounted(self, counts, name):
        assert counts[name].uncounted == ()
        assert counts[name].not_called == ()

    def test_totals_are_the_sums_of_the_rows(self, counts, name):
        counted = counts[name]
        for convention in profile.CONVENTIONS:
            rows = [getattr(row.flops, convention) for row in counted.rows]
            assert getattr(counted.flops, convention) == sum(rows)
        assert len({row.path for row in counted.rows}) == len(counted.rows)


OTHERWISE = {"grid": 56, "strides": 2, "stem_stride": 4, "dense": 3}


@pytest.mark.parametrize("name", profile.study.REPORTED)
def test_the_studys_figures_stand_beside_its_own_net(counts, name):
    assert counts[name].to_json(name)["reported"] == profile.study.REPORTED[name]
    assert counts[name].to_json("another")["reported"] is None


@pytest.mark.parametrize("name", profile.study.REPORTED)
@pytest.mark.one_in(3)  # of both classes
def test_the_studys_figures_stand_beside_no_other_net(name):
    whole = models.build(name).settings()
    changed = {
        field: value for field, value in OTHERWISE.items() if whole.get(field) not in (None, value)
    }
    assert "grid" in changed
    for field, value in changed.items():
        other = profile.count(models.build(name, **{field: value}), STUDY_IMAGE)
        assert other.to_json(name)["reported"] is None, field
    smaller = profile.count(models.build(name), (112, 112, 3))
    assert smaller.to_json(name)["reported"] is None


def test_the_formula_of_final_by_hand(counts):
    convolutions = [(3, 224, 8), (8, 112, 16), (16, 112, 16), (16, 112, 16)]
    by_hand = sum(2 * cin * 9 * size * size * cout for cin, size, cout in convolutions)
    assert counts["final"].flops.formula == by_hand + 2 * 16 * 512 + 2 * 512 * 5


def test_reported_tflops_follow_from_reported_flops_but_for_the_errata():
    wrong = {e["model"]: e["correct"] for e in profile.study.ERRATA if e["field"] == "tflops_7500"}
    for name, reported in profile.study.REPORTED.items():
        tflops = reported["flops"] * profile.study.TEST_IMAGES / 1e12
        assert tflops == pytest.approx(wrong.get(name, reported["tflops_7500"]), rel=2e-3)
        assert (name in wrong) == (abs(tflops - reported["tflops_7500"]) > 0.0065)
