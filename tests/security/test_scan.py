"""What in the package can run code that its author didn't write: each place is known, with a reason."""

from pathlib import Path

import pytest

import pytorch_lightning
from tests.security.scan import Finding, scan

PACKAGE = Path(pytorch_lightning.__file__).parent


PRIVATE = "between processes of one user and one program, through a file in a folder of mode 0700 made for them"
CHOSEN = "the person who replays names the file or the module: --script, --module; the bundle has no part in it"
MEETING = "where the processes of a run meet; what they tell each other there are counters, addresses and a secret"
YAML = "a file that the command line names, read by the loader that makes plain data alone"

ALLOWED = {
    "__init__.py: __getattr__: importlib.import_module": "of a fixed table: the homes of the public names",
    "callbacks/__init__.py: __getattr__: importlib.import_module": "of a fixed table: callbacks that are seldom used",
    "data/digits/__init__.py: _Fetch._load: urllib.request.Request": "a file of MNIST, where it isn't there: checked",
    "data/digits/__init__.py: _Fetch._load: urllib.request.urlopen": "by its MD5, and of a limited size",
    "data/watched_objects.py: WatchedObjects._note_shared: socket.socket": "whether data hold one",
    "data/workers.py: are_forked: multiprocessing.get_start_method": "how workers would be started",
    "data/workers.py: Shielded.__call__: multiprocessing.get_start_method": "a worker asks how it was started",
    "launchers/environment.py: join: torch.distributed.PrefixStore": MEETING,
    "launchers/environment.py: join: torch.distributed.init_process_group": MEETING,
    "launchers/failures.py: _pickled: pickle.dumps": PRIVATE,
    "launchers/failures.py: write_failure: pickle.dumps": PRIVATE,
    "launchers/failures.py: _of_parts: pickle.loads": PRIVATE,
    "launchers/failures.py: _whole: pickle.loads": PRIVATE,
    "launchers/failures.py: read_failure: pickle.loads": PRIVATE,
    "launchers/rendezvous.py: meet: torch.distributed.FileStore": MEETING,
    "launchers/rendezvous.py: meet: torch.distributed.rendezvous": MEETING,
    "launchers/rendezvous.py: _new_corner: torch.distributed.PrefixStore": MEETING,
    "launchers/rendezvous.py: _serve_here: torch.distributed.TCPStore": MEETING,
    "launchers/rendezvous.py: _serve_here: socket.create_server": "at a loopback address, for the store",
    "launchers/rendezvous.py: name_the_first_host: subprocess.run": "scontrol of Slurm: a list of words, no shell",
    "launchers/slurm.py: _ask: subprocess.run": "scontrol of Slurm: a list of words, no shell",
    "launchers/job.py: _Pickler: pickle.Pickler": PRIVATE,
    "launchers/job.py: write_job: pickle.dumps": PRIVATE,
    "launchers/job.py: read_job: torch.load without weights_only=True": PRIVATE,
    "launchers/spawned.py: run_in_processes: multiprocessing.get_context": "nb_processes=2: that is what it is for",
    "launchers/spawned.py: run_in_processes: torch.load without weights_only=True": PRIVATE,
    "loggers/journal.py: code_version: subprocess.run": "git rev-parse HEAD: a list of words, no shell",
    "loggers/__init__.py: __getattr__: importlib.import_module": "of a fixed table: loggers that need a tracker",
    "options/option_files.py: _read_file: yaml": YAML,
    "options/option_files.py: _read_file: yaml.YAMLError": YAML,
    "options/option_files.py: read_values: yaml": YAML,
    "options/option_files.py: read_values: yaml.YAMLError": YAML,
    "options/option_files.py: _nodes: yaml.MappingNode": YAML,
    "options/option_files.py: _nodes: yaml.SafeLoader": YAML,
    "options/option_files.py: _nodes: yaml.YAMLError": YAML,
    "replay.py: import_code: exec_module": CHOSEN,
    "replay.py: import_code: importlib.import_module": CHOSEN,
    "replay.py: import_code: importlib.util.module_from_spec": CHOSEN,
    "replay.py: import_code: importlib.util.spec_from_file_location": CHOSEN,
}
"""Each place of the package that can run code from elsewhere, start a process or open a connection, and why it may."""


def test_each_place_of_the_package_is_allowed_with_a_reason_and_no_reason_is_left_over() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}: {finding.where}: {finding.what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for finding in scan(path.read_text())
    }
    assert sorted(found - set(ALLOWED)) == [], "these need a reason in ALLOWED, or another way"
    assert sorted(set(ALLOWED) - found) == [], "these are gone"
    assert all(len(why) > 5 for why in ALLOWED.values())


