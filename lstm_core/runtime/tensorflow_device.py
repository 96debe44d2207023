"""The device that TensorFlow computes on, set up once for the process, before anything runs."""

from __future__ import annotations

from functools import cache

import tensorflow as tf


@cache
def use_one_device(*, allow_tf32: bool) -> str:
    """Choose the device of this process: the first GPU that is visible, or the CPU.

    Memory of a GPU is taken as it is needed. Which GPU is the first one is up to
    `CUDA_VISIBLE_DEVICES`. Where it has no memory, TensorFlow's allocator waits for some to come
    back before it fails, ten seconds (`kMaxMillisToWait` of its `bfc_allocator.cc`). No call of
    TensorFlow 2 changes that; `TF_GPU_ALLOCATOR=cuda_malloc_async` in the environment takes another
    allocator, which by its source does not wait. Nobody has tried it here.

    Args:
        allow_tf32: Whether products on a GPU may round their factors to 10 bits, which is faster
            and widens the distance to a CPU from about 1e-6 to about 1e-3.

    Returns:
        What the device is, for people.

    Raises:
        RuntimeError: TensorFlow has run something already.
    """
    tf.config.experimental.enable_tensor_float_32_execution(allow_tf32)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    tf.config.set_visible_devices(gpus[:1], "GPU")
    tf.config.experimental.set_memory_growth(gpus[0], enable=True)
    details = tf.config.experimental.get_device_details(gpus[0])
    return str(details.get("device_name", "GPU"))
