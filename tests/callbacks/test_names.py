"""The names of ``pytorch_lightning.callbacks`` and ``loggers``, whose files are loaded when they are asked for."""

import subprocess
import sys

import pytest

from pytorch_lightning import callbacks, loggers

ASKED = """
import importlib, pickle, sys
room = importlib.import_module("pytorch_lightning.{room}")
files = {{f"{{room.__name__}}.{{file}}" for file in room.LATER.values()}}
assert not files & set(sys.modules), "loaded before anybody asked"
assert set(room.__all__) <= set(dir(room))
file, name = room.LATER["{name}"], "{name}"
module = getattr(room, file)  # as an attribute of the room, where a program of before named it so
assert module is sys.modules[f"{{room.__name__}}.{{file}}"]
there = {{}}
exec(f"from {{room.__name__}} import *", there)
assert there[name] is getattr(module, name) is getattr(room, name)
for each in room.__all__:
    assert pickle.loads(pickle.dumps(there[each])) is there[each] and there[each].__name__ == each
"""


@pytest.mark.parametrize(("room", "name"), [("callbacks", "ModelCheckpoint"), ("loggers", "TestTubeLogger")])
def test_a_name_is_there_in_every_way_of_asking(room: str, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASKED.format(room=room, name=name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_name_has_its_file() -> None:
    assert set(callbacks.__all__) == {"Callback", "Run", *callbacks.LATER}
    assert set(loggers.__all__) == set(loggers.LATER)
    for room in (callbacks, loggers):
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            room.Nothing