FOUND = [
    ("import pickle\npickle.loads(data)", "pickle.loads"),
    ("from pickle import loads as l", "pickle.loads"),
    ("from pickle import *", "pickle.*"),
    ("import pickle\nread(data, pickle_module=pickle)", "pickle"),
    ("import pickle\nclass Reader(pickle.Unpickler): ...", "pickle.Unpickler"),
    ("def f():\n    import marshal as m\n    return m.load(file)", "marshal.load"),
    ("import dill.session\ndill.session.load()", "dill.session.load"),
    ("eval('1')", "eval"),
    ("run = exec", "exec"),
    ("compile('1', '', 'eval')", "compile"),
    ("__import__('os')", "__import__"),
    ("import builtins\nbuiltins.eval('1')", "builtins.eval"),
    ("__builtins__['eval']('1')", "__builtins__"),
    ("import os\nos.system('true')", "os.system"),
    ("from os import system as s\ns('true')", "os.system"),
    ("import os as o\no.popen('true')", "os.popen"),
    ("import os\nif os.fork(): pass", "os.fork"),
    ("import subprocess\nsubprocess.run(['true'])", "subprocess.run"),
    ("import subprocess as s\ns.Popen('true', shell=True)", "shell="),
    ("f(shell=flag)", "shell="),
    ("import multiprocessing.connection\nmultiprocessing.connection.Client('x')", "multiprocessing.connection.Client"),
    ("from multiprocessing import get_context", "multiprocessing.get_context"),
    ("from torch import multiprocessing as mp\nmp.spawn(f)", "torch.multiprocessing.spawn"),
    ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
    ("import importlib.util as u\nu.spec_from_file_location('a', 'b')", "importlib.util.spec_from_file_location"),
    ("spec.loader.exec_module(found)", "exec_module"),
    ("import torch\ntorch.load(path)", "torch.load without weights_only=True"),
    ("import torch\ntorch.load(path, weights_only=False)", "torch.load without weights_only=True"),
    ("import torch\ntorch.load(path, weights_only=safe)", "torch.load without weights_only=True"),
    ("import torch\ntorch.load(path, **options)", "torch.load without weights_only=True"),
    ("import torch\nread = torch.load\nread(path)", "torch.load without weights_only=True"),
    ("from torch import load as read\nread(path)", "torch.load without weights_only=True"),
    ("import torch\nf(torch.load)", "torch.load without weights_only=True"),
    ("from torch.serialization import load", "torch.serialization.load"),
    ("import torch\ntorch.serialization.add_safe_globals([C])", "torch.serialization.add_safe_globals"),
    ("import torch.hub\ntorch.hub.load('a', 'b')", "torch.hub.load"),
    ("import torch\ntorch.jit.load(path)", "torch.jit.load"),
    ("import numpy as np\nnp.load(path, allow_pickle=True)", "allow_pickle="),
    ("import numpy\nnumpy.load(path)", "numpy.load"),
    ("import yaml\nyaml.load(text)", "yaml.load"),
    ("import torch.distributed as dist\ndist.all_gather_object(a, b)", "all_gather_object"),
    ("from torch import distributed\ndist: Any = distributed\ndist.broadcast_object_list(a)", "broadcast_object_list"),
    ("group.send_object_list(a)", "send_object_list"),
    ("import torch.distributed as d\nd.TCPStore('h', 1)", "torch.distributed.TCPStore"),
    ("import torch.distributed.checkpoint as dcp\ndcp.load(state)", "torch.distributed.checkpoint.load"),
    ("import socket\nsocket.create_connection(a)", "socket.create_connection"),
    ("import urllib.request\nurllib.request.urlopen(a)", "urllib.request.urlopen"),
    ("import zipfile\nzipfile.ZipFile(a).extractall()", "extractall"),
    ("class A:\n    def f(self):\n        return lambda: eval(self.x)", "eval"),
]

NOT_FOUND = [
    "import pickle\ntry: f()\nexcept pickle.UnpicklingError: pass",
    "code = 1\nprint(code, dill)",
    "import re\nre.compile('a')",
    "import torch\ntorch.compile(f)",
    "module.eval()",
    "def compile(options): ...",
    "import torch\ntorch.load(path, weights_only=True, **options)",
    "from torch import load as read\nread(path, weights_only=True)",
    "import subprocess\ntry: f()\nexcept subprocess.TimeoutExpired: pass",
    "import multiprocessing\nmultiprocessing.current_process()",
    "import socket\nsocket.gethostname()",
    "import importlib\nimportlib.import_module('torch.distributed')",
    "'pickle', 'eval'  # pickle.loads(eval(x))",
    "f(shell=False)",
    "from . import pickle",
]


@pytest.mark.parametrize(("text", "what"), FOUND, ids=[text.splitlines()[-1] for text, _ in FOUND])
def test_it_is_found(text: str, what: str) -> None:
    assert what in {finding.what for finding in scan(text)}


@pytest.mark.parametrize("text", NOT_FOUND)
def test_it_is_not_found(text: str) -> None:
    assert scan(text) == set()


def test_a_finding_names_the_function() -> None:
    text = "eval('1')\nclass A:\n    def f(self):\n        def g():\n            exec('2')"
    assert scan(text) == {Finding("eval", "<module>"), Finding("exec", "A.f.g")}
