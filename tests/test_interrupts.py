"""A wish to stop is granted wherever it comes."""

import asyncio
import contextlib
import gc
import importlib.machinery
import os
import signal
import subprocess
import sys
import threading

import pytest

from rice_jax import launch
from rice_jax.commands import entry, interrupts, process
from rice_jax.errors import UserError
from rice_jax.train import interrupt


def in_a_destructor(number):
    class Interrupted:
        def __del__(self):
            signal.raise_signal(number)

    Interrupted()


def in_a_callback_of_the_garbage_collector(number):
    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        signal.raise_signal(number)

    gc.callbacks.append(interrupt)
    gc.collect()


def in_a_task_that_does_not_heed_its_cancelling(number):
    async def deaf():
        signal.raise_signal(number)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    asyncio.run(deaf())


def in_what_catches_all(number):
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)


@pytest.fixture(params=interrupts._SIGNALS)
def number(request, monkeypatch):
    """A signal of which nobody has decided anything; as it was again afterwards.

    However slow a machine is, nobody has to be told to wait.
    """
    monkeypatch.setattr(interrupts, "_PATIENCE", 60.0)
    usual = {each: signal.signal(each, was) for each, was in interrupts._USUAL.items()}
    yield request.param
    found = {each: signal.getsignal(each) for each in usual}
    for each, was in usual.items():
        signal.signal(each, was)
    assert found == interrupts._USUAL  # what the command left


@pytest.mark.parametrize(
    "dropped",
    [
        in_what_catches_all,
        in_a_destructor,
        in_a_callback_of_the_garbage_collector,
        in_a_task_that_does_not_heed_its_cancelling,
    ],
)
def test_an_interrupt_that_python_drops_comes_again(dropped, number, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", lambda other: pytest.fail(str(other)))
    monkeypatch.setattr(interrupts, "_AGAIN", 0.05)
    waited = []

    def action():
        dropped(number)
        waited.append(threading.Event().wait(20))

    assert process.guarded(action) == 128 + number
    assert not waited
    assert capsys.readouterr().err == "error: stopped; the same command goes on from here\n"


def test_an_interrupt_that_comes_just_as_a_wait_begins_comes_again(number, monkeypatch):
    """Python's handler runs after the wait then: as if what was sent had not been heard."""
    monkeypatch.setattr(interrupts, "_AGAIN", 0.05)
    send, sent, waited = signal.pthread_kill, [], []

    def unheard_at_first(thread, what):
        sent.append(what)
        if len(sent) > 1:
            send(thread, what)

    def action():
        in_what_catches_all(number)
        waited.append(threading.Event().wait(20))

    monkeypatch.setattr(signal, "pthread_kill", unheard_at_first)
    assert process.guarded(action) == 128 + number
    assert not waited


@pytest.mark.parametrize("decided", [signal.SIG_IGN, lambda number, frame: None])
def test_a_signal_of_which_somebody_has_decided_is_left_to_them(decided, number):
    """As nohup and a shell's background job do of SIGINT, and a container's of SIGTERM."""
    signal.signal(number, decided)
    done = []

    def action():
        signal.raise_signal(number)
        done.append(signal.getsignal(number))

    assert process.guarded(action) == 0
    assert done == [decided] == [signal.signal(number, interrupts._USUAL[number])]


def test_a_terminal_that_closes_after_a_signal_interrupts_nothing_more(number, monkeypatch):
    """What is put in order at the end of a command is put in order once."""
    done = []

    def action():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGHUP)
            done.append("in order")

    assert process.guarded(action) == 128 + number
    assert done


IN_A_CLOSED_TERMINAL = """
import signal, sys
from rice_jax.commands import process

def action():
    sys.stdin.read()
    try:
        signal.raise_signal(signal.SIGHUP)
    finally:
        print("saved", flush=True)
        print("and drawn", file=sys.stderr, flush=True)

signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(process.guarded(action))
"""


def test_what_is_printed_to_a_terminal_that_has_closed_is_no_error():
    """It was: the process ended by it, whatever was left to save."""
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", IN_A_CLOSED_TERMINAL],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.close(ours)
    child.communicate()
    assert child.returncode == 128 + signal.SIGHUP


@pytest.mark.parametrize("at", ["create_module", "exec_module"])
def test_an_interrupt_waits_until_a_library_is_loaded(at, number, capsys):
    done = []

    def initialise():
        signal.raise_signal(number)  # in Python that C++ calls, where nothing may raise
        done.append("loaded")

    class Library(importlib.machinery.ExtensionFileLoader):
        def create_module(self, spec):
            initialise()

        def exec_module(self, module):
            initialise()

    def action():
        getattr(Library("made_up", "made_up.so"), at)(None)
        done.append(threading.Event().wait(20))

    assert process.guarded(action) == 128 + number
    assert done == ["loaded"]
    assert capsys.readouterr().err == "error: stopped; the same command goes on from here\n"


