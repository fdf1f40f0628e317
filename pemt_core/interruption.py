"""How a program ends on SIGINT (Ctrl-C) and SIGTERM (`kill`, the stop of a container): tidily, within ten seconds.

A block that has promised more, as a server its answers, can ask for more time (`ending_within`).

The signal raises `Interrupted` in the main thread, so that every `finally` runs. A block that must not end halfway can
put that off for some seconds (`deferred`). A second signal raises it at once. If the main thread does not end, because
a library's call takes long or swallowed the exception, another thread ends the process.
"""

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DEFERRED_SECONDS = 5.0  # a block may put the end off for this long
TIDY_SECONDS = 7.5  # for everything that the main thread still does, unless a block asks for more
LAST_WORDS_SECONDS = 1.5  # after these, to say elsewhere that the process ends
ONE_REQUEST_SECONDS = 1.0  # signals this close are one request, as when a terminal and a parent both send one


class Interrupted(KeyboardInterrupt):
    """A signal ends the program. `text` says what is kept and how to continue."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(number, text)
        self.number = number
        self.text = text or f"{self.reason}: run the same command again to resume"

    def __str__(self) -> str:
        return self.text

    @property
    def reason(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells."""
        return 128 + self.number


Report = Callable[[Interrupted], None]


class _Signals:
    """The signals that this process has received, and how it ends."""

    def __init__(self, report: Report, *, patient: bool = False) -> None:
        """A `patient` process is interrupted in deferring blocks alone."""
        self.report, self.patient = report, patient
        self.number, self.since = 0, 0.0  # of the first signal
        self.tidy_seconds = TIDY_SECONDS
        self.deferring = 0  # depth of the blocks that put the end off
        self.last_words: list[Callable[[], None]] = []

    def handle(self, numbers: Sequence[signal.Signals]) -> None:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is for the background jobs of a script
                signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)

    def _on_signal(self, number: int, _: object) -> None:
        first = not self.number
        if first:
            self.number, self.since = number, time.monotonic()
        elif self.patient or time.monotonic() - self.since < ONE_REQUEST_SECONDS:
            return
        if first and self.deferring:
            signal.setitimer(signal.ITIMER_REAL, DEFERRED_SECONDS)
        elif not self.patient:
            raise Interrupted(self.number)

    def _on_alarm(self, *_: object) -> None:
        if self.deferring:
            raise Interrupted(self.number)

    def watch(self, reading: int) -> None:
        """End the process some time after a signal, of which the system tells by a byte; return at the end of file."""
        number, deadline = 0, float("inf")
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([reading], [], [], left if number else None)
            told = os.read(reading, 64) if ready else b""
            if ready and not told:
                return
            if not number and (number := next((byte for byte in told if byte in SIGNALS), 0)):
                deadline = time.monotonic() + self.tidy_seconds
        for words in self.last_words:
            speaker = threading.Thread(target=words, daemon=True)
            speaker.start()
            speaker.join(LAST_WORDS_SECONDS / len(self.last_words))
        self.report(Interrupted(number))
        os._exit(128 + number)

    def end(self, stopped: Interrupted) -> NoReturn:
        """End the process without waiting for its threads, which may wait for a server."""
        self.report(stopped)
        atexit._run_exitfuncs()
        with suppress(OSError):  # nobody may read any more
            sys.stdout.flush()
        os._exit(stopped.exit_code)


_active: _Signals | None = None  # None: the process has Python's own handlers


@contextmanager
def stoppable(report: Report = lambda _: None) -> Iterator[None]:
    """Run a program in the block. If a signal ends it, `report` that and exit with 128 plus the signal's number.

    In another thread than the main one, and inside another such block, this does nothing.
    """
    global _active
    if _active or not _in_main_thread():
        yield
        return
    signals = _active = _Signals(report)
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=signals.watch, args=(reading,), daemon=True)
    watcher.start()
    waking = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signals.handle(SIGNALS)
    try:
        yield
    except Interrupted as stopped:
        signals.end(stopped)
    except BaseException as error:
        done = (None, 0, 128 + signals.number)
        if not signals.number or (isinstance(error, SystemExit) and error.code in done):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())  # a library made this error of the interruption
        signals.end(Interrupted(signals.number, f"{Interrupted(signals.number)} ({cause})"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waking)
        os.close(writing)
        watcher.join()
        os.close(reading)
        _active = None


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """Give the main thread `seconds` instead of TIDY_SECONDS to end, after a signal that comes while the block runs."""
    signals = _active
    if signals is None or not _in_main_thread():
        yield
        return
    before, signals.tidy_seconds = signals.tidy_seconds, seconds
    try:
        yield
    finally:
        signals.tidy_seconds = before


@contextmanager
def deferred() -> Iterator[None]:
    """Put an interruption off until the block ends, for some seconds at most. The block may look for it."""
    signals = _active
    if signals is None or not _in_main_thread():
        yield
        return
    _raise_asked(signals)
    signals.deferring += 1
    try:
        yield
    finally:
        signals.deferring -= 1
        if not isinstance(sys.exc_info()[1], Interrupted):
            _raise_asked(signals)


def _raise_asked(signals: _Signals) -> None:
    if not signals.deferring and (stopped := asked_for()):
        raise stopped


def asked_for() -> Interrupted | None:
    """The interruption that is put off, if there is one, for the caller to raise when it is ready."""
    if _active is None or not _active.number:
        return None
    signal.setitimer(signal.ITIMER_REAL, 0)
    return Interrupted(_active.number)


@contextmanager
def last_words(words: Callable[[], None]) -> Iterator[None]:
    """Call `words`, in another thread, if the process must be ended before the main thread leaves the block."""
    spoken = _active.last_words if _active else []
    spoken.append(words)
    try:
        yield
    finally:
        spoken.remove(words)


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back while the block forks workers, which take them from `become_worker` on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker() -> None:
    """Interrupt deferring blocks on SIGTERM, which the parent sends, and ignore SIGINT, which a terminal sends to all.

    The parent ends what does not end by itself.
    """
    global _active
    _active = _Signals(lambda _: None, patient=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _active.handle([signal.SIGTERM])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    """Give a forked process Python's own handlers, and detach it from the thread that ends its parent."""
    global _active
    if _active:
        _active = None
        signal.set_wakeup_fd(-1)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


os.register_at_fork(after_in_child=_forget)
