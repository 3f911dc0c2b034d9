"""Texts that nobody has written: a Markov chain over a few passages, in the place of a language model."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator

PARAGRAPH = 4
"""Sentences of one paragraph."""
TOPICAL = 0.6
"""The share of sentences that begin with something about the prompt, if there is anything."""
COMMON = 6
"""A word that stands in so many sentences says nothing of what a prompt is about."""

Beginning = tuple[str, ...]
_WORD = re.compile(r"\w+")
_TOPIC = re.compile(r"\w{3,}")


class Composer:
    """Continues any two words as one of the passages does.

    Args:
        passages: texts to learn from. Each of their sentences has two words or more and ends with a full stop.
    """

    def __init__(self, passages: str) -> None:
        self._followers: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._openings: list[Beginning] = []
        self._about: defaultdict[str, list[Beginning]] = defaultdict(list)
        for sentence in re.findall(r"\S[^.]*\.", passages):
            words = tuple(sentence.split())
            self._openings.append(words[:2])
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                self._followers[first, second].append(third)
            for end, word in enumerate(words, start=1):
                self._about[_WORD.findall(word.lower())[0]].append(words[: max(end, 2)])

    def compose(self, prompt: str, *, seed: int, words: int) -> Iterator[str]:
        """Yield a text word by word, each word with the white space before it.

        Args:
            prompt: what it shall be about. Words that the passages do not have make no difference.
            seed: the same seed gives the same text.
            words: how many at least; the text ends with a sentence.
        """
        chance = random.Random(seed)
        topical = self._beginnings(prompt)
        count = sentences = 0
        while count < words:
            space = "" if count == 0 else " " if sentences % PARAGRAPH else "\n\n"
            fits = topical and (count == 0 or chance.random() < TOPICAL)
            for word in self._sentence(chance.choice(topical if fits else self._openings), chance):
                yield space + word
                space = " "
                count += 1
            sentences += 1

    def _beginnings(self, prompt: str) -> list[Beginning]:
        """Return the sentences that have a word of the prompt, each up to that word."""
        found = [self._about.get(word, []) for word in _TOPIC.findall(prompt.lower())]
        return [beginning for beginnings in found if len(beginnings) < COMMON for beginning in beginnings]

    def _sentence(self, beginning: Beginning, chance: random.Random) -> Iterator[str]:
        yield from beginning
        first, second = beginning[-2:]
        while not second.endswith("."):
            first, second = second, chance.choice(self._followers[first, second])
            yield second
