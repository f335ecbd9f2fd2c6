"""Random layers that go on drawing where their file left off."""

from keras import ops

ENTRY = "seed_generator"


class SavedSeed:
    """Makes a layer's `seed_generator` a part of what its `.keras` or `.weights.h5` file holds; goes before the layer.

    Keras leaves the states of seed generators out of files: a model trained on after loading would draw the numbers of
    its first steps a second time.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[ENTRY] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        arrays = {name: store[name] for name in store.keys()}  # noqa: SIM118  No dict, though Keras calls it one.
        state = arrays.pop(ENTRY)
        super().load_own_variables(arrays)
        self.seed_generator.state.assign(state)
