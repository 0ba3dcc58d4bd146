"""One command: what it shows, and a mistake told on one line before anything heavy is loaded."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import commands
import pytest

from rice_jax import config as configuration
from rice_jax import nets, prune, stages, zoo
from rice_jax.commands import app, process
from rice_jax.commands import lighten as lighten_command
from rice_jax.commands import prune as prune_command
from rice_jax.commands import train as train_command
from rice_jax.errors import UserError
from rice_jax.lighten import candidate, moves, variants
from rice_jax.records import STEPS

ROOT = Path(__file__).parents[1]
FINAL = "--config=final"
NAMES = [command.name for command in app.COMMANDS]

# What is given, and what its one line says.
MISTAKES = [
    ("trian", "give rice-jax train"),
    ("frobnicate", "there are train, prune, lighten,"),
    ("--config=final", "as rice-jax train --config=final"),
    ("train", "--config is missing"),
    ("train --workdir=nowhere", "nowhere holds no run yet"),
    ("train --config=fnal", "give --config=final (there are cnn,"),
    ("train --config=nothing-like-it", "there are cnn, cnn_light,"),
    ("train --config=configs/finale.py", "no such file; give --config=configs/final.py"),
    ("train --config=broken.py", "--config=broken.py: line 2: ZeroDivisionError: division by zero"),
    ("train --config=garbled.py", "--config=garbled.py: line 1: SyntaxError"),
    ("train --config=empty.py", "it has no function get_config()"),
    ("train --config=number.py", "its get_config() returns no ConfigDict"),
    ("train --config=final.py", "there is no such file; give --config=final (built in are"),
    ("train --config=elsewhere/CNN_Light.py", "no such file; give --config=cnn_light (built in"),
    ("train --config=config.json", "that of a run is taken from its folder, by --workdir alone"),
    ("train --config=bare.py", "what its get_config() returns tells no model"),
    ("train --config=leaving.py", "--config=leaving.py: line 1: SystemExit: gone"),
    ("train --config=asking.py", "--config=asking.py: TypeError: get_config() missing 1 required"),
    ("train --config=lacking.py", "line 2: AttributeError: type object 'int' has no attribute"),
    (f"train {FINAL} --epochs=3", "--epochs=3: there is no such option; give --config.train.ep"),
    (f"train {FINAL} --epochs 3", "give --config.train.epochs=3"),
    (f"train {FINAL} --batch-size=8", "give --config.train.batch_size=8 or --config.eval."),
    (f"train {FINAL} --dense=8", "give --config.model.dense=8"),
    (f"train {FINAL} --confg=cnn", "give --config=cnn"),
    (f"train {FINAL} --frobnicate", "rice-jax train --help tells which"),
    (f"train {FINAL} --config.train.epochz=3", "no such field; give --config.train.epochs=3"),
    (f"train {FINAL} --config.model.name=cnn", "name=cnn: the net is final; give --config=NAME"),
    (f"train {FINAL} --config.modle.dense=2", "no such field; give --config.model.dense=2"),
    (f"train {FINAL} --config.stem=2", "--config.stem=2: there is no such field"),
    (f"train {FINAL} --config.train.epochs=many", "epochs=many: give a whole number from 1 to"),
    (f"train {FINAL} --config.train.epochs", "epochs=: give a whole number from 1 to"),
    (f"train {FINAL} --config.train.augment=maybe", "augment=maybe: give true or false"),
    (f"train {FINAL} --config.train.on_collapse=restrat", "nearest is restart"),
    ("train --config=micro --config.train.epochs=5", "give --config.train.quick.epochs, or"),
    (f"train {FINAL} --config.train.quick.epochs=5,5", "give --config.train.schedule=quick"),
    (f"train {FINAL} --config.train.quick.epochs=(5,", "epochs=(5,: give 1 to 100 of: a whole"),
    (f"train {FINAL} --config.model.stages=8,16", "stages=8,16: give 1 to 100 of: up to 100 of"),
    (f"train {FINAL} --config.model.stages={'(' * 500}", "(...: give 1 to 100 of: up to 100 of"),
    (f"train {FINAL} --config.train.distill.weight=1", "give --config.train.teacher"),
    (f"train {FINAL} --stages=train,dance", "more of: train, evaluate, profile or inspect"),
    (f"train {FINAL} --stages=", "--stages=: give 1 or more of"),
    (f"train {FINAL} --config.data.path=nowhere", "path=nowhere: there is no such file or folder"),
    (f"train {FINAL} --config.data.path=sampel", "no such file or folder; nearest is sample"),
    (f"train {FINAL} --config.eval.path=nowhere", "path=nowhere: there is no such file or folder"),
    (f"train {FINAL} --config.model.weights=zoo:fnal", "no net called 'fnal'; it has"),
    (f"train {FINAL} --config.model.weights=vgg16_x.h5", "get it from https://storage.googleapis"),
    ("train --config=vgg16", "vgg16 starts from trained weights"),
    ("reproduce --config.data.path=nowhere.zip", "path=nowhere.zip: there is no such file"),
    ("train final", "'final' belongs to no option; give --config=final"),
    (f"train {FINAL} runs/final", "a folder is given as --workdir=DIR"),
    ("prune", "--workdir is missing"),
    ("prune --workdir=nowhere --out=x --drop=dead", "nowhere/config.json is missing"),
    ("prune --workdir=run --drop=dead", "--out is missing"),
    ("prune --workdir=run --out=x", "nothing says what to remove"),
    ("prune --workdir=run --out=x --drop=dad", "--drop=dad: give dead or proven; nearest is dead"),
    ("prune --workdir=run --out=x --max_flops=1.5", "--max_flops=1.5: give a whole number from 1"),
    ("prune --workdir=run --out=x --max_flops=-1M", "--max_flops=-1M: give a whole number from 1"),
    ("prune --workdir=run --out=x --max_flop=1M", "give --max_flops=1M"),
    ("prune --workdir=run --out=x --max_flops=1M --steps=2", "--steps needs a budget and"),
    ("prune --workdir=run --out=x --drop=dead --seeds=1,2", "give --finetune_epochs"),
    ("prune --workdir=run --out=x --drop=dead --baselines=l1", "need a budget"),
    ("prune --workdir=run --out=x --drop=dead --seeds=1 --config.seed=2", "train with: give one"),
    ("prune --workdir=run --out=x --drop_layers=conv2,auto", "give it alone, or their names"),
    ("prune --workdir=run --out=x --drop=dead --criterion=l1", "--criterion changes nothing"),
    ("prune --workdir=run --out=x --drop=dead --teach", "nothing without --finetune_"),
    ("prune --workdir=run --out=x --max_params=9 --convention=xla", "nothing without --max_flops"),
    ("prune --workdir=run --out=x --drop=dead --tail_margin=0.1", "without --drop_layers=auto"),
    ("prune --workdir=run --out=x --drop=dead --allocation=uniform", "without a budget, as --max"),
    ("prune --workdir=run --out=x --drop=dead --judge_images=9", "--max_flops, or --drop_layers"),
    ("prune --workdir=run --out=x --drop=dead --config.train.epochs=9", "give --finetune_epochs"),
    ("prune --workdir=run --out=x --drop=dead --round_to=4", "without a budget, as --max"),
    ("prune --workdir=run --out=x --drop_layers=a --judge_images=9", "or --drop_layers=auto"),
    ("prune --workdir=run --out=x --drop_layers=a --only=b", "--only changes nothing without --dr"),
    ("prune --workdir=run --out=x --drop_layers=a --skip=b", "--skip changes nothing without --dr"),
    ("prune --workdir=run --out=x --drop_layers=a --on_unknown=keep", "nothing without --drop or"),
    ("prune --workdir=run --out=x --drop=dead --config.train.quick.warmup=0", "schedule=quick"),
    ("prune --workdir=run --out=x --teach --config.train.teacher=zoo:final", "teacher: give one"),
    ("prune --workdir=run --suggest --split=test --teach", "leave out --split, --teach"),
    ("prune --workdir=run --suggest --max_flops=1M --drop=dead", "leave out --drop, --max_flops"),
    ("prune --workdir=run --suggest --finetune_epochs=1", "leave out --finetune_epochs"),
    (
        "prune --workdir=run --suggest --config.train.epochs=9 --config.train.quick.shrink=1,1",
        "leave out --config.train.epochs, --config.train.quick.shrink",
    ),
    ("prune --workdir=run --suggest --config.train.teacher=run", "leave out --config.train.teac"),
    ("prune --workdir=run --suggest --config.train.save_seconds=9", "leave out --config.train.sav"),
    ("prune --workdir=run --out=x --drop=dead --config.train.initializer=he", "=scratch"),
    ("prune --workdir=run --suggest --config.train.epochs=0", "epochs=0: give a whole number"),
    ("prune --workdir=damaged --suggest", "config.json is damaged"),
    ("lighten", "--workdir is missing"),
    ("lighten --workdir=run", "--out is missing"),
    ("lighten --workdir=run --out=x --measure=speed", "give flops, params, bytes or latency"),
    ("lighten --workdir=run --out=x --within=lots", "--within=lots: give a number from -1 to 1"),
    ("lighten --workdir=run --out=x --steps=chanels", "nearest is channels"),
    ("lighten --workdir=run --out=x --at_least=0.9 --within=0.005", "accuracy is wanted: give one"),
    ("lighten --workdir=run --out=x --config.train.epochs=9", "give --finetune_epochs, --final_"),
    ("lighten --workdir=run --out=x --config.train.learning_rate=1", "give --config.train.quick.p"),
    ("lighten --workdir=run --out=x --config.train.schedule=study", "which decides it itself"),
    ("lighten --workdir=run --out=x --share=1", "--share=1: give a number above 0 to below 1"),
    ("lighten --workdir=run --out=x --steps=stem --judge_images=9", "without channels or layer a"),
    ("lighten --workdir=run --out=x --steps=layer,stem --share=.4", "without channels among the"),
    ("lighten --workdir=run --out=x --steps=stem --criterion=l1", "--criterion changes nothing"),
    ("lighten --workdir=run --out=x --steps=stem --round_to=2", "--round_to changes nothing"),
    *(
        (f"lighten --workdir=run --out=x --config.{field}", "which decides it itself")
        for field in ("train.initializer=he", "train.frozen=conv1", "eval.path=.")
    ),
    ("prune --workdir=run --suggest --config.eval.path=.", "leave out --config.eval.path"),
    (
        "lighten --workdir=run --out=x --config.train.teacher= --config.train.distill.weight=.3",
        "distill.weight changes nothing in this command: give --config.train.teacher",
    ),
    ("compare --out=x", "--workdirs is missing"),
    ("compare --workdirs=run", "--out is missing"),
    ("compare --workdirs=run --out=x --margin=1", "--margin=1: give a number from 0 to below 1"),
    ("compare --workdir=run --out=x", "give --workdirs=run"),
    ("compare --out=x run run2", "a folder is given as --workdirs=DIR"),
    ("predict x.png", "--workdir is missing"),
    ("predict --workdir=run", "no image given"),
    ("predict --workdir=run --explain=maps x.png y.png", "a single image, not 2"),
    ("predict --workdir=run --batch_size=0 x.png", "--batch_size=0: give a whole number from 1"),
    ("export --workdir=run", "--out is missing"),
    ("export --workdir=run --out=x.pt", "--out=x.pt: give a file's name that ends in .stablehlo"),
    ("export --workdir=run --out=a/.onnx", "--out=a/.onnx: give a file's name that ends in"),
    ("export --workdir=nowhere --out=x.onnx", "nowhere/config.json is missing"),
    ("export --workdir=run --out=x.stablehlo --int8", "--int8 is for .onnx and .tflite"),
    ("export --workdir=run --out=x.onnx --config.data.path=x", "images are for --int8 alone"),
    ("export --workdir=run --out=x.onnx --calibration_images=9", "changes nothing without --int8"),
    ("export --workdir=run --out=x.onnx --calibration_images=0", "give a whole number from 1"),
    ("evaluate", "--artifact is missing"),
    ("evaluate x.onnx", "'x.onnx' is not understood"),
    ("evaluate --artifact=x.onnx --config.data.image_size=8", "there is no such field here"),
    ("reproduce --imagenet=nothing.h5", "--imagenet=nothing.h5: there is no such file"),
    ("reproduce --imagenet=broken.py --nets=final", "--imagenet changes nothing without vgg16"),
    ("reproduce --out=", "--out=: give a folder"),  # a variable that is not set; it was the root
    ("reproduce --imagenet=", "--imagenet=: give a file"),
    ("train --config=final --workdir=", "--workdir=: give a folder"),
    ("predict --workdir=run --explain= x.png", "--explain=: give a folder"),
    ("reproduce --nets=final,finel", "nearest is final"),
    ("reproduce --config.model.dense=2", "--config.model.dense=2: there is no such field"),
    ("reproduce --config.train.epochs=0", "epochs=0: give a whole number"),
    ("zoo everything", "'everything' is not understood"),
    ("zoo --config=final", "--config=final: there is no such option"),
]  # fmt: skip
SHOWN = ["", "--help", "-h", "--version", "zoo", *(f"{name} --help" for name in NAMES)]

CHILD = """
import contextlib, io, json, sys
from rice_jax.commands import app
for line in sys.stdin.read().splitlines():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.call(line.split())
        except SystemExit as left:
            status = left.code
    print(json.dumps([line, status, out.getvalue(), err.getvalue()]))
