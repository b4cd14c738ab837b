"""Names of floating-point formats."""

from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EIGHT_BITS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}  # of inner layers, in backends that have them


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that a name stands for.

    Raises:
        ValueError: there is none.
    """
    if precision not in DTYPES:
        hint = ", or backend=triton" if precision in EIGHT_BITS else ""
        raise ValueError(f"backend.precision={precision} is not known here: use fp16, bf16 or fp32{hint}")
    return DTYPES[precision]


def described(dtype: torch.dtype, example: torch.Tensor) -> dict[str, Any]:
    """`dtype` and `precision` of the `Program` that computes in `dtype` and takes what is like `example`."""
    if example.is_floating_point():
        return {"dtype": str(dtype).removeprefix("torch."), "precision": None}
    return {
        "dtype": str(example.dtype).removeprefix("torch."),
        "precision": next(name for name, known in DTYPES.items() if known == dtype),
    }
