"""Write the keys and values of new tokens to their places in the pages of a KV cache.

TVM's own kernel asks whether a token has a place before it asks whether the token exists, so threads
beyond the last token read past the end of the table of places. Here the guard comes first.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgec.models.kv_cache import PAGE_SIZE


def append_to_pages(kv_heads: int, head_dim: int, dtype: str) -> Any:
    """The PrimFunc ``(pages, keys, values, places)``, without a schedule.

    Args:
        kv_heads: key-value heads.
        head_dim: size of one head.
        dtype: of keys and values.

    Returns:
        ``pages`` is ``(pages, 2, kv_heads, 16, head_dim)``, keys and values are
        ``(tokens, kv_heads, head_dim)``, ``places`` int32 ``(tokens,)``: page times 16 plus the
        place in the page, or -1 for a token that isn't kept.
    """

    @T.prim_func(private=True, s_tir=True)
    def append(
        pages_handle: T.handle, keys_handle: T.handle, values_handle: T.handle, places: T.handle
    ):
        T.func_attr({"tirx.noalias": True})
        tokens = T.int64()
        count = T.int64()
        pages_offset = T.int64()
        places_offset = T.int64()
        pages = T.match_buffer(
            pages_handle,
            (count, T.int64(2), T.int64(kv_heads), T.int64(PAGE_SIZE), T.int64(head_dim)),
            dtype,
            elem_offset=pages_offset,
        )
        keys = T.match_buffer(keys_handle, (tokens, T.int64(kv_heads), T.int64(head_dim)), dtype)
        values = T.match_buffer(
            values_handle, (tokens, T.int64(kv_heads), T.int64(head_dim)), dtype
        )
        place = T.match_buffer(places, (tokens,), "int32", elem_offset=places_offset)
        for token, head, feature in T.grid(tokens, T.int64(kv_heads), T.int64(head_dim)):
            with T.sblock("append"):
                t, h, f = T.axis.remap("SSS", [token, head, feature])
                T.reads(place[t], keys[t, h, f], values[t, h, f])
                T.writes(
                    pages[place[t] // PAGE_SIZE, 0, h, place[t] % PAGE_SIZE, f],
                    pages[place[t] // PAGE_SIZE, 1, h, place[t] % PAGE_SIZE, f],
                )
                if place[t] != -1:
                    pages[place[t] // PAGE_SIZE, 0, h, place[t] % PAGE_SIZE, f] = keys[t, h, f]
                    pages[place[t] // PAGE_SIZE, 1, h, place[t] % PAGE_SIZE, f] = values[t, h, f]

    return append
