import signal
import threading

import pytest

from p2p.pipelines import ctrl_c


class Destructible:
    """Python loses an exception that is raised in here."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_it_is_not_lost_in_a_destructor_and_ends_a_wait():
    woken = []
    with pytest.raises(KeyboardInterrupt), ctrl_c.noted(lambda: woken.append(1)) as check:
        check()
        Destructible()
        assert woken == [1]
        check()
        raise AssertionError("it should have been noticed")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_raised_at_the_end_and_the_second_one_at_once():
    with pytest.raises(KeyboardInterrupt), ctrl_c.noted(lambda: None):
        signal.raise_signal(signal.SIGINT)
    seen = []
    with pytest.raises(KeyboardInterrupt), ctrl_c.noted(lambda: None):
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            seen.append("raised here")
        raise AssertionError("and not here")
    assert seen == ["raised here"]


def test_another_exception_goes_first():
    with pytest.raises(KeyError), ctrl_c.noted(lambda: None):
        signal.raise_signal(signal.SIGINT)
        raise KeyError


def test_a_handler_of_someone_else_stays():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ctrl_c.noted(lambda: None):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_all_stays_as_it_is():
    failed = []

    def work():
        try:
            with ctrl_c.noted(lambda: None) as check:
                check()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
