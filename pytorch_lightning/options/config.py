"""The options of a Trainer: what each one means, which values it may have, and how a command line gives it.

This is the one declaration: the checks, ``--help``, ``help(Trainer)`` and docs/Trainer/index.md are made from it. A new
option is a field here, a parameter with its default in ``Trainer.__init__`` and, where its value has several forms, a
line of ``build_config`` in options/meaning.py.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple

from pytorch_lightning.callbacks.callback import Callback
from pytorch_lightning.options import checks, words
from pytorch_lightning.options.checks import Check
from pytorch_lightning.precision import NAMES as PRECISIONS

OBSERVERS = "Callbacks and logging"
DURATION = "Duration"
DATA = "Amount of data"
STEPS = "Optimization"
VALIDATION = "Validation"
DISPLAY = "Output"
ROWS = "Logging and debugging"
REPRODUCIBILITY = "Reproducibility"
SPEED = "Speed"
DEVICES = "Devices"

AMP_LEVELS = {"O0": "32", "O1": "16", "O2": "16", "O3": "16-true"}
"""apex's names for use_amp, and the precision that each one means."""

LIGHTNING_PRECISIONS = {"16-mixed": "16", "bf16-mixed": "bf16", "32-true": "32", "64-true": "64"}
"""Lightning 2's names of a precision."""

OBJECT_OPTIONS = ("experiment", "early_stop_callback", "checkpoint_callback", "callbacks", "cluster")
"""Options whose values are objects: they can't be words of a command line."""


class Option(NamedTuple):
    """What is known of an option apart from its type and its default."""

    group: str
    text: str
    """One sentence."""
    checks: tuple[Check, ...]
    word: Callable[[str], Any] | None
    """How a word of the command line becomes its value; None where its default tells."""


