"""A batch that is refused is parted, until only the sentences fail that are to blame."""

from collections.abc import Sequence

from vq_keras.translation import Translation
from vq_keras.translation_client.failures import Failure, Refused, Unavailable, Unusable


def translate_apart(translator, sentences: Sequence[str]) -> list[Translation | Failure]:
    """Translates a batch, or as much of it as can be: k of n sentences that are refused cost 2 k log2(n) requests.

    Args:
        translator: has `translate(sentences)`.
        sentences: at least one.
    """
    try:
        return translator.translate(sentences)
    except Refused as error:
        if len(sentences) == 1:
            return [Failure(str(error), refused=True)]
        middle = len(sentences) // 2
        return translate_apart(translator, sentences[:middle]) + translate_apart(translator, sentences[middle:])
    except (Unavailable, Unusable) as error:
        return [Failure(str(error), refused=False)] * len(sentences)
