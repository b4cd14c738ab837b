"""Large images in tiles: read and written some rows at a time, where `p2p.pipelines.row_files` can.

Whole frames take the place of what does not allow it: of JPEG, which is decoded at once, say, of a PNG file that is to
be written, or of what is in a store.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from p2p.data.pairs import Pair
from p2p.pipelines.files import Failure
from p2p.pipelines.row_files import source_of, target_of, writes_rows
from p2p.pipelines.stages import Stages


def translate(pair: Pair, stages: Stages, *, batch_size: int) -> None:
    """Load, translate and save an image in tiles. If it cannot be done, that ends up in `stages.failures`."""
    files = stages.files
    try:
        with ExitStack() as stack:
            source = stack.enter_context(source_of(pair, files))
            frame_HWC = files.load(pair, stages.clock)[0] if source is None else source
            height, width, _ = frame_HWC.shape
            shape = height, width, stages.engine.manifest.output_shape[0]
            if writes_rows(files):
                stages.fill([frame_HWC], [stack.enter_context(target_of(pair, files, shape))], batch_size=batch_size)
            else:
                output_HWC = np.empty(shape, files.output_dtype)
                stages.fill([frame_HWC], [output_HWC], batch_size=batch_size)
                files.save(pair, output_HWC, (height, width), stages.clock)
    except Failure as error:
        stages.fail(pair, *error.args)
    else:
        stages.on_image()
