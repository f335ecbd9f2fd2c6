"""Beam search against exhaustive search, the same search written with lists, and tf-models-official."""

import itertools

import keras
import numpy as np
import pytest
from chains import JAX, Chain, compiled
from keras import ops

from vq_keras import generation
from vq_keras.errors import InputError

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")

START, END = 2, 1
FIRST = np.array([3, 8, 31], "int32")


def search(chain, first_states, length, beams, jit=True, **kwargs):
    """Codes and scores as numpy arrays; each sentence starts in a state of its own."""

    def run(first_states):
        start = ops.full_like(first_states, START)
        cache = chain.cache(ops.repeat(first_states, beams))
        return generation.beam_search(chain.step, cache, length, start, beams, **kwargs)

    codes, scores = (compiled(run) if JAX and jit else run)(ops.convert_to_tensor(first_states, "int32"))
    assert keras.backend.standardize_dtype(codes.dtype) == "int32"
    return ops.convert_to_numpy(codes), ops.convert_to_numpy(scores)


def penalty(number, length_penalty):
    return ((5 + number) / 6) ** length_penalty


def all_sequences(num_codes, length, end):
    """Every sequence of at most `length` codes that ends with its only `end`; without `end`, of `length` codes."""
    if end is None:
        return list(itertools.product(range(num_codes), repeat=length))
    others = [code for code in range(num_codes) if code != end]
    return [(*p, end) for number in range(length) for p in itertools.product(others, repeat=number)]


def list_search(chain, first_state, length, beams, end=None, length_penalty=0.0, best=None):
    """The (score, codes) of the best sequences, and the number of steps, by lists of sequences."""
    best = best or beams
    done, going, steps = [], [(0.0, [])], 0
    while going:
        steps += 1
        candidates = [
            (total + log_prob, [*codes, code])
            for total, codes in going
            for code, log_prob in enumerate(chain.log_probs(first_state, START, codes)[-1])
            if log_prob > -np.inf and (steps < length or end is None or code == end)
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        going = []
        for total, codes in candidates:
            if codes[-1] == end or (end is None and steps == length):
                done.append((total / penalty(steps, length_penalty), codes))
            elif len(going) < beams:
                going.append((total, codes))
        done = sorted(done, reverse=True)[:best]
        if len(done) == best and going and going[0][0] / penalty(length, length_penalty) <= done[-1][0]:
            break
    return done, steps


def check(codes, scores, expected):
    """One sentence's codes and scores are the expected (score, codes), then nothing."""
    length = codes.shape[-1]
    found = [[*sequence, *[0] * (length - len(sequence))] for _, sequence in expected]
    assert codes.tolist() == found + [[0] * length] * (len(codes) - len(found))
    # Float32 sums over a few codes.
    np.testing.assert_allclose(scores[: len(found)], [score for score, _ in expected], rtol=2e-6, atol=1e-6)
    assert (scores[len(found) :] == -np.inf).all()


@pytest.mark.parametrize("num_codes, length", [(3, 5), (4, 4)])
@pytest.mark.parametrize("end", [None, END])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_enough_beams_search_exhaustively(num_codes, length, end, length_penalty):
    # Twice as many candidates as there are continuations of the longest open sequences.
    beams = (num_codes if end is None else num_codes - 1) ** (length - 1) * num_codes // 2
    sequences = all_sequences(num_codes, length, end)
    chains = [Chain(seed, num_codes) for seed in range(1 if JAX else 3)]
    for chain in chains:
        codes, scores = search(chain, FIRST, length, beams, end=end, length_penalty=length_penalty, best=20)
        for row, first in enumerate(FIRST):
            expected = [
                (chain.log_prob(first, START, sequence) / penalty(len(sequence), length_penalty), sequence)
                for sequence in sequences
            ]
            check(codes[row], scores[row], sorted(expected, reverse=True)[:20])


def test_fewer_sequences_than_places():
    # [end], [0, end] and [0, 0, end] are all there are, and each open sequence is as likely as what it grew from.
    chain = Chain(0, num_codes=2)
    codes, scores = search(chain, FIRST, length=3, beams=6, end=END)
    for row, first in enumerate(FIRST):
        expected = [(chain.log_prob(first, START, codes), codes) for codes in all_sequences(2, 3, END)]
        check(codes[row], scores[row], sorted(expected, reverse=True))


def test_sequences_of_probability_zero_are_not_found():
    chain = Chain(0, num_codes=6)
    chain.logits[:, 3:5] = -np.inf
    codes, scores = search(chain, FIRST, length=2, beams=8)
    for row, first in enumerate(FIRST):
        expected = [(chain.log_prob(first, START, codes), codes) for codes in itertools.product([0, 1, 2, 5], repeat=2)]
        check(codes[row], scores[row], sorted(expected, reverse=True)[:8])


CASES = [
    {"num_codes": 9, "length": 8, "beams": 3, "end": END, "length_penalty": 0.6},
    {"num_codes": 9, "length": 8, "beams": 4, "end": END, "length_penalty": 1.5, "best": 2},
    {"num_codes": 9, "length": 8, "beams": 1, "end": END, "length_penalty": 0.6},
    {"num_codes": 40, "length": 7, "beams": 3},
    {"num_codes": 1100, "length": 7, "beams": 4, "end": END, "length_penalty": 0.6, "best": 1},
]


def chain_of(case):
    """A random model in which the end is neither rare nor usual, whatever the number of codes."""
    chain = Chain(7, case["num_codes"], scale=3.0)
    chain.logits[:, END] += np.log(case["num_codes"])
    return chain


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['num_codes']} codes, {case['beams']} beams")
def test_equals_the_search_with_lists(case):
    arguments = {name: value for name, value in case.items() if name != "num_codes"}
    chain = chain_of(case)
    first_states = np.arange(0, 97, 8, dtype="int32")
    codes, scores = search(chain, first_states, **arguments)
    for row, first in enumerate(first_states):
        check(codes[row], scores[row], list_search(chain, first, **arguments)[0])


