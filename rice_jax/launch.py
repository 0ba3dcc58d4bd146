"""A command begins once more, with large pages for its memory, which only a new process gets.

XLA allocates megabytes in each step and frees them again. By default glibc takes them from the
kernel and gives them back each time, and the kernel clears and maps them by pages of 4 KB: a third
of a training step. With pages of 2 MB that is hardly noticed.
"""

import contextlib
import io
import os
import signal
import stat
import sys
from collections.abc import Mapping

SWITCH = "RICE_JAX_XLA_FLAGS"
"""Environment variable: 0 leaves memory, XLA's flags and the devices as they are."""
_TUNABLES = "GLIBC_TUNABLES"


def large_pages(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment to begin again with; None where that is not wanted or would not help.

    Args:
        environment: the variables as they are; glibc's own, if set, stay.
    """
    if environment.get(SWITCH) == "0" or _TUNABLES in environment or not has_glibc():
        return None
    return {**environment, _TUNABLES: "glibc.malloc.hugetlb=1"}


def open_streams() -> None:
    """Let standard input, output and error lead nowhere where the caller closed them.

    Python has None in their place, which nothing can print to, and the next file that is opened
    gets their number, with what libraries write to them. What a stream cannot write, as a name in
    other letters than the locale's, is escaped.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.errors == "strict":
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes


def leave_closed_terminal() -> None:
    """Let output and error lead nowhere where their terminal has closed.

    All that is printed there would be an error, and the work that prints it end by that.
    """
    for number in (1, 2):
        with contextlib.suppress(OSError):  # closed by the caller
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)


def begin_again() -> None:
    """Replace this process, arguments and all, where `large_pages` says so.

    For the beginning of a command, before anything heavy is loaded.
    """
    environment = large_pages(os.environ)
    if environment is not None:
        # Python answers Ctrl-C with a traceback until it has loaded what answers better.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
        finally:
            hear()


def hear() -> None:
    """Let a Ctrl-C come that came while this process began again: KeyboardInterrupt."""
    if has_glibc():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def has_glibc() -> bool:
    """Whether the C library is glibc, whose malloc the setting is for."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):  # not of this system
        return False
