import io

from cmcore.run.report import Bar, Lines, Progress, table, terminal_progress

ROW = {"step": 5, "loss": 0.123456, "images_per_second": 1234.5, "seconds": 1.0}


def drive(progress):
    progress.begin(0, 10, 4)
    for done in range(1, 6):
        progress.advance(done)
    progress.measure(ROW)
    progress.note("Something happened.")
    progress.end()


def test_lines_are_few_and_tell_loss_and_speed():
    file = io.StringIO()
    drive(Lines(file, every=1000))
    assert file.getvalue().splitlines() == ["Something happened.", "step 5 of 10: loss 0.1235, 1,234 images/s"]


def test_lines_come_at_intervals():
    file = io.StringIO()
    drive(Lines(file, every=0))
    assert len(file.getvalue().splitlines()) == 3


def test_the_bar_shows_steps_loss_and_notes():
    file = io.StringIO()
    drive(Bar(file))
    text = file.getvalue()
    assert "5/10 steps" in text
    assert "loss 0.1235, 1,234 images/s" in text
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
