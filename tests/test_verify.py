"""What ``verify`` accepts and what it rejects: honest runs, by lot, and the same with one thing changed."""

import json
import random
import re
import shutil
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.checkpoints.chain import FIRST, line_of
from pytorch_lightning.checkpoints.digest import digests
from pytorch_lightning.verify import chosen, main
from tests import certified
from tests.faults import killing, warm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, nb = metafunc.config.getoption("--first-seed"), metafunc.config.getoption("--certified")
    for name, least in (("honest", 1), ("changed", 3)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(first, first + max(nb, least)))


def verified(capsys: pytest.CaptureFixture[str], run: Path, *words: str) -> tuple[int, str]:
    """The exit status, and what is printed."""
    capsys.readouterr()
    status = main([str(run), "--module", "tests.certified", *words])
    out, err = capsys.readouterr()
    return status, out + err


POINTS = ("chain.begin:2", "chain.written:3", "write.begin:2", "write.renamed:2", "epoch.trained:2", "store.done:3")


def test_an_honest_run_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str], honest: int) -> None:
    described, draw = certified.drawn(honest), random.Random(honest)
    certified.write_rows(tmp_path, honest)
    if honest % 2:
        fault, output = draw.choice(POINTS), tmp_path / "said"
        ended = warm.run(killing.train_certified, str(tmp_path), described, output=output, fault=fault)
        assert ended.code == -signal.SIGKILL, ended.said
    status, said = verified(capsys, certified.train(tmp_path, described), "--all")
    assert status == 0, f"{described}\n{said}"
    nb_kept = int(re.search(r"saves: (\d+) kept", said)[1])  # type: ignore[index]
    assert f"{nb_kept - 1} of {nb_kept - 1} intervals agree" in said
    assert nb_kept > 2


