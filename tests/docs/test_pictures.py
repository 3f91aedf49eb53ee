"""The drawings of the pages are those of this code."""

import re

from tests.docs.test_docs import DOCS, generate, load

MODULE, CALLBACK = '<circle class="module"', '<rect class="callback"'
BY_TORCH = ("loss.backward()", "optimizer.step()")


def test_the_picture_of_the_rooms_is_that_of_this_code() -> None:
    rooms = generate.rooms()
    assert rooms.PICTURE.read_text() == rooms.draw(), "run python docs/rooms.py"


def test_the_picture_of_the_hooks_is_that_of_a_real_fit() -> None:
    picture = load("hooks_picture")
    assert picture.PICTURE.read_text() == picture.draw(generate.record(with_torch=True)), "run docs/hooks_picture.py"


def test_the_picture_of_the_hooks_shows_each_call_in_its_place() -> None:
    calls, shown = [call for call in generate.record() if call[0] != "torch"], list[tuple[str, str]]()
    name = ""
    lines = load("hooks_picture").PICTURE.read_text().splitlines()
    for line in lines[lines.index(next(line for line in lines if 'class="box"' in line)) :]:
        if found := re.fullmatch(r"<text x=.*>(.*)</text>", line):
            name = found[1]
        elif line.startswith((MODULE, CALLBACK)):
            shown.append(("module" if line.startswith(MODULE) else "callback", name))
    assert shown == calls


def test_torch_itself_says_when_a_gradient_and_a_step_are_computed() -> None:
    calls = generate.record(with_torch=True)
    assert [name for who, name in calls if who == "torch"] == [BY_TORCH[0], *BY_TORCH]  # two batches, one step
    assert [call for call in calls if call[0] != "torch"] == generate.record()
    names = [name for _, name in calls]
    assert names.index("optimizer_step") == names.index(BY_TORCH[1]) - 1
    assert names.index("on_after_backward") == len(names) - 1 - names[::-1].index(BY_TORCH[0]) + 1


def test_the_curves_of_the_run_that_was_killed_lie_on_those_of_the_other() -> None:
    lines = re.findall(r'class="curve (\w+)" points="([^"]*)"', (DOCS / "curves.svg").read_text())
    whole = [points.split() for kind, points in lines if kind == "whole"]
    assert len(whole) == 2  # training, validation
    for number, one in enumerate(whole):
        starts = [points.split() for kind, points in lines if kind != "whole"][number::2]
        assert len(starts) == 3
        assert list(dict.fromkeys(point for points in starts for point in points)) == one
