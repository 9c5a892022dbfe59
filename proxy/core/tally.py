"""What adds up to an estimate: texts are counted, the rest is added, and gaps get a name."""

from collections.abc import Callable

AUDIO_INPUT_TOKENS_PER_SECOND = 10
SEVERAL_CALLS = 10  # tokens around more than one call of a function in one message
EACH_OF_SEVERAL = 9
ONE_CALL = 7


class Tally:
    """Counts the tokens of one side of a call; `notes` names what it could not count."""

    __slots__ = ("_count", "audio_tokens", "image_tokens", "notes", "tokens")

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self.tokens = 0  # all of them, images and audio included
        self.image_tokens = 0
        self.audio_tokens = 0
        self.notes: list[str] = []

    def text(self, text: str) -> None:
        """Count a text."""
        if text:
            self.tokens += self._count(text)

    def add(self, tokens: int) -> None:
        """Add tokens that stand for no text."""
        self.tokens += tokens

    def image(self, tokens: int) -> None:
        """Add what an image makes."""
        self.image_tokens += tokens
        self.tokens += tokens

    def audio(self, tokens: int) -> None:
        """Add what sound makes."""
        self.audio_tokens += tokens
        self.tokens += tokens

    def note(self, gap: str) -> None:
        """Name a gap, once."""
        if gap not in self.notes:
            self.notes.append(gap)

    def calls(self, number: int) -> None:
        """Add what stands around the calls of functions in one message."""
        if number == 1:
            self.tokens += ONE_CALL
        elif number:
            self.tokens += SEVERAL_CALLS + EACH_OF_SEVERAL * number
