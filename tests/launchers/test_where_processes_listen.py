"""Nobody but the processes of a run on one machine can reach it: they listen at the loopback interface alone."""

import ipaddress
import sys
from pathlib import Path

import pytest

from tests.hosts.network import Hosts, refusal
from tests.launchers.listening import WAITING, Address, free_port, look_at, start
from tests.launchers.signalled import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets are listed in /proc")


def check_only_this_machine(addresses: set[Address]) -> None:
    assert addresses, "what carries gradients listens somewhere"
    assert all(address.is_loopback for address in addresses), addresses


@pytest.mark.parametrize(
    ("words", "nb"),
    [
        pytest.param(("ddp", "2"), 2, id="two"),
        pytest.param(("ddp", "3"), 3, id="three"),
        pytest.param(("fsdp", "2"), 2, id="fsdp"),
        pytest.param(("-", "ddp", "2"), 2, id="copies, as in a notebook"),
    ],
)
def test_processes_that_a_trainer_starts_listen_at_loopback_and_meet_in_a_folder_of_their_own(
    tmp_path: Path, words: tuple[str, ...], nb: int
) -> None:
    """Although its umask would let everybody in."""
    check_only_this_machine(look_at(start(tmp_path, *words), tmp_path, nb))
    assert [(tmp_path / f"meets_{rank}").read_text() for rank in range(nb)] == ["0o700"] * nb


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_processes_that_are_started_by_hand_at_a_loopback_address_meet_there_alone(tmp_path: Path, host: str) -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": host, "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    second = start(tmp_path, RANK="1", **place)
    check_only_this_machine(look_at(start(tmp_path, RANK="0", **place), tmp_path, 2))
    assert second.wait(60) == 0


@pytest.mark.root
@pytest.mark.parametrize(
    ("chosen", "expected"), [({}, "127.0.0.1"), ({"GLOO_SOCKET_IFNAME": "eth0"}, "10.83.0.1")], ids=["none", "eth0"]
)
def test_on_a_host_whose_name_is_known_to_others_the_interface_is_loopback_or_the_users_choice(
    tmp_path: Path, chosen: dict[str, str], expected: str
) -> None:
    """Without a choice what carries gradients listens where the host's name points: other hosts could come."""
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "waiting.py").write_text(WAITING)
    with Hosts(1) as hosts:
        variables = [f"{name}={value}" for name, value in {"PYTHONPATH": str(ROOT), **chosen}.items()]
        program = hosts.start(0, ["env", *variables, sys.executable, "waiting.py"], cwd=tmp_path)
        assert look_at(program, tmp_path, 2) == {ipaddress.ip_address(expected)}
