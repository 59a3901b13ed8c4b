"""What processors print and log goes to their own log, and nobody else notices."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading

import pytest

from pratipad_nb.calls import Worker
from pratipad_nb.runtime.values import logs
from pratipad_nb.runtime.values.logs import LINE_CHARACTERS, ProcessorLog, diverted_output, logging_to

user = logging.getLogger("house.processors")


def texts(log):
    return [(line.stream, line.text) for line in log.lines()]


class TestLog:
    def test_puts_lines_together_from_pieces_stream_by_stream(self):
        log = ProcessorLog()
        for stream, piece in [("stdout", "a"), ("stderr", "x\n"), ("stdout", "b\nc"), ("stdout", "d")]:
            log.write(stream, piece)
        assert texts(log) == [("stderr", "x"), ("stdout", "ab"), ("stdout", "cd")]

    def test_is_bounded_in_lines_and_in_their_length(self):
        log = ProcessorLog(most=3)
        log.write("stdout", "x" * (3 * LINE_CHARACTERS + 1))
        log.write("stdout", "\n1\n2\n")
        assert [len(line.text) for line in log.lines()] == [1, 1, 1]
        assert log.total == 6

    def test_many_threads_lose_no_line(self):
        log = ProcessorLog(most=10_000)
        threads = [
            threading.Thread(target=lambda n=n: [log.record(str(n), str(i)) for i in range(500)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.total == len(log.lines()) == 2000


class TestOutput:
    def test_of_a_processor_goes_to_its_log_and_other_output_where_it_went(self, capsys):
        log = ProcessorLog()
        with diverted_output():
            print("a cell's")
            with logging_to(log):
                print("a processor's")
                print("trouble", file=sys.stderr, flush=True)
            print("a cell's again")
        assert texts(log) == [("stdout", "a processor's"), ("stderr", "trouble")]
        assert capsys.readouterr() == ("a cell's\na cell's again\n", "")

    async def test_follows_a_call_to_its_thread(self, capsys):
        log, worker = ProcessorLog(), Worker("P1")
        with diverted_output():
            with logging_to(log):
                await worker.call(print, "on the thread")
            await worker.call(print, "none of ours")
        await worker.close()
        assert texts(log) == [("stdout", "on the thread")]
        assert capsys.readouterr().out == "none of ours\n"

    def test_without_a_running_flow_nothing_is_touched(self, capsys):
        before = sys.stdout, sys.stderr, logging.Logger.callHandlers
        with diverted_output(), diverted_output():
            assert sys.stdout is not before[0]
        assert (sys.stdout, sys.stderr, logging.Logger.callHandlers) == before
        with logging_to(ProcessorLog()):
            print("plain")
        assert capsys.readouterr().out == "plain\n"

    def test_of_two_flows_ends_with_the_last_in_any_order(self):
        original = sys.stdout
        first, second = diverted_output(), diverted_output()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert sys.stdout is not original
        second.__exit__(None, None, None)
        assert sys.stdout is original

    def test_everything_else_of_the_stream_passes_through(self):
        class Kernel(io.StringIO):
            parent = None

            def set_parent(self, parent):
                self.parent = parent

        kernel = Kernel()
        with contextlib.redirect_stdout(kernel), diverted_output():
            sys.stdout.set_parent("cell 1")
            sys.stdout.echo = "device"
            sys.stdout.writelines(["a\n", "b\n"])
            assert repr(sys.stdout) == repr(kernel)
            assert sys.stdout.writable()
            assert not hasattr(sys.stdout, "nothing")
        assert (kernel.parent, kernel.echo, kernel.getvalue()) == ("cell 1", "device", "a\nb\n")

    def test_a_cell_that_wraps_write_sees_its_own_output_and_no_processors(self):
        kernel, seen, log = io.StringIO(), [], ProcessorLog()
        with contextlib.redirect_stdout(kernel), diverted_output():
            before = sys.stdout.write

            def write(text):  # as IPython does for every cell
                seen.append(text)
                return before(text)

            sys.stdout.write = write
            print("a cell's")
            with logging_to(log):
                print("a processor's")
            sys.stdout.write = before
            print("the next cell's")
        assert seen == ["a cell's", "\n"]
        assert kernel.getvalue() == "a cell's\nthe next cell's\n"
        assert texts(log) == [("stdout", "a processor's")]

    def test_of_a_redirection_that_outlives_the_flow_is_left_alone(self):
        original, elsewhere, log = sys.stdout, io.StringIO(), ProcessorLog()
        diversion = diverted_output()
        diversion.__enter__()
        with contextlib.redirect_stdout(elsewhere):
            diversion.__exit__(None, None, None)
            assert sys.stdout is elsewhere
        stale = sys.stdout  # ours, put back by the redirection
        try:
            with diverted_output():
                assert sys.stdout is stale
                with logging_to(log):
                    print("still diverted")
            assert sys.stdout is original
            assert texts(log) == [("stdout", "still diverted")]
        finally:
            sys.stdout = original

    def test_where_there_is_no_stdout_nothing_breaks(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        with diverted_output():
            print("nowhere")
        assert sys.stdout is None


class TestLogging:
    def test_of_a_processor_goes_to_its_log_alone(self, caplog, capsys):
        log, own = ProcessorLog(), logging.StreamHandler(sys.stderr)
        user.addHandler(own)
        try:
            with diverted_output(), logging_to(log):
                user.warning("hot: %d", 90)
                user.debug("below the level")
        finally:
            user.removeHandler(own)
        assert texts(log) == [("WARNING", "house.processors: hot: 90")]
        assert caplog.records == []
        assert capsys.readouterr().err == ""

    def test_of_others_takes_its_usual_way(self, caplog):
        with diverted_output():
            user.warning("a cell's")
        assert [r.message for r in caplog.records] == ["a cell's"]

    def test_brings_the_traceback(self):
        log = ProcessorLog()
        with diverted_output(), logging_to(log):
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError:
                user.exception("failed")
        assert texts(log)[0] == ("ERROR", "house.processors: failed")
        assert texts(log)[-1] == ("ERROR", "ZeroDivisionError: division by zero")

    def test_with_a_wrong_format_string_stops_nothing(self):
        log = ProcessorLog()
        with diverted_output(), logging_to(log):
            user.warning("%d", "no number")
        assert "can't be formatted" in log.lines()[0].text

    def test_somebody_elses_patch_over_ours_is_left_alone_and_passes_through(self, monkeypatch, caplog):
        original = logging.Logger.callHandlers
        with diverted_output():
            ours = logging.Logger.callHandlers

            def theirs(logger, record):
                ours(logger, record)

            logging.Logger.callHandlers = theirs
        try:
            assert logging.Logger.callHandlers is theirs
            user.warning("still heard")
            assert [r.message for r in caplog.records] == ["still heard"]
        finally:
            logging.Logger.callHandlers = original


@pytest.mark.parametrize("name", logs.__all__)
def test_public_names_are_there(name):
    assert hasattr(logs, name)