assert not {"jax", "flax", "numpy"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """By command line: status, stdout and stderr, all of one process that loads no JAX."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "configs").symlink_to(ROOT / "configs")
    saved = configuration.to_json(configuration.default("final"))
    for name, content in {
        "run/config.json": json.dumps({"config": saved}),
        "damaged/config.json": json.dumps({"config": saved | {"seed": -1}}),
        "broken.py": "def get_config():\n    return 1 / 0\n",
        "garbled.py": "def get_config(:\n",
        "empty.py": "",
        "number.py": "def get_config():\n    return 3\n",
        "config.json": '{"stem": true}',
        "bare.py": "from ml_collections import ConfigDict\nget_config = ConfigDict\n",
        "leaving.py": "raise SystemExit('gone')\n",
        "asking.py": "def get_config(net):\n    return net\n",
        "lacking.py": "def get_config():\n    return int.get_config_of\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    lines = [*SHOWN, *(given for given, _ in MISTAKES)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(lines),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answered = {line: rest for line, *rest in map(json.loads, done.stdout.splitlines())}
    assert not (folder / "runs").exists()
    return answered


@pytest.mark.parametrize(("given", "said"), MISTAKES)
def test_a_mistake_is_told_in_one_line_before_jax_is_loaded(answers, given, said):
    status, out, err = answers[given]
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert (status, out) == (1, "")


def test_help_shows_what_there_is(answers):
    for given in ("", "--help", "-h"):
        status, out, err = answers[given]
        assert (status, err) == (0, "")
        assert [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()] == NAMES
    assert answers["--version"][1].split()[-1].count(".") == 2


def test_the_zoo_is_told_without_jax(answers):
    status, out, err = answers["zoo"]
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(zoo.names())


@pytest.mark.parametrize("name", NAMES)
def test_each_command_tells_its_options(answers, name):
    status, out, err = answers[f"{name} --help"]
    assert (status, err) == (0, "")
    told = {word for line in out.splitlines() for word in line.split()[:1]}
    [command] = [command for command in app.COMMANDS if command.name == name]
    options = [option for param in command.params for option in param.opts if "--" in option]
    assert {*options, "-h,"} <= told


def test_help_lists_every_field_with_meaning_and_bounds(answers):
    section = answers["train --help"][1].partition("Configuration,")[2]
    for net in nets.NETS:
        for name, field in configuration.fields(net).items():
            assert f"\n  {name} " in section or f"\n  {name}\n" in section
            assert field.meaning.split()[0] in section
    assert "from 0 to below 1 [default: 0.05]" in " ".join(section.split())


@pytest.mark.parametrize(
    ("name", "decided"),
    [
        ("prune", "epochs quick.epochs quick.shrink"),
        (
            "lighten",
            "epochs learning_rate schedule stop_patience plateau_factor plateau_patience "
            "plateau_min_delta quick.epochs quick.shrink validation_augmented initializer "
            "frozen eval.path",
        ),
        ("reproduce", "frozen"),
    ],
)
def test_help_lists_no_field_that_the_command_refuses(answers, name, decided):
    section = answers[f"{name} --help"][1].partition("Configuration,")[2]
    told = {line.split()[0] for line in section.splitlines()[1:] if line[:3].strip()}
    others = {field for field in configuration.FIELDS if not field.startswith("model.")}
    asked = decided.split()
    assert told == others - {*asked} - {f"train.{field}" for field in asked}


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("prune", {"the run's"}),
        ("lighten", {"the run's", "the run itself"}),  # its teacher
        ("export", {"the run's"}),
    ],
)
def test_help_tells_of_a_run_s_own_fields_where_these_hold(answers, name, defaults):
    section = answers[f"{name} --help"][1].partition("Configuration,")[2]
    assert set(re.findall(r"\[default: ([^]]*)\]", " ".join(section.split()))) == defaults


def test_the_words_that_options_offer_are_those_that_the_jobs_know():
    assert tuple(stages.STAGES) == train_command.STAGES
    assert set(prune.CRITERIA) == set(prune_command.CRITERIA)
    assert prune.ALLOCATIONS == prune_command.ALLOCATIONS
    assert variants.BASELINES == prune_command.BASELINES
    assert tuple(moves.MOVES) == lighten_command.STEPS == STEPS
    assert candidate.MEASURES == lighten_command.MEASURES


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("tr", ["train"]),
        ("train --conf", ["--config"]),
        ("train --config=vgg_", ["vgg_custom", "vgg_light"]),
        ("train --stages=train,ev", ["train,evaluate"]),
        ("train --config = vgg_", ["vgg_custom", "vgg_light"]),  # bash's own words
        ("train --config =", list(nets.NETS)),
        ("train --stages = train,ev", ["train,evaluate"]),
        ("prune --drop = dead --criterion = l", ["l1", "l2"]),
        ("prune --only = a = b --drop = d", ["dead"]),
        ("train --config.train.quick.e", ["--config.train.quick.epochs"]),
        ("train --config.data.path = x --st", ["--stages"]),
        ("prune --drop ", ["dead", "proven"]),
    ],
)
def test_the_shell_completes(argument, words, monkeypatch, capsys):
    typed = f"rice-jax {argument}".split(" ")
    monkeypatch.setenv("_RICE_JAX_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(typed))
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    with pytest.raises(SystemExit):
        app.call([])
    completed = [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]
    assert sorted(completed) == sorted(words)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("two\nlines"), 1, "error: two lines"),
        (UserError("a\x1b[31mé\0\x9b\u202e\udcffb"), 1, r"a\x1b[31mé\x00\x9b\u202e\udcffb"),
        (OSError(28, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (KeyboardInterrupt(), 130, "goes on"),
        (MemoryError(), 1, "the memory does not suffice"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "the memory does not suffice"),
    ],
)
def test_what_a_user_can_mend_has_no_traceback(error, status, said, capsys):
    def action():
        raise error

    with pytest.raises(SystemExit) as left:
        process.run(action)
    assert left.value.code == status
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_with_too_few_addresses_nothing_begins_that_would_wait_for_a_thread(monkeypatch, capsys):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2 << 30, 2 << 30))
    with pytest.raises(SystemExit) as left:
        process.run(lambda: pytest.fail("begun"))
    assert left.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this process may have 2.1 GB of addresses (ulimit -v)")


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        (["--config.train.epochs=1e2"], "train.epochs", 100),
        (["--config.train.batch_size=1k"], "train.batch_size", 1000),
        (["--config.train.save_seconds=2.5k"], "train.save_seconds", 2500.0),
        (["--config.train.learning_rate", "1e-2"], "train.learning_rate", 0.01),
        (["--config.data.split_seed", "-1"], "data.split_seed", -1),
        (["--config.train.augment"], "train.augment", True),
        (["--noconfig.data.keep_decoded"], "data.keep_decoded", False),
        (["--config.data.keep_decoded=f"], "data.keep_decoded", False),
        (["--config.model.stages=((4,),(2, 3))"], "model.stages", ((4,), (2, 3))),
        (["--config.train.frozen=conv1,conv2"], "train.frozen", ("conv1", "conv2")),
        (["--config.train.frozen=('conv1',)"], "train.frozen", ("conv1",)),
        (["--config.data.cache_dir=here, there"], "data.cache_dir", "here, there"),
    ],
)  # fmt: skip
def test_a_field_is_set_as_it_is_meant(fields, name, value, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        stages, "run_stages", lambda config, *rest, **_: seen.update(c=config, r=rest)
    )
    done = commands.run("train", FINAL, *fields, "--workdir=runs/x", "--stages=profile,train")
    assert done.returncode == 0, done.stderr
    part = seen["c"]
    for section in name.split("."):
        part = part[section]
    assert part == value
    assert seen["r"] == ("runs/x", ("profile", "train"), {name: value})
