"""TensorFlow and LightGBM, imported when a model first needs them, and where and in how many threads they work."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from typing import Any

from trendcast.errors import UsageError, one_of

SPINS = "1000"
MOST_CORES = 8  # more would wait longer for each other than they save
THREADS = 4  # of TensorFlow, whatever the machine has: how a sum is shared among threads decides its last bits
DEVICES = ("auto", "cpu", "gpu")
# What a process works on is settled when TensorFlow begins, and for its children too: so the environment keeps it.
DEVICE, REPLICAS = "TRENDCAST_DEVICE", "TRENDCAST_REPLICAS"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def openmp_threads() -> int:
    """Return how many threads a library of OpenMP should use: ``OMP_NUM_THREADS`` where set (0), else the cores, eight at most."""
    return 0 if os.environ.get("OMP_NUM_THREADS") else min(cores(), MOST_CORES)


def import_lightgbm() -> Any:
    """Import LightGBM, its threads to wait for each other with little spinning, and return it.

    They wait at every node of a tree. By default (GNU's OpenMP) they do so at work for milliseconds, and where another process needs the
    cores two threads are then slower than one; asleep at once, they are no faster than one on an idle machine either.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when the library is loaded
    import lightgbm

    return lightgbm


def import_tensorflow() -> None:
    """Import TensorFlow, to work in ``THREADS`` threads on any number of cores: the same seed then gives the same bits."""
    if "tensorflow" not in sys.modules:
        _import_quietly()
    import tensorflow as tf

    # Too late where the program that calls us has computed with TensorFlow before: `devices` says so if it matters.
    with suppress(RuntimeError):
        if device() == "cpu":
            tf.config.set_visible_devices([], "GPU")
        if (n := replicas()) and not tf.config.get_visible_devices("GPU"):
            parts = [tf.config.LogicalDeviceConfiguration() for _ in range(n)]
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, parts)
    if tf.config.threading.get_intra_op_parallelism_threads() != THREADS:
        # Too late where the program that calls us has computed with TensorFlow before: it keeps its threads.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(THREADS)


def use_device(name: str | None) -> None:
    """Say what TensorFlow works on in this process: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.

    Parameters
    ----------
    name
        None leaves it at what ``TRENDCAST_DEVICE`` says, ``auto`` by default.

    Raises
    ------
    UsageError
        Another name; ``gpu`` where there is none.
    """
    if name is not None:
        os.environ[DEVICE] = _known(name)
    if device() == "gpu":
        devices()  # now, not when a model is trained half an hour later


def device() -> str:
    """Return what was asked for, see `use_device`."""
    return _known(os.environ.get(DEVICE) or "auto")


def _known(name: str) -> str:
    if name not in DEVICES:
        raise one_of("device", name, list(DEVICES))
    return name


def replicas() -> int | None:
    """Return among how many devices ``TRENDCAST_REPLICAS`` shares a batch; None: all GPUs, or the one CPU."""
    text = os.environ.get(REPLICAS)
    if not text:
        return None
    if not text.isdecimal() or not int(text):
        raise UsageError(f"{REPLICAS} must be a whole number from 1 on; came: {text!r}.")
    return int(text)


def devices() -> list[str]:
    """Return the devices that share a batch of training: GPUs, or else the CPU, which ``TRENDCAST_REPLICAS`` divides.

    Raises
    ------
    UsageError
        There is no GPU and one was asked for, or there are fewer devices than replicas.
    """
    import_tensorflow()
    import tensorflow as tf

    asked, wanted = device(), replicas()
    gpus = [] if asked == "cpu" else tf.config.list_logical_devices("GPU")
    if asked == "gpu" and not gpus:
        raise UsageError(
            "The device gpu was asked for, and TensorFlow finds none on this machine. Install the extra `gpu` "
            "(pip install 'trendcast[gpu]') beside NVIDIA's driver, or use --device cpu, or auto, which takes a GPU where there is one."
        )
    found = [each.name for each in gpus or tf.config.list_logical_devices("CPU")]
    if wanted and wanted > len(found):
        raise UsageError(
            f"{REPLICAS} is {wanted}, and TensorFlow has {len(found)}: {', '.join(found)}. Set it to {len(found)} at most, or, "
            "on a CPU, before anything else in the process uses TensorFlow."
        )
    return found[:wanted]


def _import_quietly() -> None:
    """Import TensorFlow and find its devices; what its C++ part prints is shown only if that fails.

    The notes ("could not find cuda drivers") are written before its log level counts, straight to file
    descriptor 2, so nothing short of holding that descriptor keeps them out of a user's terminal.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # It warns where many graphs are traced, and each of several networks has one of its own.
            tf.get_logger().setLevel("ERROR")
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
