import json
import threading
import time
from io import StringIO
from itertools import pairwise

import pytest
from rich.console import Console

from edgec.cli.live import LiveReporter
from edgec.cli.main import cli
from edgec.cli.reporter import JsonReporter, PlainReporter, reporter, scan_progress
from edgec.cli.settings import Settings
from edgec.pipeline.events import (
    Event,
    StageAdvanced,
    StageFinished,
    StageHit,
    StageNote,
    StageProgress,
    StageStarted,
    StageWaiting,
)

BUILD: list[Event] = [
    StageHit("checkpoint", "aa"),
    StageStarted("quantize", "bb"),
    StageProgress("quantize", 4096, "bytes"),
    StageAdvanced("quantize", 1024),
    StageHit("import", "cc"),
    StageWaiting("compile", 12),
    StageNote("quantize", "layer 3"),
    StageFinished("quantize", "bb", 3.21),
]
EVENT_NAMES = {
    "stage-hit",
    "stage-waiting",
    "stage-started",
    "stage-progress",
    "stage-advanced",
    "stage-note",
    "stage-finished",
}


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainReporter() as report:
        for event in BUILD:
            report(event)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "checkpoint: cached",
        "import: cached",
        "compile: waiting for another build (pid 12)",
        "quantize: done in 3.2 s",
    ]
    assert captured.out == ""


def test_plain_lines_say_nothing_when_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainReporter() as report:
        report(StageHit("checkpoint", "aa"))
        report(StageHit("quantize", "bb"))
    assert capsys.readouterr().err == ""


def test_a_long_stage_has_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainReporter()
    report(StageStarted("quantize", "bb"))
    start = time.monotonic()

    def lines(*seconds: float) -> list[str]:
        for second in seconds:
            report.tick(start + second)
        return capsys.readouterr().err.splitlines()

    assert lines(1, 2, 3, 4) == []
    assert lines(5.1) == ["quantize: running (5 s)"]
    assert lines(6, 7, 8, 9) == []
    report(StageProgress("quantize", 4 << 20, "bytes"))
    report(StageAdvanced("quantize", 1 << 20))
    assert lines(10.2, 11, 12) == ["quantize: 1.0 MiB of 4.0 MiB (10 s)"]
    report(StageNote("quantize", "layer 3"))
    assert lines(20.5) == ["quantize: layer 3, 1.0 MiB of 4.0 MiB (20 s)"]
    # The pauses grow, but never beyond a minute.
    assert len(lines(*range(21, 1800))) in range(28, 34)
    report(StageFinished("quantize", "bb", 1800.0))
    assert lines(1900) == ["quantize: done in 30 min 00 s"]


def test_lines_come_no_more_than_every_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    report = PlainReporter()
    report(StageStarted("compile", "bb"))
    start = time.monotonic()
    printed = []
    for tenth in range(6000):
        report.tick(start + tenth / 10)
        if capsys.readouterr().err:
            printed.append(tenth / 10)
    assert min(b - a for a, b in pairwise(printed)) >= 5


def test_events_as_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report = JsonReporter()
    for event in BUILD:
        report(event)
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert {event["event"] for event in events} == EVENT_NAMES
    assert events[1] == {"event": "stage-started", "stage": "quantize", "digest": "bb"}
    assert events[-1] == {
        "event": "stage-finished",
        "stage": "quantize",
        "digest": "bb",
        "seconds": 3.21,
    }
    assert captured.err == ""


def _screen() -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, force_terminal=True, width=80, color_system=None), text


def test_live_lines_stay_and_the_display_goes() -> None:
    screen, text = _screen()
    with LiveReporter(screen) as report:
        for event in BUILD:
            report(event)
    plain = "".join(text.getvalue().split("\x1b[2K"))
    assert "✓ checkpoint  cached" in plain
    assert "✓ import  cached" in plain
    assert "✓ quantize    3.2 s" in plain


def test_the_live_display_shows_what_runs() -> None:
    screen, text = _screen()
    report = LiveReporter(screen)
    for event in BUILD[:-1]:
        report(event)
    text.truncate(0)
    screen.print(report._render())
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "quantize" in lines[0]
    assert "1.0 KiB of 4.0 KiB  layer 3" in lines[0]
    assert "waiting for another build (pid 12)" in lines[1]


def test_a_narrow_terminal_keeps_one_line_per_stage() -> None:
    text = StringIO()
    screen = Console(file=text, force_terminal=True, width=40, color_system=None)
    report = LiveReporter(screen)
    for event in BUILD[:-1]:
        report(event)
    text.truncate(0)
    text.seek(0)
    screen.print(report._render())
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "quantize" in lines[0]
    assert "compile" in lines[1]


def test_live_events_may_come_from_several_threads() -> None:
    screen, text = _screen()

    def stage(report: LiveReporter, name: str) -> None:
        for _ in range(20):
            report(StageStarted(name, ""))
            report(StageNote(name, "now"))
            report(StageFinished(name, "", 1.0))

    with LiveReporter(screen) as report:
        threads = [threading.Thread(target=stage, args=(report, f"s{i}")) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert text.getvalue().count("✓") == 80


def test_the_reporter_suits_options_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with reporter(as_json=True) as report:
        assert isinstance(report, JsonReporter)
    with reporter(as_json=False) as report:
        assert isinstance(report, PlainReporter)


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    context = cli.make_context("edgec", ["doctor"], obj=Settings(quiet=True))
    with context, reporter(as_json=False) as report:
        for event in BUILD:
            report(event)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_reading_files_for_digests_is_a_stage_of_its_own() -> None:
    events: list[Event] = []
    progress = scan_progress(events.append)
    progress.start(0, "bytes")
    assert events == []
    progress.start(10, "bytes")
    progress.advance(4)
    progress.advance(6)
    assert [type(event) for event in events] == [
        StageStarted,
        StageProgress,
        StageAdvanced,
        StageAdvanced,
        StageFinished,
    ]
    assert {event.name for event in events} == {"hash"}
