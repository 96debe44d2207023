"""Layers of a user's own, registered with Keras: what `--keras-modules` is for."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tests")
class Gain(keras.layers.Layer):
    """Multiplies each feature by a weight."""

    supports_masking = True

    def build(self, shape):
        """Create the weights."""
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x):
        """Return `x` of its own shape."""
        return x * self.gain


@keras.saving.register_keras_serializable(package="tests")
class Hungry(keras.layers.Layer):
    """Has no memory for features over 100."""

    def call(self, x):
        """Return `x`, if there is memory."""

        def eat(values):
            if values.max() > 100:
                # What TensorFlow makes of it is what it says of a device without memory, but after
                # ten seconds in which other work might give some back.
                raise MemoryError
            return values

        eaten = tf.numpy_function(eat, [x], x.dtype)
        eaten.set_shape(x.shape)
        return eaten


@keras.saving.register_keras_serializable(package="tests")
class Leaky(keras.layers.Layer):
    """A cell whose output is not its state."""

    def __init__(self, units, rate=0.25, **kwargs):
        """Keep `units` numbers, of which a share leaks out."""
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.rate = rate

    def build(self, shape):
        """Create the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x, states):
        """Return what leaks out, and what is left."""
        level = states[0] + keras.ops.matmul(x, self.kernel)
        return self.rate * level, [(1 - self.rate) * level]

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "units": self.units, "rate": self.rate}


@keras.saving.register_keras_serializable(package="tests")
class Lag(keras.layers.Layer):
    """Adds an earlier time step to each."""

    def __init__(self, steps, **kwargs):
        """Look back so many of them."""
        super().__init__(**kwargs)
        self.steps = steps

    def call(self, x):
        """Return `(batch, time, features)`."""
        before = keras.ops.pad(x, ((0, 0), (self.steps, 0), (0, 0)))
        return x + before[:, : keras.ops.shape(x)[1]]

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.layers.LSTM):
    """Does more than its cell."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """Return twice what an LSTM gives."""
        return 2 * super().call(sequences, initial_state, mask, training)


@keras.saving.register_keras_serializable(package="tests")
class Primed(keras.layers.GRUCell):
    """Begins with ones."""

    def get_initial_state(self, batch_size=None):
        """Return the first state."""
        return [keras.ops.ones((batch_size, self.units))]


@keras.saving.register_keras_serializable(package="tests")
class Numbered(keras.layers.Layer):
    """Adds a number of its own to each of the first so many positions, and knows no other."""

    def __init__(self, positions, **kwargs):
        """Know so many positions."""
        super().__init__(**kwargs)
        self.positions = positions

    def call(self, x):
        """Return `(batch, time, features)`."""
        numbers = keras.ops.arange(self.positions, dtype=x.dtype)
        return x + numbers[: keras.ops.shape(x)[1], None]

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "positions": self.positions}