def test_fewer_places_change_nothing_but_the_number():
    arguments = {name: value for name, value in CASES[0].items() if name != "num_codes"}
    chain = chain_of(CASES[0])
    codes, scores = search(chain, FIRST, **arguments)
    best_codes, best_scores = search(chain, FIRST, **arguments, best=1)
    assert (best_codes == codes[:, :1]).all()
    assert (best_scores == scores[:, :1]).all()


@pytest.mark.parametrize("end", [None, END])
def test_a_sentence_does_not_depend_on_its_batch(end):
    chain = chain_of(CASES[0])
    lengths = np.array([8, 3, 5, 1, 8], "int32")
    first_states = np.array([3, 8, 31, 44, 60], "int32")
    codes, scores = search(chain, first_states, 8, 3, end=end, length_penalty=0.6, lengths=lengths)
    for row, (first, length) in enumerate(zip(first_states, lengths, strict=True)):
        alone, alone_scores = search(chain, [first], 8, 3, end=end, length_penalty=0.6, lengths=lengths[row : row + 1])
        assert (codes[row] == alone[0]).all()
        assert (scores[row] == alone_scores[0]).all()
        check(codes[row], scores[row], list_search(chain, first, int(length), 3, end, 0.6)[0])


def test_one_beam_is_greedy_where_nothing_ends():
    chain = chain_of(CASES[3])
    codes, scores = search(chain, FIRST, 7, 1)
    greedy, log_probs = generation.greedy(chain.step, chain.cache(FIRST), 7, np.full(3, START))
    assert (codes[:, 0] == ops.convert_to_numpy(greedy)).all()
    np.testing.assert_allclose(scores[:, 0], ops.convert_to_numpy(log_probs), rtol=1e-6)


def test_one_beam_is_never_worse_than_greedy():
    # It may be better: it looks at an end that is only the second likeliest code, too, and goes on after the first end.
    chain = chain_of(CASES[0])
    first_states = np.arange(0, 97, 4, dtype="int32")
    _, scores = search(chain, first_states, 30, 1, end=END)
    codes, log_probs = generation.greedy(chain.step, chain.cache(first_states), 30, np.full(25, START), end=END)
    ended = (ops.convert_to_numpy(codes) == END).any(-1)
    assert ended.sum() > 10
    assert (scores[ended, 0] >= ops.convert_to_numpy(log_probs)[ended] - 1e-5).all()
    assert (scores[ended, 0] > ops.convert_to_numpy(log_probs)[ended] + 0.1).any()


def test_results_are_whole_sequences_in_order():
    chain = chain_of(CASES[0])
    first_states = np.arange(0, 97, 4, dtype="int32")
    codes, scores = search(chain, first_states, 8, 4, end=END, length_penalty=0.6)
    assert (np.diff(scores) <= 0).all()
    assert ((codes == END).sum(-1) == 1).all()
    assert ((codes == 0) | (np.cumsum(codes == END, axis=-1) - (codes == END) == 0)).all()  # 0 after the end
    for row in codes:
        assert len({tuple(sequence) for sequence in row}) == 4


@pytest.mark.skipif(JAX, reason="JAX runs no Python in a loop, so that steps cannot be counted")
@pytest.mark.parametrize("best", [1, 4])
def test_stops_as_soon_as_the_result_is_certain(best):
    chain = chain_of(CASES[0])
    steps = []

    def step(previous, t, cache):
        steps.append(int(t))
        return chain.step(previous, t, cache)

    arguments = {"length": 20, "beams": 4, "end": END, "length_penalty": 0.6, "best": best}
    numbers = []
    for first in range(0, 97, 8):
        steps.clear()
        # How far it could go for other sentences does not matter.
        generation.beam_search(
            step, chain.cache([first] * 4), start=np.array([START]), lengths=[20], **{**arguments, "length": 99}
        )
        assert steps == list(range(list_search(chain, first, **arguments)[1]))
        numbers.append(len(steps))
    assert min(numbers) < 10


