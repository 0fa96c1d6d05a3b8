"""How the processes of one start find each other: jax.distributed, for no longer than that takes.

TPU pods, SLURM, Open MPI and Kubernetes are detected by JAX; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID say who is who.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Callable

import jax
from jax._src import distributed  # ids without starting the devices, and the key-value service, have no public name

from scaling.fields import ConfigError, check

MEET_SECONDS = 300  # for all processes to start


class LostProcessError(RuntimeError):
    """A process that this one needs did not come, or is gone; what is trained is kept."""


@dataclasses.dataclass(frozen=True)
class Place:
    """This process among the `count` of one start, which share the name `session`."""

    process: int
    count: int
    session: str


@dataclasses.dataclass(frozen=True)
class _Greeting:
    """What each process tells the others; `refusal`: why it cannot start."""

    session: str
    sweep: str
    refusal: str


def introduce(sweep: str, prepare: Callable[[int], None]) -> Place:
    """Meet the other processes, then go on as a JAX of one's own, on local devices. Before anything else of JAX.

    `sweep` must be the same in all. `prepare(process)` takes what this process needs; where it raises, none starts.
    Raises what `prepare` did; ConfigError where JAX cannot tell who is who, or processes differ in `sweep`;
    LostProcessError where another process does not come or cannot start.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from us
    _connect()
    state, refusal = distributed.global_state, None
    process, count, client = state.process_id, state.num_processes, state.client
    assert client is not None
    try:
        prepare(process)
    except Exception as error:  # the others are told before it is raised
        refusal = error
    mine = _Greeting(uuid.uuid4().hex[:12], sweep, "" if refusal is None else f"{type(refusal).__name__}: {refusal}")
    try:
        client.key_value_set(f"scaling/{process}", json.dumps(dataclasses.asdict(mine)))
        said = [client.blocking_key_value_get(f"scaling/{other}", 1000 * MEET_SECONDS) for other in range(count)]
        jax.distributed.shutdown()  # returns once every process has come here
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(f"a process was lost at the start ({_first_line(error)}); start all again") from error
    state.process_id, state.num_processes = 0, 1  # else only process 0 would write checkpoints and compiled programs
    if refusal is not None:
        raise refusal
    greetings = [_Greeting(**json.loads(text)) for text in said]
    _check(greetings)
    return Place(process, count, greetings[0].session)


def _connect() -> None:
    try:
        jax.distributed.initialize(num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID"),
                                   initialization_timeout=MEET_SECONDS)
    except ValueError as error:
        raise ConfigError("--distributed: expected a TPU pod, SLURM, Open MPI or Kubernetes, or the environment "
                          "variables JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and "
                          f"JAX_PROCESS_ID ({error}); set them, or leave --distributed out") from error
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(f"not all processes came within {MEET_SECONDS} s ({_first_line(error)}); start all of "
                               "them together") from error


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    check(text.isdecimal(), name, text, "a whole number", "set it to that of this process's place")
    return int(text)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check(greetings: list[_Greeting]) -> None:
    for process, greeting in enumerate(greetings):
        if greeting.refusal:
            raise LostProcessError(f"process {process} could not start: {greeting.refusal}")
        if greeting.sweep != greetings[0].sweep:
            raise ConfigError(f"--config: process {process} was given another sweep than process 0; start the same "
                              "command from the same files everywhere")
    if jax.process_count() > 1:
        raise ConfigError(f"--distributed: expected devices of each host's own, not of {jax.process_count()} hosts "
                          "bound together; on a TPU pod set TPU_PROCESS_BOUNDS=1,1,1 and TPU_CHIPS_PER_PROCESS_BOUNDS "
                          "to the host's chips, such as 2,2,1")
