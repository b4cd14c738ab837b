"""8-bit pixels to a network's images and back as ONNX: `p2p.batch.from_frames` and `to_frames`, step by step.

ONNX rounds half to even, as torch does.
"""

from __future__ import annotations

FRAMES = "uint8[batch, rows, columns, CHANNELS] frames_NHWC"
IMAGES = "DTYPE[batch, CHANNELS, rows, columns] images_NCHW"
TO_IMAGES = """
<float half = {127.5}, float one = {1.0}> {
    levels = Cast<to = 1>(frames_NHWC)
    shares = Div(levels, half)
    signed = Sub(shares, one)
    images = Transpose<perm = [0, 3, 1, 2]>(signed)
    images_NCHW = Cast<to = ELEMENT>(images)
}"""
TO_FRAMES = """
<float half = {127.5}, float one = {1.0}, float black = {0.0}, float white = {255.0}> {
    images = Cast<to = 1>(images_NCHW)
    positive = Add(images, one)
    levels = Mul(positive, half)
    whole = Round(levels)
    clipped = Clip(whole, black, white)
    pixels = Cast<to = 2>(clipped)
    frames_NHWC = Transpose<perm = [0, 2, 3, 1]>(pixels)
}"""
ELEMENTS = {"float32": ("float", 1), "float16": ("float16", 10), "bfloat16": ("bfloat16", 16)}  # TensorProto.DataType


def to_images(channels: int, dtype: str) -> bytes:
    """A model: uint8 (N, H, W, C) `frames_NHWC` -> `images_NCHW` in [-1, 1], in a dtype such as "float16"."""
    return _model(f"({FRAMES}) => ({IMAGES})" + TO_IMAGES, channels, dtype)


def to_frames(channels: int, dtype: str) -> bytes:
    """The way back: `images_NCHW`, clipped -> `frames_NHWC`."""
    return _model(f"({IMAGES}) => ({FRAMES})" + TO_FRAMES, channels, dtype)


def _model(text: str, channels: int, dtype: str) -> bytes:
    from onnx import checker, parser

    name, element = ELEMENTS[dtype]
    for word, value in {"CHANNELS": channels, "DTYPE": name, "ELEMENT": element}.items():
        text = text.replace(word, str(value))
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> convert {text}')
    checker.check_model(model, full_check=True)
    return model.SerializeToString()
