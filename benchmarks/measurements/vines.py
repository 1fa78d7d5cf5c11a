"""Vine copulas of pyvinecopulib on the five comparison tables: mean test nats per row, as `tables` has them.

    .bench/tables/bin/python benchmarks/measure.py vines --data DIR [--names galaxies ...]

Margins by kernels, pairs by local likelihood (`tll`), the family that is best on so many rows; nothing else
is set. ``out`` counts test rows to which the vine gives no density: the mean is over the others.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator

import kit
import numpy as np

from measurements import Measurement
from measurements.tables import NAMES


def rows(asked: Namespace) -> Iterator[kit.Row]:
    import pyvinecopulib as vines

    for name in asked.names:
        train, test = (table.values for table in kit.tables(asked, name))
        start = time.perf_counter()
        controls = vines.FitControlsVinecop(family_set=[vines.families.tll], num_threads=asked.threads)
        score = vines.Vinedist.from_data(train, controls=controls).logpdf(test)
        took = round(time.perf_counter() - start, 1)
        found = kit.mean_and_error(score[np.isfinite(score)], 3)
        yield {"table": name, **found, "out": int((~np.isfinite(score)).sum()), "seconds": took}


MEASUREMENT = Measurement(__doc__, rows, {"data": ...}, {"--names": NAMES})