@pytest.mark.parametrize(
    ("made_of_it", "status", "told"),
    [
        (ImportError("initialising"), None, "error: stopped\n"),
        (UserError("nothing there"), 1, "error: nothing there\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
    ],
)
def test_what_a_library_makes_of_an_interrupt_is_one(made_of_it, status, told, number, capsys):
    def action():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise made_of_it from error

    assert process.guarded(action, goes_on="") == (status or 128 + number)
    assert capsys.readouterr().err == told


def test_an_error_without_an_interrupt_stays_one():
    def action():
        raise ImportError("no such thing")

    with pytest.raises(ImportError, match="no such thing"):
        process.guarded(action)


@pytest.mark.parametrize("first", interrupts._SIGNALS)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("between", [(), (signal.SIGHUP, signal.SIGHUP)])
def test_a_second_signal_ends_the_process_though_python_hears_neither(
    first, second, between, monkeypatch
):
    """Not a terminal that closes after the first one, or once more: its shell and the kernel do."""
    statuses, ended, told = [], threading.Event(), threading.Event()

    def leave(status):
        statuses.append(status)
        ended.set()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(interrupts, "_PATIENCE", 0)
    monkeypatch.setattr(interrupts, "_tell_to_wait", told.set)
    usual = {number: signal.signal(number, lambda *_: None) for number in interrupts._SIGNALS}
    with interrupts.heeded():
        signal.raise_signal(first)
        assert told.wait(20)
        for number in between:
            signal.raise_signal(number)
        assert not ended.is_set()
        signal.raise_signal(second)
        assert ended.wait(20)
    for number, handler in usual.items():
        signal.signal(number, handler)
    assert statuses == [128 + second]


def test_a_signal_that_comes_after_the_last_step_is_obeyed_at_the_end(number):
    closed = []

    def closing():
        with interrupt.interruptible() as wish:
            wish.arm()
            signal.raise_signal(number)
            closed.append("all that was open")

    ended = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(ended) as left:
        closing()
    assert getattr(left.value, "code", 128 + number) == 128 + number
    assert closed


def test_a_second_signal_is_the_usual_s_however_often_steps_end_after_the_first(number):
    def usual(number, frame):
        raise KeyboardInterrupt("at once")

    def stopped_twice():
        with interrupt.interruptible() as wish:
            wish.arm()
            signal.raise_signal(number)
            wish.arm()  # at the end of the step
            signal.raise_signal(signal.SIGHUP)  # no second one
            assert wish.signal == number
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, usual)
    with pytest.raises(KeyboardInterrupt, match="at once"):
        stopped_twice()
    assert signal.getsignal(signal.SIGINT) is usual
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_training_leaves_a_signal_ignored_that_is(number):
    """It took a Ctrl-C that was for what a shell runs in the foreground, and nohup's hang-up."""
    signal.signal(number, signal.SIG_IGN)
    with interrupt.interruptible() as wish:
        wish.arm()
        signal.raise_signal(number)
        assert not wish.signal
        assert signal.getsignal(number) == signal.SIG_IGN
        others = set(interrupts._SIGNALS) - {number}
        assert not {signal.getsignal(other) for other in others} & {*interrupts._USUAL.values()}
    assert signal.signal(number, interrupts._USUAL[number]) == signal.SIG_IGN


def test_a_command_stopped_before_it_began_says_so(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(launch, "open_streams", interrupted)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as left:
        entry.enter(["zoo"])
    assert left.value.code == 130
    assert capsys.readouterr().err == "error: stopped\n"


@pytest.mark.skipif(not launch.has_glibc(), reason="no process begins again here")
def test_a_ctrl_c_while_python_begins_again_waits_until_it_is_answered(monkeypatch, capsys):
    loading = []

    def begun_again(executable, arguments, environment):
        signal.raise_signal(signal.SIGINT)
        loading.append(arguments)
        monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
        entry.enter(["train"])

    def end(status):
        raise SystemExit(status)

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv(launch.SWITCH, raising=False)
    monkeypatch.setattr(os, "execve", begun_again)
    monkeypatch.setattr(os, "_exit", end)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as left:
        entry.enter(["train"])
    signal.signal(signal.SIGINT, usual)
    assert loading
    assert left.value.code == 130
    assert capsys.readouterr().err == "error: stopped\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("arguments", [["--version"], ["zoo"], ["train", "--help"]])
def test_a_ctrl_c_after_all_is_done_changes_nothing(arguments):
    """While Python takes leave: it was a traceback, or the end by the signal without a line."""
    script = (
        "import atexit, os, signal, sys\n"
        "from rice_jax.commands.entry import enter\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "enter(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(("arguments", "status"), [(["nonsense"], 1), (["--version"], None)])
def test_a_command_that_failed_does_not_wait_for_threads(arguments, status, monkeypatch, capsys):
    """As Orbax's, which after a write that failed wait for ten minutes."""
    ended = []

    def end(status):
        ended.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        entry.enter(arguments)
    signal.signal(signal.SIGINT, usual)  # a process that is done hears it no more
    assert ended == ([status] if status else [])
    capsys.readouterr()