# ------------------------------------------------------------------------------------------------ changes
def saves_of(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/*.ckpt"))


def forge(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the whole chain anew, after ``change`` of each entry, with hashes that fit."""
    path, previous, lines = run / "certificate.jsonl", FIRST, []
    for line in path.read_text().splitlines():
        entry = {name: value for name, value in json.loads(line).items() if name not in ("previous", "hash")}
        change(entry)
        lines.append(line_of(entry, previous))
        previous = json.loads(lines[-1])["hash"]
    path.write_text("".join(f"{line}\n" for line in lines))


def change_save(run: Path, draw: random.Random, change: Callable[[dict[str, Any]], object], *, forged: bool) -> None:
    """Change a save; ``forged``: the chain says that it is so."""
    path = draw.choice(saves_of(run)[1:])
    saved = torch.load(path, weights_only=True)
    before = digests(saved)
    change(saved)
    saved["parts"]["checksums"] = {}
    torch.save(saved, path)
    if forged:
        forge(run, lambda entry: entry.update(sha256=digests(saved)) if entry["sha256"] == before else None)


def one_bit(tensor: torch.Tensor) -> None:
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    tensor.view(-1).view(whole)[0] ^= 1


def weight(run: Path, draw: random.Random) -> None:
    change_save(run, draw, lambda saved: one_bit(saved["state_dict"]["layers.4.weight"]), forged=True)


def of_optimizer(run: Path, draw: random.Random) -> None:
    def change(saved: dict[str, Any]) -> None:
        one_bit(next(v for v in saved["optimizer_states"][0]["state"][0].values() if v.dim()))

    change_save(run, draw, change, forged=True)


def save(run: Path, draw: random.Random) -> None:
    change_save(run, draw, lambda saved: saved["parts"]["progress"].update(nb_optimizer_steps=0), forged=False)


def swapped(run: Path, draw: random.Random) -> None:
    one, other = draw.sample(saves_of(run), 2)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def row(run: Path, draw: random.Random) -> None:
    path = run.parent.parent / "rows.pt"
    rows = torch.load(path)
    one_bit(rows[draw.randrange(len(rows))])
    torch.save(rows, path)


def set_option(run: Path, name: str, text: str) -> None:
    path = run / "options.yaml"
    path.write_text(re.sub(rf"^{name}: .*$", f"{name}: {text}", path.read_text(), flags=re.M))


def option(run: Path, draw: random.Random) -> None:
    set_option(run, *draw.choice([("accumulate_grad_batches", "4"), ("gradient_clip", "0.1"), ("seed", "99")]))


def option_everywhere(run: Path, draw: random.Random) -> None:
    set_option(run, "gradient_clip", "0.001")
    forge(run, lambda entry: entry["options"].update(gradient_clip="0.001"))


def code(run: Path, draw: random.Random) -> None:
    forge(run, lambda entry: entry["code"].update({"certified.py": "0" * 64}))


def version(run: Path, draw: random.Random) -> None:
    forge(run, lambda entry: entry["versions"].update(torch="1.0"))


CHANGES: dict[Callable[[Path, random.Random], None], str] = {
    weight: r"differs: weights: \['state_dict'\]\['layers.4.weight'\] \(by ",
    row: r"differs: data: what the batches hold",
    option: r"differs: options: (accumulate_grad_batches \(was . is|gradient_clip \(was .* is|seed \(was \d+, is 99)",
    of_optimizer: r"differs: weights: \['optimizer_states'\]",
    save: r"differs: the save step-\d+.ckpt: its hash isn't that of its line",
    option_everywhere: r"differs: weights: ",
    swapped: r"differs: the save step-\d+.ckpt: its hash isn't that of its line",
    code: r"differs: code: certified.py \(was 00000000..., is ",
    version: r"differs: versions: torch \(was 1.0, is ",
}
"""What is changed in a run, and what is said of it."""


def test_a_changed_run_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: int) -> None:
    change, why = [*CHANGES.items()][changed % len(CHANGES)]
    described = certified.drawn(102 + changed)
    certified.write_rows(tmp_path, changed)
    run = certified.train(tmp_path, described)
    change(run, random.Random(changed))
    status, said = verified(capsys, run, "--all")
    assert status == 1, said
    assert re.search(why.replace("(was . is", "(was ., is").replace("(was .* is", "(was .*, is"), said), said


# ------------------------------------------------------------------------------------------------ the command
PLAIN: dict[str, Any] = {
    "seed": 1, "workers": 0, "optimizer": "SGD", "schedule": "none", "noise": False, "options": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    certified.write_rows(folder, 1)
    return certified.train(folder, PLAIN, save_every_nb_batches=5)


def test_intervals_are_chosen_by_a_seed(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = verified(capsys, plain, "--intervals", "1", "--seed", "3")
    assert status == 0
    assert "intervals: 1 of 4, chosen by --seed 3\n" in said
    assert "1 of 1 intervals agree" in said
    every: Any = list(zip("abcd", "bcde", strict=True))

    def by(seed: int) -> Any:
        return chosen(every, Namespace(all=False, intervals=2, seed=seed))

    assert by(3) == by(3)
    assert {pair for seed in range(20) for pair in by(seed)} == {*every}
    assert all(len(by(seed)) == 2 and by(seed) == sorted(by(seed)) for seed in range(20))


@pytest.mark.slow
def test_callbacks_that_train_with_it_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certified.write_rows(tmp_path, 1)
    run = certified.train(tmp_path, PLAIN, save_every_nb_batches=12, callbacks=[certified.Halving()])
    status, said = verified(capsys, run, "--all")
    assert status == 1
    assert re.search(r"global_step 0 to 12: differs: weights: .*aren't here: Halving; pass --callbacks NAME", said)
    status, said = verified(capsys, run, "--all", "--callbacks", "CALLBACKS")
    assert status == 0, said


def test_without_two_saves_it_says_what_to_do(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "Model" / "version_0"
    shutil.copytree(plain, run)
    for path in saves_of(run)[:-1]:
        path.unlink()
    status, said = verified(capsys, run)
    assert status == 1
    assert "holds 1 saves" in said
    assert "Train with certificate=True, keep_saves='spaced' and save_every_nb_batches." in said
    (run / "certificate.jsonl").unlink()
    assert verified(capsys, run) == (1, f"{run}/certificate.jsonl can't be read: No such file or directory. Pass the"
                                     " folder of a run with certificate=True.\n")  # fmt: skip
