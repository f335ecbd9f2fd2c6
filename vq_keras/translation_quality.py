"""How good translations are: BLEU and chrF, by sacreBLEU."""

from collections.abc import Sequence

from vq_keras.errors import InputError


def quality(translations: Sequence[str], references: Sequence[str]) -> dict:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015) of a corpus, as sacreBLEU (Post 2018) defines them.

    Args:
        translations: plain text, not tokenised.
        references: one for each.

    Returns:
        {"bleu", "chrf"}, 0 to 100, and {"bleu_signature", "chrf_signature"}, which say how they were computed; figures
        with other signatures cannot be compared with these. Tokenised BLEU, as in roy2018, differs by up to 1.7.

    Raises:
        InputError: there are no translations, or not one for each reference.

    Example:
        >>> round(quality(["zwei rote Bücher liegen da"], ["zwei rote Bücher liegen da"])["bleu"])
        100
    """
    if not translations or len(translations) != len(references):
        raise InputError(f"There are {len(translations):,} translations for {len(references):,} references.")
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise InputError(f"BLEU needs sacreBLEU ({error}): pip install 'vq_keras[translation]'.") from error
    scores = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        scores[name] = metric.corpus_score(translations, [references]).score
        scores[f"{name}_signature"] = str(metric.get_signature())
    return scores
