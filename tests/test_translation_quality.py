"""BLEU by the formula of Papineni et al. 2002, computed here by hand, and what cannot be computed."""

import math

import pytest

from vq_keras.errors import InputError
from vq_keras.translation_quality import quality


def test_bleu_by_hand():
    """One corpus of two sentences; punctuation is a token of its own under 13a."""
    translations = ["the cat sat on the mat .", "a dog ran home ."]
    references = ["the cat sat on a mat .", "a dog ran back home ."]
    # n-grams that match, of those there are: 1: 6 + 5 of 7 + 5 ("the" is clipped to one), 2: 4 + 3 of 6 + 4,
    # 3: 2 + 1 of 5 + 3, 4: 1 + 0 of 4 + 2. Lengths 12 against 7 + 6 = 13.
    precisions = [11 / 12, 7 / 10, 3 / 8, 1 / 6]
    expected = 100 * math.exp(1 - 13 / 12) * math.prod(precisions) ** (1 / 4)
    found = quality(translations, references)
    assert found["bleu"] == pytest.approx(expected)
    assert found["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_case_counts_and_perfection_is_100():
    same = ["Zwei rote Bücher liegen auf dem Tisch ."]
    assert [quality(same, same)[name] for name in ("bleu", "chrf")] == pytest.approx([100, 100])
    assert quality([same[0].lower()], same)["bleu"] < 50


@pytest.mark.parametrize(("translations", "references"), [([], []), (["a"], ["a", "b"])])
def test_each_reference_needs_its_translation(translations, references):
    message = f"There are {len(translations)} translations for {len(references)} references"
    with pytest.raises(InputError, match=message):
        quality(translations, references)