def test_compiled_equals_eager():
    chain = chain_of(CASES[0])

    def run(start, cache, lengths):
        return generation.beam_search(chain.step, {"state": cache}, 8, start, 3, END, 0.6, lengths=lengths)

    function = compiled(run, (None,), (None, 1), (None,), dtypes=["int32"] * 3)
    arguments = np.full(3, START, "int32"), np.repeat(FIRST, 3)[:, None], np.array([8, 5, 8], "int32")
    for found, expected in zip(function(*arguments), run(*arguments), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-6)


@needs_tensorflow
def test_the_length_may_be_a_tensor_of_a_graph():
    chain = chain_of(CASES[0])

    def run(first_states, lengths):
        start = ops.full_like(first_states, START)
        cache = chain.cache(ops.repeat(first_states, 3))
        length = ops.max(lengths)
        codes, scores = generation.beam_search(chain.step, cache, length, start, 3, END, 0.6, lengths=lengths)
        greedy, _ = generation.greedy(chain.step, chain.cache(first_states), length, start, END, lengths)
        return codes, scores, greedy

    function = compiled(run, (None,), (None,), dtypes=["int32"] * 2)
    for lengths in ([4, 8, 2], [3, 3, 1]):
        codes, scores, greedy = (x.numpy() for x in function(FIRST, np.array(lengths, "int32")))
        assert codes.shape == (3, 3, max(lengths))
        assert greedy.shape == (3, max(lengths))
        for row, first in enumerate(FIRST):
            check(codes[row], scores[row], list_search(chain, first, lengths[row], 3, END, 0.6)[0])


@pytest.mark.slow
@needs_tensorflow
def test_tf_serving_runs_it(tmp_path):
    import tensorflow as tf

    from vq_keras import saved_model

    chain = chain_of(CASES[4])

    def translate(first_states):
        start = ops.full_like(first_states, START)
        cache = chain.cache(ops.repeat(first_states, 3))
        codes, scores = generation.beam_search(chain.step, cache, 8, start, 3, END, 0.6)
        greedy, _ = generation.greedy(chain.step, chain.cache(first_states), 8, start, END)
        return {"codes": codes, "scores": scores, "greedy": greedy}

    # Refuses, with an InputError, what the server would refuse.
    path = saved_model.write(tmp_path, {"translate": saved_model.Signature(translate, {"first": ((None,), "int32")})})
    signature = tf.saved_model.load(str(path)).signatures["translate"]
    assert signature(first=tf.constant([], "int32"))["codes"].shape == (0, 3, 8)
    outputs = signature(first=tf.constant(FIRST))
    codes, scores = search(chain, FIRST, 8, 3, end=END, length_penalty=0.6)
    assert (outputs["codes"].numpy() == codes).all()
    np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-6)


@needs_tensorflow
@pytest.mark.parametrize("case", [CASES[0], {**CASES[4], "best": 4}], ids=["9 codes", "1100 codes"])
def test_agrees_with_tf_models_official(case):
    official = pytest.importorskip(
        "official.nlp.modeling.ops.beam_search", reason="the extra `official` is not installed"
    )
    import tensorflow as tf

    chain, length, beams = chain_of(case), case["length"], case["beams"]
    first_states = np.arange(0, 97, 8, dtype="int32")

    def theirs(codes, t, cache):
        # Their caches have the dtype of the scores.
        state = {"state": tf.cast(cache["state"], "int32")}
        logits, state = chain.step(codes[:, -1], t, state)
        # They return no sequence that has not ended by the greatest length, and look at an end there only if it is
        # among 2 beams candidates. With one other code for the rest of the probability, all ends are.
        log_probs = tf.nn.log_softmax(logits)
        ending = log_probs[:, END]
        columns = tf.range(case["num_codes"])
        rest = tf.where(columns == 2, tf.math.log1p(-tf.exp(ending))[:, None], -1e9)
        last = tf.where(columns == END, ending[:, None], rest)
        return tf.where(t == length - 1, last, log_probs), {"state": tf.cast(state["state"], "float32")}

    @tf.function
    def run(first_states):
        return official.sequence_beam_search(
            theirs,
            initial_ids=tf.fill(tf.shape(first_states), START),
            initial_cache={"state": tf.cast(first_states, "float32")[:, None]},
            vocab_size=case["num_codes"],
            beam_size=beams,
            alpha=case["length_penalty"],
            max_decode_length=length,
            eos_id=END,
        )

    their_codes, their_scores = (x.numpy() for x in run(first_states))
    codes, scores = search(chain, first_states, length, beams, end=END, length_penalty=case["length_penalty"])
    # Theirs begin with `start` and are as long as the search was.
    their_codes = np.pad(their_codes[:, :, 1:], [(0, 0), (0, 0), (0, length + 1 - their_codes.shape[-1])])
    # Where their search ends with fewer sequences than beams, it fills up with scores of -1e7 and less; ours goes on.
    real = their_scores > -1e6
    assert real[:, 0].all()
    assert (codes[real] == their_codes[real]).all()
    np.testing.assert_allclose(scores[real], their_scores[real], rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"best": 0}, {"length_penalty": -0.1}, {"length_penalty": np.nan}])
def test_bad_arguments(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        search(Chain(0, 3), FIRST, 4, jit=False, **{"beams": 2, **wrong})
