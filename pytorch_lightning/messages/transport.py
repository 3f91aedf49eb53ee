"""How bytes go from process to process, and how one knows that they come from a process of the run.

What carries them asks nobody who he is: who reaches a port first may take another process's place. So processes
prove to each other that they know a secret, which they were told where they met.
"""

import hmac
import os
import secrets
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed

from pytorch_lightning.errors import ProcessError

dist: Any = distributed  # torch's stubs don't name all that this exports

FRAME = 1024
"""Bytes of the first exchange, which is the only one of short messages. The first eight are the length of one."""
SIZE = 32
"""Bytes of a question and of its answer."""


def prove(group: Any, secret: bytes) -> None:
    """Raise ``ProcessError`` unless each process that this one is connected with in ``group`` knows ``secret``.

    Everybody calls it, before anything else is sent.
    """
    rank, nb = dist.get_rank(group), dist.get_world_size(group)
    # gloo has a connection for each interface, and takes them in turn
    nb_connections = len(os.environ.get("GLOO_SOCKET_IFNAME", "").split(","))
    asked = [[secrets.token_bytes(SIZE) for _ in range(nb)] for _ in range(nb_connections)]
    questions = [_each_to_each(group, questions) for questions in asked]
    answers = [
        _each_to_each(group, [_answer(secret, rank, other, question) for other, question in enumerate(received)])
        for received in questions
    ]
    for own, received in zip(asked, answers, strict=True):
        for other, answer in enumerate(received):
            if not hmac.compare_digest(answer, _answer(secret, other, rank, own[other])):
                raise ProcessError(
                    f"process {other} of {nb} doesn't know the secret of this run: another program connected in its"
                    f" place, and process {rank} has sent it nothing. Start again, and keep other programs away from"
                    " the interface that GLOO_SOCKET_IFNAME names."
                )


def _answer(secret: bytes, rank: int, asking: int, question: bytes) -> bytes:
    # with both ranks in it, a challenge to one can't be relayed for another to answer
    return hmac.digest(secret, b"%d answers %d: " % (rank, asking) + question, "sha256")


def _each_to_each(group: Any, given: list[bytes]) -> list[bytes]:
    """What each process gave to this one, which gives ``given[rank]`` to each. All are of one size."""
    sent = torch.frombuffer(bytearray(b"".join(given)), dtype=torch.uint8)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    data = received.numpy().tobytes()
    return [data[i : i + SIZE] for i in range(0, len(data), SIZE)]


def gather(group: Any, message: Tensor) -> list[Tensor]:
    """Everybody's ``message``, of bytes, by rank."""
    frames = _all_of(group, _frame(message))
    sizes = [_size_in(frame) for frame in frames]
    longest = max(sizes)
    if longest <= FRAME - 8:
        return [frame[8 : 8 + size] for frame, size in zip(frames, sizes, strict=True)]
    if message.numel() < longest:  # all must be of one size
        message = torch.cat([message, torch.zeros(longest - message.numel(), dtype=torch.uint8)])
    return [whole[:size] for whole, size in zip(_all_of(group, message), sizes, strict=True)]


def broadcast(group: Any, message: Tensor | None, rank: int) -> Tensor:
    """The ``message`` of ``rank``; None in the others."""
    frame = torch.zeros(FRAME, dtype=torch.uint8) if message is None else _frame(message)
    dist.broadcast(frame, src=rank, group=group)
    size = _size_in(frame)
    if size <= FRAME - 8:
        return frame[8 : 8 + size]
    whole = torch.empty(size, dtype=torch.uint8) if message is None else message
    dist.broadcast(whole, src=rank, group=group)
    return whole


def to_first(group: Any, message: Tensor, take: Callable[[int, Tensor], object]) -> None:
    """Everybody's ``message`` at rank 0, which calls ``take(rank, message)`` with those of the others, one after the
    other: so it holds one at a time."""
    if dist.get_rank(group):
        dist.send(_frame(message), 0, group=group)
        if message.numel() > FRAME - 8:
            dist.send(message, 0, group=group)
        return
    for rank in range(1, dist.get_world_size(group)):
        frame = torch.empty(FRAME, dtype=torch.uint8)
        dist.recv(frame, rank, group=group)
        size = _size_in(frame)
        whole = frame[8 : 8 + size]
        if size > FRAME - 8:
            whole = torch.empty(size, dtype=torch.uint8)
            dist.recv(whole, rank, group=group)
        take(rank, whole)


def _frame(message: Tensor) -> Tensor:
    frame = torch.zeros(FRAME, dtype=torch.uint8)
    frame[:8] = torch.tensor([message.numel()]).view(torch.uint8)
    beginning = message[: FRAME - 8]
    frame[8 : 8 + beginning.numel()] = beginning
    return frame


def _size_in(frame: Tensor) -> int:
    return int(frame[:8].view(torch.int64))


def _all_of(group: Any, tensor: Tensor) -> list[Tensor]:
    everybodys = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everybodys, tensor, group=group)
    return everybodys
