"""The options of translators that may write slots (connectionist temporal classification); light to import."""

import dataclasses

from vq_keras.errors import InputError
from vq_keras.training.translation_config import TranslationConfig

# Higher orders found nothing better on captions.
ORDER = 4


@dataclasses.dataclass(frozen=True)
class SlotsConfig(TranslationConfig):
    """What the recipes of such translators ask for in common."""

    bigrams: float = 0.0
    """Share in the tokens' loss of the bigrams that are not as in the target (ctc alone): 1 to train a --start whose
    translations shall be better still."""
    ngrams: int | None = None
    """Length of the n-grams of the data's own targets, also where it is trained on others (--distilled), that the
    trained model translates with if the validation set gains by them (ctc alone); 4 for ctc where not given, 0 for
    none. To count 4-grams takes some 220 bytes of memory for each subword of the text."""

    def decisive(self) -> dict:
        """As of every recipe, without the n-grams: they are counted when the training has ended, each time anew."""
        return {name: value for name, value in super().decisive().items() if name != "ngrams"}

    def with_slots(self, decoder: str, reason: str):
        """The configuration with the order of its n-grams, checked.

        Args:
            decoder: "ctc" or another.
            reason: why another has no use for these options, beginning with how "ctc" is asked for.

        Returns:
            the configuration; its `ngrams` is a number.

        Raises:
            InputError: an option is out of range, or not for this decoder.
        """
        if not 0 <= self.bigrams <= 1:
            raise InputError(f"--bigrams is {self.bigrams}; give a share of the loss, from 0 to 1.")
        if self.ngrams is not None and self.ngrams != 0 and self.ngrams < 2:
            raise InputError(f"--ngrams is {self.ngrams}; give their length, 2 or more, or 0 for none.")
        for name in ("bigrams", "ngrams"):
            if getattr(self, name) and decoder != "ctc":
                raise InputError(f"--{name} is for {reason}")
        ngrams = self.ngrams if self.ngrams is not None else ORDER * (decoder == "ctc")
        return dataclasses.replace(self, ngrams=ngrams)
