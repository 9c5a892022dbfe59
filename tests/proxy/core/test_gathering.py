"""Pieces come together as they came, however many there are."""

import pytest

from proxy.core.gathering import MANY, Pieces


@pytest.mark.parametrize("count", [0, 1, 2, MANY - 1, MANY, MANY + 1, 3 * MANY])
def test_pieces_come_together_in_their_order(count: int) -> None:
    """Some are joined early, which nobody can tell from the whole."""
    pieces = Pieces()
    for number in range(count):
        pieces.add(b"%d," % number)
    whole = b"".join(b"%d," % number for number in range(count))
    assert pieces.joined() == whole
    assert pieces.size == len(whole)


def test_a_single_piece_is_not_copied() -> None:
    """Most bodies come in one piece, and calls that keep theirs share it."""
    piece, pieces = b"a" * 100, Pieces()
    pieces.add(piece)
    assert pieces.joined() is piece
