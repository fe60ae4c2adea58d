"""Rewrites Metal text so that clang reads it as Metal's compiler does.

Three things of Metal look like C++ and mean something else there, or nothing:

* ``half4(...)`` and ``(half4)x`` convert; clang's cast of vectors reinterprets, or is an error.
  Both become calls of ``metal::construct<half4>``.
* ``(device half4*)x`` may not change the address space; clang lets it. It becomes a call of
  ``metal::cast_pointer<device half4*>``, which refuses to.
* ``threadgroup half tile[64];`` in a function is memory of the threadgroup; it becomes a static
  variable of ``emu.h``'s kind.
"""

from __future__ import annotations

import re

_SPACES = ("device", "threadgroup", "constant", "thread")
_QUALIFIERS = ("volatile", "const")
_SCALARS = "half|float|char|uchar|short|ushort|int|uint|long|ulong"
_VECTOR = re.compile(rf"(?:{_SCALARS})[234]")
_TOKEN = re.compile(
    r"\s+|//[^\n]*|/\*.*?\*/|\#[^\n]*"
    r"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\w*|\w+|->|.",
    re.DOTALL,
)
_PREFIXES = ("*", "&", "-", "+", "!", "~")
_CLOSING = {"(": ")", "[": "]"}


def rewrite(text: str) -> str:
    """The text with casts, vector constructors and threadgroup variables replaced."""
    return _Rewriter(_TOKEN.findall(text)).run()


class _Rewriter:
    """Walks over the tokens; every method leaves ``at`` behind what it returned."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.statement = True  # does a statement begin here?

    def run(self) -> str:
        parts = []
        while self.at < len(self.tokens):
            parts.append(self._next())
        return "".join(parts)

    def _next(self) -> str:
        word = self.tokens[self.at]
        if _is_blank(word):
            return self._take()
        begins, self.statement = self.statement, word in {";", "{", "}"}
        if begins and word == "threadgroup":
            return "static EMU_SHARED " + self._take()
        if _VECTOR.fullmatch(word) and self._peek(1) == "(":
            self.at += 1
            return f"metal::construct<{word}>"
        cast = self._cast()
        if cast is not None:
            return cast
        return self._take()

    def _take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def _peek(self, distance: int) -> str:
        place = self.at + distance
        return self.tokens[place] if place < len(self.tokens) else ""

    def _cast(self) -> str | None:
        """A cast to a vector or a pointer with an address space, as a call."""
        if self.tokens[self.at] != "(":
            return None
        end = self.at + 1
        while end < len(self.tokens) and self.tokens[end] not in {"(", ")", ";", "{"}:
            end += 1
        words = [word for word in self.tokens[self.at + 1 : end] if not _is_blank(word)]
        function = _cast_function(words)
        if function is None or end >= len(self.tokens) or self.tokens[end] != ")":
            return None
        self.at = end + 1
        return f"({function}({self._operand()}))"

    def _operand(self) -> str:
        """A unary expression: what a cast in front of it applies to."""
        blank = ""
        while _is_blank(self.tokens[self.at]):
            blank += self._take()
        if self.tokens[self.at] in _PREFIXES:
            return blank + self._take() + self._operand()
        cast = self._cast()
        if cast is not None:
            return blank + cast
        first = self._bracketed() if self.tokens[self.at] == "(" else self._next()
        parts = [blank, first]
        if self._peek(0) == "<" and first.endswith("as_type"):
            while self._peek(-1) != ">":
                parts.append(self._take())
        while self._peek(0) in {"(", "[", ".", "->"}:
            if self._peek(0) in _CLOSING:
                parts.append(self._bracketed())
            else:
                parts += [self._take(), self._take()]
        return "".join(parts)

    def _bracketed(self) -> str:
        closing = _CLOSING[self.tokens[self.at]]
        parts = [self._take()]
        while self.tokens[self.at] != closing:
            parts.append(self._bracketed_inside())
        return "".join(parts) + self._take()

    def _bracketed_inside(self) -> str:
        cast = self._cast()
        if cast is not None:
            return cast
        return self._bracketed() if self.tokens[self.at] in _CLOSING else self._next()


def _is_blank(token: str) -> bool:
    return token.isspace() or token.startswith(("//", "/*", "#"))


def _cast_function(words: list[str]) -> str | None:
    """The call that stands for a cast to this type, if it is one of those that need it."""
    if len(words) == 1 and _VECTOR.fullmatch(words[0]):
        return f"metal::construct<{words[0]}>"
    stars = [word for word in words if word == "*"]
    plain = [word for word in words if word not in _QUALIFIERS and word != "*"]
    pointer = bool(stars) and words[-len(stars) :] == stars
    if pointer and len(plain) == 2 and plain[0] in _SPACES and plain[1].isidentifier():
        return f"metal::cast_pointer<{' '.join(words)}>"
    return None
