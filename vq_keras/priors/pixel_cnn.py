"""The latent predictor of oord2017 for images: a gated PixelCNN over the field of codes."""

import math

import keras
from keras import ops

from vq_keras.errors import InputError
from vq_keras.layers import HorizontalConvolution, VerticalConvolution
from vq_keras.priors.code_embedding import CodeTable
from vq_keras.priors.latent_predictor import LatentPredictor, check_field

# Between the output layers; each sees all codes before its own at the same position.
DEPTH_LAYERS = 2


@keras.saving.register_keras_serializable(package="vq_keras")
class PixelCNN(LatentPredictor):
    """A `LatentPredictor`: the gated PixelCNN of van den Oord et al. 2016b, which oord2017 (section 4.2) has as prior.

    With v and h the vertical and the horizontal stack, s what the codes are conditioned on, and * convolutions,

        u_l = W_l * v_l + V_l s        v_{l+1} = tanh(u_l') sigmoid(u_l'')        rows above
        w_l = Y_l * h_l + U_l u_l      h_{l+1} = h_l + O_l tanh(w_l') sigmoid(w_l'')        left in the same row

    where ' and '' are the halves of a vector (equations 2 and 4, figure 2). v_0 is the field of embedded codes shifted
    down by one row, h_0 the same shifted right by one column: after that every layer may see its own position, and
    no weight has to be masked. The two stacks together see every code before a position that is near enough: rows
    above of 1 + L (n // 2), left 1 + L (n // 2), for L layers and kernels of n. There is no blind spot.

    The condition s is the class as a one-hot vector, or a context: a vector for all positions, or one for each, such as
    a network makes of other latents (2016b, section 2.3); or class and context side by side. Gradients go back to a
    context.

    Where a position has several latents (the last axes of `code_shape`) they are embedded by tables of their own, whose
    sum the stacks read, and drawn one after the other: of the stacks' output each of them gets a vector of its own, to
    which gated convolutions over the latents before it at the same position add theirs.

    Departures from the paper: the first layer's kernel reaches one row and column further, as it is shifted and not
    masked; the vertical stack has the condition before its features go to the horizontal one (`VerticalConvolution`);
    several latents of a position are a sequence, where the paper splits its feature maps among three colours; codes are
    ids without order, so that they are embedded; and dropout, which the paper does not have. Its layers take the dtype
    policy that is in force when it is made; the logits are always float32.

    Args:
        code_shape: axes of the field of codes: (rows, columns), or (rows, columns, latents a position ...).
        num_codes: size of a codebook. There may be any number of codebooks.
        num_layers: layers of each stack.
        hidden_dim: units of each layer.
        kernel_size: n, odd and at least 3.
        dropout: dropout on the embeddings and on the output of each residual branch.
        num_classes: if given, the codes are conditioned on a class of so many: the input is {"samples", "classes"},
            and `generate` and `init_cache` take `classes`.
        context_shape: if given, the codes are conditioned on a vector, (dim,), or on one for each position, (rows,
            columns, dim): the input is {"samples", "context"}, and `generate` and `init_cache` take `context`.

    Shapes:
        input: samples (batch, n, m) int32, m ids for each latent (1 for hard assignments); negative ids are masked
        positions. With classes or a context a dict, {"samples": (batch, n, m), "classes": (batch,) int32, "context":
        (batch, *context_shape)}. Output: logits (batch, n, num_codes) float32 of the code at each position given those
        before it.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> predictor = PixelCNN((4, 4, 2), num_codes=32, num_layers=2, hidden_dim=32, num_classes=10)
        >>> samples, classes = ops.zeros((8, 32, 1), "int32"), ops.arange(8)
        >>> logits = predictor({"samples": samples, "classes": classes})
        >>> predictor.cross_entropy(samples, logits).shape  # nats of each field
        (8,)
        >>> predictor.generate(keras.random.uniform((3, 32)), temperature=0.9, classes=[0, 1, 1]).shape
        (3, 4, 4, 2)
    """

    def __init__(
        self,
        code_shape: tuple,
        num_codes: int,
        num_layers: int = 6,
        hidden_dim: int = 512,
        kernel_size: int = 5,
        dropout: float = 0.1,
        num_classes: int | None = None,
        context_shape: tuple | None = None,
        **kwargs,
    ):
        code_shape = tuple(code_shape)
        check_field(code_shape, num_codes)
        if len(code_shape) < 2:
            raise InputError(f"code_shape is {code_shape}; a PixelCNN needs rows and columns.")
        if num_layers < 1:
            raise InputError(f"num_layers is {num_layers}; give at least 1.")
        if hidden_dim < 1:
            raise InputError(f"hidden_dim is {hidden_dim}; give at least 1.")
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; give at least 1, or None for no classes.")
        rows, columns, depth = code_shape[0], code_shape[1], math.prod(code_shape[2:])
        if context_shape is not None:
            context_shape = tuple(context_shape)
            if context_shape[:-1] not in ((), (rows, columns)) or min(context_shape, default=0) < 1:
                raise InputError(
                    f"context_shape is {context_shape}; give (dim,) for a vector, or ({rows}, {columns}, dim) for one "
                    "at each position."
                )

        table = CodeTable(num_codes, depth, hidden_dim, name="table")
        verticals = [VerticalConvolution(kernel_size, name=f"vertical_{i}") for i in range(num_layers)]
        horizontals = [
            HorizontalConvolution(kernel_size // 2 + 1, dropout, name=f"horizontal_{i}") for i in range(num_layers)
        ]
        to_latents = keras.layers.Dense(depth * hidden_dim, name="to_latents")
        depths = []
        if depth > 1:
            depths = [HorizontalConvolution(depth, dropout, name=f"depth_{i}") for i in range(DEPTH_LAYERS)]
        to_logits = keras.layers.Dense(num_codes, dtype="float32", name="logits")

        # 1. The codes, and the positions as the sum of theirs, all with units of variance one.
        inputs = {"samples": keras.Input((rows * columns * depth, None), dtype="int32", name="samples")}
        if num_classes is not None:
            inputs["classes"] = keras.Input((), dtype="int32", name="classes")
        if context_shape is not None:
            inputs["context"] = keras.Input(context_shape, name="context")
        samples = inputs["samples"]
        condition = _condition(inputs.get("classes"), num_classes, inputs.get("context"))
        codes = keras.layers.Dropout(dropout, name="embedding_dropout")(table(samples) * hidden_dim**0.5)
        codes = ops.reshape(codes, (-1, rows * columns, depth, hidden_dim))
        positions = ops.reshape(ops.sum(codes, axis=2) * depth**-0.5, (-1, rows, columns, hidden_dim))
        # 2. The two stacks.
        v, h = _shifted(positions, axis=1), _shifted(positions, axis=2)
        for vertical, horizontal in zip(verticals, horizontals, strict=True):
            v, features = vertical(v, condition)
            h = horizontal(h, features)
        # 3. The latents of each position.
        x = ops.reshape(to_latents(ops.relu(h)), (-1, rows * columns, depth, hidden_dim))
        if depth > 1:
            x = x + _shifted(codes, axis=2)
        for layer in depths:
            x = layer(x)
        logits = ops.reshape(to_logits(ops.relu(x)), (-1, rows * columns * depth, num_codes))
        super().__init__(inputs if len(inputs) > 1 else samples, logits, code_shape, num_codes, **kwargs)

        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.num_classes = num_classes
        self.context_shape = context_shape
        self.columns = columns
        self.depth = depth
        self.table = table
        self.verticals = verticals
        self.horizontals = horizontals
        self.to_latents = to_latents
        self.depths = depths
        self.to_logits = to_logits

    def init_cache(self, batch_size, classes=None, context=None) -> dict:
        """The empty cache of `step`: what the vertical stack makes of a row, and of both stacks the last inputs.

        Args:
            batch_size: number of sequences, an int or a scalar tensor.
            classes: (batch,) int32, where there are classes.
            context: (batch, *context_shape), where there is a context.

        Raises:
            InputError: classes or a context are missing, or there are none.
        """
        if (classes is None) != (self.num_classes is None):
            known = "no classes; leave them out" if self.num_classes is None else "classes; give one for each sample"
            raise InputError(f"this PixelCNN has {known}.")
        if (context is None) != (self.context_shape is None):
            known = "no context; leave it out" if self.context_shape is None else "a context; give one for each sample"
            raise InputError(f"this PixelCNN has {known}.")

        def zeros(*shape):
            return ops.zeros((batch_size, *shape), dtype=self.compute_dtype)

        stacks = {
            "position": zeros(self.hidden_dim),
            "row": zeros(self.columns, self.hidden_dim),
            "features": [zeros(self.columns, 2 * self.hidden_dim) for _ in self.verticals],
            "verticals": [layer.init_cache(batch_size, self.columns) for layer in self.verticals],
            "horizontals": [layer.init_cache(batch_size) for layer in self.horizontals],
            "latents": zeros(self.depth, self.hidden_dim),
        }
        context = None if context is None else ops.convert_to_tensor(context, "float32")
        condition = _condition(classes, self.num_classes, context)
        if condition is not None:
            stacks["condition"] = ops.cast(condition, self.compute_dtype)
        return {"stacks": stacks, "depths": [layer.init_cache(batch_size) for layer in self.depths]}

    def step(self, codes, position, cache: dict) -> tuple:
        """The logits (batch, num_codes) at one position of the sequence, and the new cache; see `LatentPredictor`.

        The vertical stack is evaluated once for each row, the horizontal one once for each of its columns.
        """
        place, latent = position // self.depth, position % self.depth
        row, column = place // self.columns, place % self.columns
        code = self.table.step(codes, position - 1) * self.hidden_dim**0.5
        code = ops.where(ops.equal(position, 0), ops.zeros_like(code), code)
        stacks = {**cache["stacks"], "position": cache["stacks"]["position"] + code * self.depth**-0.5}
        first = ops.equal(latent, 0)
        stacks = ops.cond(first, lambda: self._start_position(row, column, stacks), lambda: stacks)

        x = ops.take(stacks["latents"], latent, axis=1)
        if self.depth > 1:
            x = x + ops.where(first, ops.zeros_like(code), code)
        depths = []
        for layer, before in zip(self.depths, cache["depths"], strict=True):
            x, before = layer.step(x, ops.where(first, ops.zeros_like(before), before))
            depths.append(before)
        return self.to_logits(ops.relu(x)), {"stacks": stacks, "depths": depths}

    def _start_position(self, row, column, stacks):
        """Both stacks at a position whose predecessor is complete, and the vectors of its latents."""
        # where() and no slice update: on TensorFlow that is an XLA operation, which TF Serving refuses to run.
        here = ops.equal(ops.arange(self.columns, dtype="int32"), (column - 1) % self.columns)
        stacks = {**stacks, "row": ops.where(here[:, None], stacks["position"][:, None], stacks["row"])}
        first = ops.equal(column, 0)
        stacks = ops.cond(first, lambda: self._start_row(row, stacks), lambda: stacks)

        h = ops.where(first, ops.zeros_like(stacks["position"]), stacks["position"])
        horizontals = []
        for layer, features, left in zip(self.horizontals, stacks["features"], stacks["horizontals"], strict=True):
            left = ops.where(first, ops.zeros_like(left), left)
            h, left = layer.step(h, left, ops.take(features, column, axis=1))
            horizontals.append(left)
        latents = ops.reshape(self.to_latents(ops.relu(h)), (-1, self.depth, self.hidden_dim))
        return {
            **stacks,
            "position": ops.zeros_like(stacks["position"]),
            "horizontals": horizontals,
            "latents": latents,
        }

    def _start_row(self, row, stacks):
        """The vertical stack over the row that begins, of which the one above is complete."""
        condition = stacks.get("condition")
        if condition is not None and condition.shape[1] > 1:
            condition = ops.take(condition, row, axis=1)[:, None]
        v, features, verticals = stacks["row"], [], []
        for layer, above in zip(self.verticals, stacks["verticals"], strict=True):
            v, before_gate, above = layer.step(v, above, condition)
            features.append(before_gate)
            verticals.append(above)
        return {**stacks, "features": features, "verticals": verticals}

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "kernel_size": self.kernel_size,
            "dropout": self.dropout,
            "num_classes": self.num_classes,
            "context_shape": self.context_shape,
        }


def _condition(classes, num_classes, context):
    """Class and context side by side at each position, (batch, rows or 1, columns or 1, dim); None without either."""
    if context is not None and len(context.shape) == 2:
        context = context[:, None, None]
    if classes is None:
        return context
    one_hot = ops.one_hot(classes, num_classes)[:, None, None]
    if context is None:
        return one_hot
    # A sum spreads it over the positions of a field, whatever the size of the batch.
    return ops.concatenate([one_hot + ops.zeros_like(context[..., :1]), context], axis=-1)


def _shifted(x, axis):
    """x, one further along an axis: zeros first, and without the last."""
    first, _ = ops.split(x, [x.shape[axis] - 1], axis=axis)
    return ops.pad(first, [(int(i == axis), 0) for i in range(len(x.shape))])
