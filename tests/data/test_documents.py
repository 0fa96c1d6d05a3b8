"""Cutting loses nothing; order and side of a document follow from its content alone."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.data.documents import VALIDATION_SHARE, Texts, arrange, cut, split

prose = st.text(st.sampled_from("ab \n\té"), max_size=400)


@given(text=prose, size=st.integers(1, 50))
def test_pieces_join_to_the_text(text: str, size: int) -> None:
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert all(pieces)
    for piece in pieces:  # too long only where one line is
        assert len(piece) <= size or len(piece.splitlines()) == 1 or not piece.strip("\n \t")


def test_pieces_end_at_blank_lines_where_these_are() -> None:
    text = "one\ntwo\n\nthree\n   \nfour\n\nfive"
    assert list(cut(text, 18)) == ["one\ntwo\n\n", "three\n   \nfour\n\n", "five"]
    assert list(cut(text, 9)) == ["one\ntwo\n\n", "three\n   \n", "four\n\n", "five"][:1] + list(cut(text[9:], 9))


def test_paragraphs_too_long_are_cut_at_line_ends() -> None:
    assert list(cut("aaaa\nbbbb\ncccccccccccccc\ndd\n", 10)) == ["aaaa\nbbbb\n", "cccccccccccccc\n", "dd\n"]


def documents_of(texts: Texts) -> tuple[list[bytes], list[bytes]]:
    return split(texts.train), split(texts.validation)


NUMBERED = [f"document number {index}" for index in range(4000)]


def test_order_and_sides_do_not_depend_on_how_documents_came() -> None:
    texts = arrange(NUMBERED)
    assert arrange(reversed(NUMBERED)) == texts
    assert arrange(NUMBERED + NUMBERED[:7] + ["", " \n", "\n" + NUMBERED[0] + "\n"]) == texts
    train, validation = documents_of(texts)
    assert sorted(train + validation) == sorted(document.encode() for document in NUMBERED)


def test_five_percent_are_for_validation() -> None:
    train, validation = documents_of(arrange(NUMBERED))
    deviation = (VALIDATION_SHARE * (1 - VALIDATION_SHARE) * len(NUMBERED)) ** 0.5
    assert abs(len(validation) - VALIDATION_SHARE * len(NUMBERED)) < 3.5 * deviation
    assert not set(train) & set(validation)


def test_more_documents_move_none_to_the_other_side() -> None:
    train, validation = documents_of(arrange(NUMBERED[:1000]))
    more_train, more_validation = documents_of(arrange(NUMBERED))
    assert set(train) <= set(more_train)
    assert set(validation) <= set(more_validation)
    assert [document for document in more_train if document in set(train)] == train  # nor change their order


def test_a_beginning_is_a_random_sample() -> None:
    train, validation = documents_of(arrange(NUMBERED))
    for side in (train[: len(train) // 4], validation):
        numbers = [int(document.split()[-1]) for document in side]
        error = len(NUMBERED) / (12 * len(numbers)) ** 0.5
        assert abs(sum(numbers) / len(numbers) - len(NUMBERED) / 2) < 3.5 * error


def test_the_side_is_fixed_by_the_content_hash() -> None:
    def is_validation(document: str) -> bool:
        last = hashlib.blake2b(document.encode(), digest_size=16).digest()[-4:]
        return int.from_bytes(last, "big") / 2**32 < VALIDATION_SHARE

    expected = {document.encode() for document in NUMBERED if is_validation(document)}
    assert set(split(arrange(NUMBERED).validation)) == expected


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], r"0 documents for training and 0 for validation, expected at least one each \(5% go to validation"),
        (["alone"], r"1 documents for training and 0 for validation|0 documents for training and 1 for validation"),
        ([*NUMBERED, "zero \0 inside"], r"a document contains byte 0, which separates documents: b'zero "),
    ],
)
def test_texts_that_cannot_be_divided_are_refused(documents: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arrange(documents)
