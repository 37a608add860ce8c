import os
import signal
import subprocess
import sys
import threading

import pytest

from transfer.runtime import signals
from transfer.runtime.signals import StoppedBySignal, defer_stop_signals, raise_if_stop_requested, stop_requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_only_asks_and_a_second_one_is_as_ever(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda n, frame: heard.append(n))
    try:
        with defer_stop_signals(), defer_stop_signals():  # one within another is the same one
            raise_if_stop_requested()
            assert not stop_requested()
            signal.raise_signal(number)
            assert stop_requested()
            assert not heard
            with pytest.raises(StoppedBySignal, match="--resume continues from here") as stopped:
                raise_if_stop_requested()
            assert stopped.value.number == number
            assert isinstance(stopped.value, KeyboardInterrupt)
            signal.raise_signal(number)
            assert heard == [number]
        assert not stop_requested()
        signal.raise_signal(number)
        assert heard == [number, number]
    finally:
        signal.signal(number, before)
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_what_is_raised_within_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), defer_stop_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before
    assert not signals._previous_handlers


def test_other_threads_leave_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with defer_stop_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
def test_a_process_can_be_ended_at_once() -> None:
    code = "import signal\nfrom transfer.runtime.signals import *\n"
    code += "with defer_stop_signals():\n    signal.raise_signal(signal.SIGTERM)\n"
    code += "    print('on', flush=True)\n    signal.raise_signal(signal.SIGTERM)\n    print('never')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "on\n")


def test_torch_is_not_needed() -> None:
    code = "import sys; import transfer.runtime.signals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
