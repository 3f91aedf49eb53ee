"""A process as torchrun would have started it."""

import os


def enter_group(rank: int, nb: int, port: int) -> None:
    """Be process ``rank`` of ``nb`` on this machine, which meet at a store on ``port`` of the loopback."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(nb),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(nb),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
    )