def option(group: str, text: str, *checks: Check, word: Callable[[str], Any] | None = None) -> Any:
    """A field of ``Config`` that is an option of the Trainer. One that is annotated as ``bool`` is a flag."""
    return field(metadata={"option": Option(group, text, checks, word)})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a Trainer, checked; each value has one form. What the plan reads."""

    experiment: Any = option(
        OBSERVERS,
        "a test-tube Experiment, a Logger, a list of these, None (a folder under default_save_path), or "
        "False (nothing is logged)",
        checks.experiment,
    )
    early_stop_callback: Callback | None = option(
        OBSERVERS, "an EarlyStopping or another callback; may be swapped with checkpoint_callback"
    )
    checkpoint_callback: Callback | None = option(
        OBSERVERS, "a ModelCheckpoint or another callback; without one no checkpoint is written"
    )
    callbacks: tuple[Callback, ...] = option(OBSERVERS, "additional callbacks, called in this order")
    max_nb_epochs: int = option(DURATION, "stop after this many epochs", checks.number(1, whole=True))
    min_nb_epochs: int = option(
        DURATION,
        "early stopping can't end training before this many epochs are complete",
        checks.number(0, whole=True),
        checks.epochs,
    )
    max_nb_steps: int | None = option(
        DURATION,
        "stop after this many optimizer steps; None for no limit",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    max_time: float | datetime.timedelta | None = option(
        DURATION,
        "stop after this many minutes, or a timedelta; time before a resume counts too; None for no limit",
        checks.max_time,
        word=words.optional(float),
    )
    enable_early_stop: bool = option(DURATION, "false turns early_stop_callback off")
    train_percent_check: float = option(
        DATA,
        "the fraction of the training batches used per epoch, from 0 to 1; at least one batch",
        checks.number(0),
    )
    val_percent_check: float = option(
        DATA, "the fraction of each validation loader; at least one batch", checks.number(0)
    )
    test_percent_check: float = option(DATA, "the fraction of each test loader; at least one batch", checks.number(0))
    max_nb_tng_batches: int | None = option(
        DATA,
        "at most this many training batches per epoch, of those that train_percent_check leaves; a stream without a "
        "length goes on in the next epoch where it was; None for all",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    max_nb_val_batches: int | None = option(
        DATA,
        "at most this many batches of each validation loader, over all processes; None for all",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    max_nb_test_batches: int | None = option(
        DATA,
        "the same for each test loader",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    reload_dataloaders_every_nb_epochs: int | None = option(
        DATA,
        "read tng_dataloader and val_dataloader again at the start of every n-th epoch; None or 0 reads them once",
        checks.number(0, whole=True, none=True),
        word=words.optional(int),
    )
    overfit_pct: float = option(
        DATA,
        "above 0, this fraction for all three, and the same training batches in every epoch, unshuffled",
        checks.number(),
    )
    fast_dev_run: bool = option(
        DATA, "one epoch of one training and one validation batch in each process, logged to a temporary folder"
    )
    accumulate_grad_batches: int | dict[int, int] = option(
        STEPS,
        "accumulate gradients over this many batches per optimizer step: a number, or {epoch from 1: "
        "number}, written '1:2,5:8' as text",
        word=words.windows,
    )
    accumulate_nb_samples: int | None = option(
        STEPS,
        "accumulate gradients until the batches of a step have this many samples, or items of loss_count, over all "
        "virtual ranks; None leaves it to accumulate_grad_batches",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    gradient_clip: float = option(
        STEPS,
        "the maximum norm (or value) of the gradients; 0 or less turns clipping off",
        checks.number(),
        word=words.number,
    )
    gradient_clip_algorithm: str = option(
        STEPS, "'norm' clips by the global norm, 'value' clips each entry", checks.choice("norm", "value")
    )
    gradient_clip_norm_type: float = option(
        STEPS,
        "the p of that norm: 2 is the Euclidean one, 1 the sum, inf the largest entry",
        checks.number(1),
        word=words.number,
    )
    lr_scheduler_milestones: tuple[int, ...] = option(
        STEPS, "epochs after which every learning rate is divided by 10: a list, or '100,200'", word=words.optional(str)
    )
    precision: str = option(
        STEPS,
        "'32', '64', 'bf16', '16', 'bf16-true' or '16-true'; None is '32'",
        checks.choice(None, *PRECISIONS, 16, 32, 64, elsewhere=LIGHTNING_PRECISIONS),
        word=words.optional(str),
    )
    use_amp: bool = option(STEPS, "true is precision '16', or what amp_level means")
    amp_level: str = option(
        STEPS, "apex's names for use_amp: O0 is '32', O1 and O2 are '16', O3 is '16-true'", checks.choice(*AMP_LEVELS)
    )
    val_check_interval: float = option(
        VALIDATION,
        "validate after this fraction of an epoch (at most 1), or every n batches (above 1)",
        checks.val_check_interval,
        word=words.number,
    )
    val_every_nb_batches: int | None = option(
        VALIDATION,
        "validate every n training batches, counted across epochs, and at no epoch's end; None leaves it to "
        "val_check_interval",
        checks.number(1, whole=True, none=True),
        checks.val_every,
        word=words.optional(int),
    )
    check_val_every_n_epoch: int = option(VALIDATION, "validate only in every n-th epoch", checks.number(1, whole=True))
    nb_sanity_val_steps: int = option(
        VALIDATION,
        "validation batches that each process runs before training; 0 for none",
        checks.number(0, whole=True),
    )
    progress_bar: bool = option(DISPLAY, "show a progress bar, or plain lines if the output isn't a terminal")
    process_position: int = option(
        DISPLAY, "the terminal line of the progress bar, counted from 0", checks.number(0, whole=True)
    )
    current_gpu_name: Any = option(DISPLAY, "shown in the progress bar unless it is 0", word=words.name_or_0)
    print_weights_summary: bool = option(DISPLAY, "print a summary of the model, and one line about the run")
    silence: tuple[str, ...] = option(DISPLAY, "codes of notices to hide", checks.silence, word=words.words)
    add_log_row_interval: int = option(
        ROWS, "log a row every n batches, starting with the first batch of an epoch", checks.number(1, whole=True)
    )
    log_save_interval: int = option(ROWS, "flush the log every n batches", checks.number(1, whole=True))
    default_save_path: str = option(ROWS, "the folder for runs without an experiment", checks.save_path)
    track_grad_norm: float = option(
        ROWS,
        "log this p-norm of the gradients, for each parameter and for all together; 0 or less is off",
        checks.number(),
        word=words.number,
    )
    print_nan_grads: bool = option(ROWS, "print the names of parameters whose gradients aren't finite")
    stop_on_nan: bool = option(ROWS, "stop if a loss isn't finite")
    crash_bundle: bool = option(
        ROWS, "save the batch of a step that raises to the folder of the run, so that it can be replayed"
    )
    seed: int | None = option(
        REPRODUCIBILITY,
        "seed of data order, augmentation and dropout; None takes torch.initial_seed()",
        checks.number(0, 2**64 - 1, whole=True, none=True),
        word=words.optional(int),
    )
    deterministic: bool = option(REPRODUCIBILITY, "run with torch.use_deterministic_algorithms(True)")
    resume: str | None = option(
        REPRODUCIBILITY,
        "'auto' resumes the newest run of the same name that has saves; or a path, of a checkpoint or a run's folder",
        checks.resume,
        word=words.optional(str),
    )
    save_every_minutes: float = option(
        REPRODUCIBILITY,
        "save the state for a resume every n minutes; 0 leaves it to save_every_nb_batches",
        checks.number(0),
    )
    save_every_nb_batches: int | None = option(
        REPRODUCIBILITY,
        "save the state for a resume every n batches too; None saves by time only",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    keep_saves: str = option(
        REPRODUCIBILITY,
        "which saves for a resume stay: the 'newest' two, or some that are 'spaced' over the run, ever sparser",
        checks.choice("newest", "spaced"),
    )
    certificate: bool = option(
        REPRODUCIBILITY,
        "add a line to certificate.jsonl in the run's folder with each save for a resume, for "
        "python -m pytorch_lightning verify; saves also before the first batch and at the end",
    )
    resume_check: str = option(
        REPRODUCIBILITY,
        "'error' or 'warn' if the order of the training data differs from that before the checkpoint",
        checks.choice("error", "warn"),
    )
    compile: bool | dict[str, Any] = option(
        SPEED, "true compiles the steps of the module with torch.compile; a dict holds its options", checks.compile
    )
    fused_optimizers: bool = option(SPEED, "use torch's fused implementation of an optimizer if there is one")
    profile: bool = option(SPEED, "write a torch.profiler trace of a few steps to the folder of the run")
    gpus: Any = option(
        DEVICES,
        "None is the CPU; a number of GPUs, a list, '0,1', or -1 for all",
        checks.gpus,
        word=words.optional(str),
    )
    nb_processes: int = option(
        DEVICES,
        "processes to start on this machine if no GPUs are used; more than 1 means 'ddp'",
        checks.number(1, whole=True),
    )
    distributed_backend: Any = option(
        DEVICES,
        "None, 'dp' (one process, several GPUs), 'ddp' (one process per device), 'fsdp' (one process "
        "per device, with weights, gradients and optimizer state sharded), or a strategy object",
        checks.backend,
        word=words.optional(str),
    )
    cluster: Any = option(
        DEVICES,
        "test-tube's SlurmCluster, which calls your function; jobs are saved and requeued with or without it",
        checks.cluster,
    )
    nb_gpu_nodes: int = option(
        DEVICES, "number of machines; torchrun or srun starts the processes on each", checks.number(1, whole=True)
    )
    virtual_ranks: int | None = option(
        DEVICES,
        "batches per global batch; None is the number of processes at the first start",
        checks.number(1, whole=True, none=True),
        word=words.optional(int),
    )
    exact_elastic: bool = option(
        DEVICES, "true makes any number of processes give bit-identical results, at the cost of a slower exchange"
    )
    gather_validation: bool | str = option(
        DEVICES,
        "true gives the outputs of validation steps to every process, 'rank0' to the first one alone, which then runs "
        "validation_end for all; false leaves them on their own ranks and averages their numbers",
        checks.gathering,
        word=words.gathering,
    )
    data_is_sharded: bool = option(
        DEVICES, "true: the loaders of each process are its own share of the data; nothing is dealt out or replaced"
    )
    auto_nb_workers: bool = option(
        DEVICES,
        "true: the number of the training loader's workers is chosen while training runs, by what is waited for data; "
        "the batches stay the same bits",
    )
    uneven_batches: str = option(
        DEVICES,
        "what a process without a batch does in a last short round: 'wait', 'repeat' (run its last batch again, with "
        "weight 0), or 'drop' (nobody trains on that round)",
        checks.choice("wait", "repeat", "drop"),
    )
    process_timeout_minutes: float = option(
        DEVICES, "how long processes wait for one that doesn't answer", checks.number(0.01), word=words.number
    )

    default_save_path_given: bool
    """Whether the user chose ``default_save_path``."""

    @property
    def saves_kept(self) -> int | None:
        """How many saves for a resume stay while training runs; None where they are spaced."""
        return 2 if self.keep_saves == "newest" else None

    @property
    def saves_from_the_start(self) -> bool:
        """Whether a new run is saved before its first batch, and at its end."""
        return self.resume == "auto" or self.certificate

    @property
    def max_seconds(self) -> float | None:
        """``max_time`` in seconds."""
        if isinstance(self.max_time, datetime.timedelta):
            return self.max_time.total_seconds()
        return None if self.max_time is None else float(self.max_time) * 60


@cache
def options() -> dict[str, Option]:
    """Every option by name, in the order of the declaration."""
    return {f.name: f.metadata["option"] for f in fields(Config) if "option" in f.metadata}


@cache
def flags() -> tuple[str, ...]:
    """The options that are true or false."""
    return tuple(name for name in options() if Config.__annotations__[name] is bool)


def groups() -> dict[str, dict[str, str]]:
    """The sentence of each option, by group.

    >>> groups()[DURATION]["max_nb_epochs"]
    'stop after this many epochs'
    """
    found: dict[str, dict[str, str]] = {}
    for name, known in options().items():
        found.setdefault(known.group, {})[name] = known.text
    return found


def described() -> str:
    """All options by group, for the docstring of the Trainer."""
    blocks = ([f"*{title}*", *(f"{name}: {text}" for name, text in texts.items())] for title, texts in groups().items())
    return "\n\n".join(map("\n".join, blocks))
