"""Every field of a configuration has bounds; its default is within, and what is not is named."""

import math
import re
from decimal import Decimal

import commands
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rice_jax import config as configuration
from rice_jax import nets
from rice_jax.bounds import (
    Budget,
    FilterNumbers,
    Paths,
    Place,
    Real,
    Several,
    Switch,
    Text,
    Whole,
    Word,
    nearest,
    read,
)
from rice_jax.errors import UserError

WHOLE = st.integers(-(10**15), 10**15)


@pytest.mark.parametrize("net", nets.NETS)
def test_defaults_are_within_their_bounds_and_have_a_meaning(net):
    configuration.check(configuration.default(net))
    for name, field in configuration.fields(net).items():
        assert field.bounds.allows(field.default), name
        assert field.meaning
        assert str(field.bounds)


def out_of_bounds(bounds):
    """Values of a field's own type that it does not take."""
    if isinstance(bounds, Whole):
        return [bounds.least - 1, bounds.most + 1]
    if isinstance(bounds, Real):
        ends = [bounds.least] * bounds.above + [bounds.most] * bounds.below
        return [math.nan, math.inf, bounds.least - 1.0, 2 * bounds.most + 1.0, *map(float, ends)]
    if isinstance(bounds, Word):
        return ["", "no such word"]
    if isinstance(bounds, Text):
        return ["a\0b", "\ud800"]
    if isinstance(bounds, Several):
        too_many = [(1,) * (bounds.most + 1)] if bounds.most else []
        return [(bad,) for bad in out_of_bounds(bounds.each)] + [()] * bool(bounds.least) + too_many
    return []


@pytest.mark.parametrize("net", ["final", "googlenet"])
def test_each_field_out_of_its_bounds_is_named_with_what_is_allowed(net):
    for name, field in configuration.fields(net).items():
        wrong = out_of_bounds(field.bounds)
        assert wrong or isinstance(field.bounds, Switch), name
        for value in wrong:
            config = configuration.default(net)
            config.update_from_flattened_dict({name: value})
            with pytest.raises(UserError) as caught:
                configuration.check(config)
            assert str(caught.value).startswith(f"config.{name}=")
            assert f"give {field.bounds}" in str(caught.value)


TRAINED = "--workdir=run --out=x --finetune_epochs"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"prune {TRAINED}=50_001", "finetune_epochs=50_001: give a whole number from 0 to 50,000"),
        (f"lighten {TRAINED}=50_001", "epochs=50_001: give a whole number from 1 to 50,000"),
        (f"lighten {TRAINED}=1 --final_epochs=1M", "epochs=1M: give a whole number from 0 to 50,"),
        (f"prune {TRAINED}=1 --seeds={','.join(['1'] * 1_001)}", "...: give up to 1,000 of: a who"),
        (
            "train --config=final --config.train.quick.epochs=25_000,25_001",
            "quick.epochs are 50,001 together: give 50,000 at most",
        ),
    ],
    ids=lambda text: text.partition("=")[0],
)
def test_no_more_is_asked_for_than_a_run_s_files_are_read_with(command, said):
    """Else hours of training would end in a history.csv, config.json or variants.json too long."""
    done = commands.run(*command.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_field_too_many_and_one_too_few_are_named():
    config = configuration.default("final")
    with config.unlocked():
        config.train.epochz = 3
    with pytest.raises(UserError, match=r"config.train.epochz: .* nearest is config.train.epochs"):
        configuration.check(config)
    config = configuration.default("final")
    with config.unlocked():
        del config.eval.batch_size
    with pytest.raises(UserError, match=r"config.eval.batch_size is missing: give a whole number"):
        configuration.check(config)


def test_another_kind_of_net_needs_the_fields_of_its_own():
    config = configuration.default("final")
    config.model.name = "googlenet"
    with pytest.raises(UserError, match=r"config\.model\.\w+: there is no such field"):
        configuration.check(config)


@given(WHOLE)
def test_a_whole_number_is_read_in_any_notation(number):
    bounds = Whole(-(10**18), 10**18)
    for text in (str(number), f"{number:_}", f"{number}e0", f"{number}.0", f" {number} "):
        assert bounds.read(text) == number
    assert bounds.read(f"{number}k") == 1000 * number
    assert bounds.read(f"{number}e3") == 1000 * number


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_is_read_as_python_reads_it(number):
    assert Real(-math.inf, math.inf).read(repr(number)) == number


@pytest.mark.parametrize(
    "text", ["", "-", "many", "1e", "1x", "0x10", "1 000", "1,000", "nan", "inf", "1e9999", "1m"]
)
def test_what_is_no_number_is_refused(text):
    for bounds in (Whole(-5, 5), Real(-5, 5)):
        with pytest.raises(UserError, match=r"--n=.*: give a"):
            read("--n", text, bounds)


@pytest.mark.parametrize(
    ("text", "value"), [("1M", 10**6), ("1.5k", 1500), ("2G", 2 * 10**9), ("1e-3T", 10**9)]
)
def test_factors_are_exact(text, value):
    assert Whole(0, 10**12).read(text) == value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("83m", "83M"),
        ("83 M", "83M"),
        ("83MFLOPs", "83M"),
        ("83 mflop", "83M"),
        ("1.5K", "1.5k"),
        ("0.083g", "0.083G"),
        ("83,000,000", "83000000"),
        ("+1,500k", "+1500k"),
        ("200%", "2"),
    ],
)
def test_a_number_as_it_is_written_elsewhere_is_told_as_it_is_meant(text, meant):
    with pytest.raises(UserError, match=rf"={re.escape(text)}: .*; nearest is {re.escape(meant)}$"):
        read("n", text, Whole(1, 10**18))


