"""Tokenizers of our own for CLIP's text encoder."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from transformers import CLIPTokenizer


def letters(words: Iterable[str] = (), length: int = 77) -> CLIPTokenizer:
    """CLIP's tokenizer where every letter is a token, so no word is unknown.

    Args:
        words: Words that become one token each.
        length: Tokens of a chunk, its first and last among them.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    spelled = [chr(code) for code in printable]
    spelled += [chr(256 + i) for i in range(256 - len(spelled))]  # GPT-2's names for other bytes
    pairs = merges(words)
    tokens = [*spelled, *(letter + "</w>" for letter in spelled), *(a + b for a, b in pairs)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=length)


def merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """The merges of byte pair encoding (Sennrich et al. 2016) that make each word one token."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    pairs: list[tuple[str, str]] = []
    while counts := Counter(pair for word in spelled for pair in pairwise(word)):
        best = max(sorted(counts), key=counts.__getitem__)
        pairs.append(best)
        spelled = [_merged(word, best) for word in spelled]
    return pairs


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    symbols: list[str] = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return symbols
