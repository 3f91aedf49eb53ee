"""Lightning 2 in processes of its own."""

from benchmarks.contestants import lean_processes


def BIG(nb: int) -> dict[str, float]:
    return lean_processes.BIG(nb, "lightning")
