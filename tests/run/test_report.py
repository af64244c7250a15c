import io
import threading
import time

import pytest

from cmcore.run import memory
from cmcore.run.report import Bar, Lines, Progress, duration, table, terminal_progress

ROW = {"step": 5, "loss": 0.123456, "images_per_second": 1234.5, "seconds": 1.0, "memory": 1.5 * 2**30}


def drive(progress):
    progress.begin(0, 10, 4)
    for done in range(1, 6):
        progress.advance(done)
    progress.measure(ROW)
    progress.note("Something happened.")
    progress.end()


def test_lines_are_few_and_tell_loss_and_speed():
    file, clock = io.StringIO(), Clock()
    drive(Lines(file, 1000, clock))
    assert file.getvalue().splitlines() == [
        "Something happened.",
        "step 5 of 10: loss 0.1235, 1,234 images/s, 1.5 GiB, 0 s left",
    ]


def test_lines_tell_the_time_left_as_the_steps_of_this_process_went():
    file, clock = io.StringIO(), Clock()
    lines = Lines(file, 10.0, clock)
    lines.begin(100, 1000, 4)
    clock.now = 60.0
    lines.advance(200)
    lines.measure(ROW | {"step": 200, "memory": None})
    lines.end()
    # 100 steps in a minute, 800 to go.
    assert file.getvalue() == "step 200 of 1,000: loss 0.1235, 1,234 images/s, 8 min left\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3540, "59 min"), (3600, "1 h 0 min"), (11_100, "3 h 5 min")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_memory_is_the_devices_where_it_tells_else_the_processs():
    class Device:
        def __init__(self, told):
            self.memory = lambda: told

    assert memory.used(Device(7)) == 7
    assert memory.used(Device(0)) == 0
    for backend in (Device(None), object()):
        assert 2**24 < memory.used(backend) < 2**40


def test_the_process_grows_with_what_it_holds():
    before = memory.of_process()
    held = bytearray(b"x" * 2**27)
    assert memory.of_process() - before > 2**26
    del held


def test_on_the_cpu_backends_tell_no_memory_of_their_own(trainable):
    assert trainable.on("cpu").memory() is None


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_lines_come_at_intervals_and_none_twice():
    file, clock = io.StringIO(), Clock()
    lines = Lines(file, 10.0, clock)
    lines.begin(0, 100, 4)
    for step in range(1, 8):
        clock.now += 4
        lines.advance(step)
        lines.measure(ROW | {"step": step})
    lines.end()
    assert [line.split(":")[0] for line in file.getvalue().splitlines()] == [
        "step 3 of 100",
        "step 6 of 100",
        "step 7 of 100",
    ]
    lines.measure(ROW)
    lines.end()
    assert len(file.getvalue().splitlines()) == 3


def test_between_rows_the_step_is_told():
    file, clock = io.StringIO(), Clock()
    lines = Lines(file, 10.0, clock)
    lines.begin(3, 1000, 4)
    for now in (5, 11, 15, 22):
        clock.now = now
        lines.tick()
    lines.advance(4)
    clock.now = 40
    lines.tick()
    lines.end()
    assert file.getvalue().splitlines() == ["step 3 of 1,000", "step 3 of 1,000", "step 4 of 1,000"]


@pytest.mark.parametrize("kind", [Lines, Bar])
def test_what_takes_long_says_so(kind):
    file, clock = io.StringIO(), Clock()
    progress = kind(file, 10.0, clock)
    with progress.phase("Reading photos") as count:
        for now in (5, 11, 12, 25):
            clock.now = now
            count(now, 40)
            progress.tick()
        with progress.phase("Making a picture", quiet=True):
            clock.now = 36
            progress.tick()
    clock.now = 100
    progress.tick()
    assert file.getvalue().splitlines() == [
        "Reading photos ...",
        "Reading photos: 11 of 40, 11 s so far",
        "Reading photos: 25 of 40, 25 s so far",
        "Making a picture: 11 s so far",
    ]


def test_a_busy_program_still_speaks():
    """The thread does, while nothing here calls anything."""
    file = io.StringIO()
    progress = Lines(file, every=0.0)
    with progress.phase("Compiling"):
        for _ in range(100):
            if "so far" in file.getvalue():
                break
            time.sleep(0.1)
    assert "Compiling: " in file.getvalue()
    threads = [t for t in threading.enumerate() if t.daemon and t.is_alive() and "beat" in t.name]
    for thread in threads:
        thread.join(5)
    assert not any(t.is_alive() for t in threads)


class Gone(io.StringIO):
    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("kind", [Lines, Bar])
def test_a_terminal_that_is_gone_ends_nothing(kind):
    drive(kind(Gone()))
    closed = io.StringIO()
    closed.close()
    drive(kind(closed))


def test_the_bar_shows_steps_loss_and_notes():
    file = io.StringIO()
    drive(Bar(file))
    text = file.getvalue()
    assert "5/10 steps" in text
    assert "loss 0.1235, 1,234 images/s, 1.5 GiB" in text
    assert "Something happened.\n" in text


def test_a_bar_is_for_terminals():
    file = io.StringIO()
    assert isinstance(terminal_progress(file), Lines)
    file.isatty = lambda: True
    assert isinstance(terminal_progress(file), Bar)


def test_silence(capsys):
    drive(Progress())
    assert capsys.readouterr() == ("", "")


def test_tables_align_numbers_at_the_right():
    assert table(("", "NFE"), [("one", "1"), ("three", "35")]).splitlines() == [
        "       NFE",
        "-----  ---",
        "one      1",
        "three   35",
    ]