@pytest.mark.parametrize(
    ("text", "meant"), [("0.5%", "0.005"), ("-1%", "-0.01"), ("0,005", "0.005")]
)
def test_a_share_as_it_is_written_elsewhere_is_told_as_it_is_meant(text, meant):
    with pytest.raises(UserError, match=rf"; nearest is {meant}$"):
        read("n", text, Real(-1, 1))


@pytest.mark.parametrize(
    "text", ["50%", "83MiB", "1,2,3", "", "%", "m", "FLOPs", "0", "1.5", "9e99", "\u0663m"]
)
def test_what_can_be_no_such_number_is_told_no_nearest(text):
    with pytest.raises(UserError) as raised:
        read("n", text, Whole(1, 10**18))
    assert "nearest" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50%", Decimal("0.5")),
        ("12.5%", Decimal("0.125")),
        (" 0.1 % ", Decimal("0.001")),
        ("1.5k", 1500),
    ],
)
def test_a_budget_is_a_number_or_an_exact_share(text, value):
    assert read("n", text, Budget(1, 10**18)) == value


_LAYERS = st.text("abc0_/: ", min_size=1).filter(lambda path: path == path.strip())


@given(st.dictionaries(_LAYERS, st.sets(st.integers(0, 65_535), min_size=1), min_size=1))
def test_filters_are_read_one_by_one(filters):
    text = ",".join(f" {path}:{number}" for path, each in filters.items() for number in each)
    expected = {path: sorted(each) for path, each in filters.items()}
    assert read("--filters", text, FilterNumbers()) == expected


def test_filters_are_read_from_first_to_last():
    text = "a/b:3-5,c:0-0,a/b:4-6"
    assert read("--filters", text, FilterNumbers()) == {"a/b": [3, 4, 5, 6], "c": [0]}


@pytest.mark.parametrize(
    "text",
    ["", "conv1", ":3", "3", "conv1:3,", "conv1:3,4"]
    + [f"conv1:{number}" for number in ("", "a", "-1", "5-2", "3-", "1-2-3", "1.5", "\u00b2")]
    + ["conv1:65536", "conv1:0-99999999999"],
)
def test_what_names_no_filters_is_refused(text):
    with pytest.raises(UserError, match=r"--filters=.*: give layers with numbers of their filters"):
        read("--filters", text, FilterNumbers())


@pytest.mark.parametrize("text", ["0%", "-5%", "100%", "250%", "%", "50%%", "50 percent", "0.5"])
def test_a_share_of_all_or_nothing_is_refused(text):
    with pytest.raises(UserError, match=r"or a share of the whole net's, as 50%$"):
        read("n", text, Budget(1, 10**18))


@given(st.text("0123456789_.,%kmMgB fFlLoOpPsS+-eE\u0663", max_size=9))
def test_whatever_is_written_for_a_number_is_one_or_refused_in_a_line(text):
    for bounds in (Whole(1, 10**18), Budget(1, 10**18), Real(0, 1), Several(Real(-1, 1))):
        try:
            value = read("--n", text, bounds)
        except UserError as error:
            told = str(error)
        else:
            assert bounds.allows(value)
            continue
        assert told.startswith(f"--n={text}: give ")


def test_true_is_no_number_and_one_no_switch():
    assert not Whole(0, 5).allows(True)
    assert not Real(0, 5).allows(True)
    assert not Switch().allows(1)


@pytest.mark.parametrize("text", ["", "yes", "2", "TRUE ", "nan"])
def test_any_kind_raises_alike_for_a_text_that_it_is_not(text):
    with pytest.raises(ValueError, match="neither true nor false"):
        Switch().read(text)
    with pytest.raises(UserError, match="give true or false"):
        read("--n", text, Switch())


def test_the_nearest_word():
    assert nearest("fnal", ["cnn", "final", "vgg16"]) == "final"
    assert nearest("something else", ["cnn", "final"]) == ""


@pytest.mark.parametrize("bounds", [Text(), Place(), Word(("cnn", "final")), Several(Text())])
def test_a_text_longer_than_any_path_is_one_short_line(bounds):
    with pytest.raises(UserError, match=r"^--x=.{77}[.]{3}: give ") as error:
        read("--x", "final" * 200_000, bounds)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a, b ,", ["a", "b"]),
        ("x,y", ["x,y"]),
        ("a,x,y,b", ["a", "x,y", "b"]),
        ("x,y,x,y", ["x,y", "x,y"]),
        ("one, two,a", ["one, two", "a"]),
        (",x", [",x"]),
        ("x,", ["x"]),  # which is not there, and is told so
        ("p,q,r", ["p", "q,r"]),
        ("a,b,c", ["a", "b", "c"]),  # though a,b is there too
        ("a,nothing", ["a", "nothing"]),
        ("gs://bucket/run,a", ["gs://bucket/run", "a"]),
        (f"{'nothing,' * 30_000}a", ["nothing"] * 30_000 + ["a"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_comma_is_of_a_name_where_that_is_there_and_its_parts_are_not(
    text, names, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "a,b", "x,y", "one, two", ",x", "p", "q,r"):
        (tmp_path / name).mkdir()
    assert list(read("--workdirs", text, Paths(Text("a folder"), 1))) == names
