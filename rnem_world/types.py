"""Names for the tensors that travel between modules.

Shapes are written in jaxtyping's strings: b batch, t time, k slot, d feature, n world or sequence or ball as said
beside it, c h w channel, height and width. The tests check every annotated function at run time.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["training", "validation", "test"]
SPLITS: tuple[Split, ...] = ("training", "validation", "test")

Precision = Literal["float32", "tf32", "bf16"]
