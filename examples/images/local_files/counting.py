"""A module beside the program that its functions import."""


def count_words(text: str) -> int:
    return len(text.split())
