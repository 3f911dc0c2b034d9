"""What becomes of the generators: it is written down here by their own clean-up."""

from collections.abc import Generator
from contextlib import contextmanager

from examples.stream.messages import Generators


class Ledger:
    """Counts the generators that run, and those that ended."""

    def __init__(self) -> None:
        self._counts = Generators()

    def counts(self) -> Generators:
        """Return the counts as they are now."""
        return self._counts.model_copy()

    def note_word(self) -> None:
        """Count a word that is about to be yielded."""
        self._counts.words += 1

    @contextmanager
    def entry(self) -> Generator[None]:
        """Count a generator while the block runs, and how the block ended."""
        self._counts.running += 1
        try:
            yield
        except BaseException:
            self._counts.cut_short += 1
            raise
        else:
            self._counts.finished += 1
        finally:
            self._counts.running -= 1
