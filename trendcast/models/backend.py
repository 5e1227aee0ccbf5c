"""TensorFlow and LightGBM, imported when a model first needs them, and how many threads they work in."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from typing import Any

SPINS = "1000"
MOST_CORES = 8  # more would wait longer for each other than they save
THREADS = 4  # of TensorFlow, whatever the machine has: how a sum is shared among threads decides its last bits


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

    if tf.config.threading.get_intra_op_parallelism_threads() != THREADS:
        # Too late where the program that calls us has computed with TensorFlow before: it keeps its threads.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(THREADS)


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
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
