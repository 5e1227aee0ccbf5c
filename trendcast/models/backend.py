"""TensorFlow, imported when a model first needs it, without its start-up chatter and with a fixed number of threads."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress

THREADS = 4  # of TensorFlow, whatever the machine has: how a sum is shared among threads decides its last bits


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
