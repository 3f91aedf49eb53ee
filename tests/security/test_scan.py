"""What in the package can run code that its author didn't write: each place is known, with a reason."""

from pathlib import Path

import pytest

import pytorch_lightning
from tests.security.scan import Finding, scan

PACKAGE = Path(pytorch_lightning.__file__).parent


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
