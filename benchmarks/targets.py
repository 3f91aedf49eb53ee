"""The targets for the overhead of each workload, and whether they were met."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Target:
    """``measured`` finds a figure and its spread in a summary, or raises ``KeyError`` where it isn't there."""

    workload: str
    what: str
    unit: str
    most: float
    measured: Callable[[Summary], Mapping[str, float]]
    why: str = ""
    """Why it isn't met, if that is known."""
    within_noise: bool = False
    """Asked is that no difference is seen: it is met where the rounds lie around it."""

    def verdict_on(self, value: Mapping[str, float]) -> str:
        """Whether the figure is met: 'yes', 'no', or 'within noise'."""
        if value["median"] <= self.most:
            return "yes"
        return "within noise" if self.within_noise and value["low"] <= self.most else "no"


SEEDING = (
    "most of it seeds the random streams of torch, numpy and python before each step, which is why any step can be done"
    " again by itself"
)


MAPPED = (
    "the loop by hand maps the file, and reads most of it in its first step; here all of it is read and compared with"
    " its checksums before that. To the end of the first step (with_step) it takes a seventh more"
)
DIRECT = (
    "a loop by hand that indexes its tensors directly (`direct`) takes as long. In instructions, which don't depend on"
    " how busy the machine is, it is 0.60 of lean"
)
ENTRIES = (
    "the rounds lie far apart, since the machine's speed varied; its instructions, which don't depend on that, are the"
    " next line. Each checkpoint has three times the entries of the loop's, among them what a resume compares"
)
HELD = (
    "it is counted from what the process holds before the save, of which this system takes back more in some rounds"
    " than in others: it was 0.96 to 1.06 in an earlier run"
)
AROUND = "the rounds lie around it"
LOOKED_AT = (
    "the list is an attribute of the module, so before a fit a checksum of each batch is taken once, which is counted"
    " here as a part of its step: without that attribute the ratio was 1.03. The random streams are seeded in each step"
)
TRIES = "a fit begins without workers and tries numbers of them; raw torch has the best number from its first batch"
BEST = "no number of workers brings raw torch there either on two processors (`best` is its best one)"
TABLE = "a step exchanges one table more than raw DDP, and its random streams are seeded"
COPY = "the state is copied before training goes on, and the durable save that it is compared with took 0.6 to 1.0 s"
NOISE = "it is the difference of two runs of some hundred us a step, whose spread is as large as the figure"


def _ours(workload: str, key: str) -> Callable[[Summary], Mapping[str, float]]:
    return lambda summary: summary[workload]["ours"][key]  # type: ignore[no-any-return]


BIG_KINDS = {
    "more": "from the start",
    "resume_more": "from the middle",
    "two_more": "from the start, two processes",
    "two_resume_more": "from the middle, two processes",
}


TARGETS = [
    Target("W1list", "over lean", "us a step", 9, _ours("W1list", "cpu_over"), SEEDING),
    Target("W1list", "instructions, ratio to lean", "", 1.00, _ours("W1list", "instructions_ratio"), LOOKED_AT),
    Target("PROG", "the first logged value", "us", 5, _ours("PROG", "first_us"), NOISE),
    Target("PROG", "each further one", "us", 2, _ours("PROG", "further_us")),
    Target("PROG", "50 values over one", "us", 100, _ours("PROG", "fifty_us")),
    Target("W1", "ratio to lean", "", 0.62, _ours("W1", "cpu_ratio"), DIRECT),
    Target("W2", "ratio to lean, whole fit", "", 1.00, _ours("W2", "whole_cpu_ratio")),
    Target("W3", "ratio to lean", "", 1.01, _ours("W3", "value_ratio")),
    Target("W3large", "ratio to lean", "", 1.01, _ours("W3large", "value_ratio")),
    Target("W3compiled", "ratio to lean", "", 1.00, _ours("W3compiled", "value_ratio"), AROUND),
    Target("W3largecompiled", "ratio to lean", "", 1.00, _ours("W3largecompiled", "value_ratio"), AROUND),
    Target("W4", "ratio to lean", "", 0.80, _ours("W4", "cpu_ratio")),
    Target("CK", "stall, ratio to a durable save", "", 0.15, _ours("CK", "value_ratio"), COPY),
    Target("CK", "peak memory, for each byte of the state", "", 1.05, _ours("CK", "peak"), HELD),
    Target("RESTORE", "ratio to torch.load(mmap=True)", "", 1.20, _ours("RESTORE", "value_ratio"), MAPPED),
    Target("RESTORE", "private memory, for each byte of the state", "", 1.02, _ours("RESTORE", "memory")),
    Target("W5", "whole fit, ratio to no workers", "", 0.60, _ours("W5", "value_ratio"), BEST),
    Target("W5", "whole fit, ratio to the best number of workers", "", 1.05, _ours("W5", "best_ratio"), TRIES),
    *(
        Target("BIG", f"10^9 samples over 10^6, {what}", unit, most, _ours("BIG", f"{kind}_{key}"))
        for kind, what in BIG_KINDS.items()
        for key, unit, most in (("seconds", "s", 0.5), ("mb", "MB", 20))
    ),
    Target(
        "DDP2", "time of a step, ratio to torchrun", "", 1.00, _ours("DDP2", "value_ratio"), TABLE, within_noise=True
    ),
    Target("DDPS", "time of a step, ratio to torchrun", "", 1.03, _ours("DDPS", "value_ratio"), TABLE),
    Target("DDPS", "the same, tensors indexed directly", "", 1.03, _ours("DDPS", "value_to_direct"), TABLE),
    *(
        Target(name, "whole fit, ratio to lean", "", 1.00, _ours(name, "value_ratio"), within_noise=True)
        for name in ("REAL", "REALworkers", "REALpersistent")
    ),
    Target("EPOCHS", "whole fit, ratio to lean", "", 1.10, _ours("EPOCHS", "whole_wall_ratio"), ENTRIES),
    Target("EPOCHS", "instructions, ratio to lean", "", 1.10, _ours("EPOCHS", "instructions_ratio")),
    Target("FSDP2R", "bytes read, for each of own shards", "", 1.20, _ours("FSDP2R", "value")),
    Target("FSDP2R", "the same with resume='auto'", "", 1.20, _ours("FSDP2R", "auto")),
    Target("COLL", "over raw DDP", "a step", 1, _ours("COLL", "value_over")),
    Target("REPORT", "the command", "s", 3, _ours("REPORT", "value")),
    Target("REPORT", "the page", "MB", 10, _ours("REPORT", "mb")),
    Target("START", "import, over torch", "s", 0.04, _ours("START", "import")),
    Target("START", "first step, over lean", "s", 0.25, _ours("START", "value_over")),
    Target("START2", "first step, over torchrun", "s", 1, _ours("START2", "value_over")),
    Target("GROWTH", "a late step, ratio to an early one", "", 1.02, _ours("GROWTH", "value")),
    Target("GROWTH", "memory added in between", "MB", 2, _ours("GROWTH", "mb")),
]


def verdicts(summary: Summary) -> list[dict[str, Any]]:
    """Each target that was measured, with its figure and whether it was met."""
    found = []
    for target in TARGETS:
        try:
            value = target.measured(summary)
        except KeyError:
            continue
        entry = {"workload": target.workload, "what": target.what, "unit": target.unit, "target": target.most}
        figure = {"measured": value["median"], "low": value["low"], "high": value["high"]}
        found.append(entry | figure | {"verdict": target.verdict_on(value), "why": target.why})
    return found
