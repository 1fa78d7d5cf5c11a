"""The report of a fit to a table: what it says of the flow."""

from __future__ import annotations

import math

from diffeo.tables import TableReport
from diffeo.train import FitReport


def report(flow: float, held_out: int = 50, gaussian: float = 0.0, mixture: float = 1.0) -> TableReport:
    training = FitReport((), 1.0, 100, 90, -3.0, flow, 0, "out of time")
    baselines = {"flow": flow, "gaussian": gaussian, "mixture": mixture}
    scores = {"rows": 3, "values": [-9.0, -3.0, -1.0]}
    return TableReport(training, 500, held_out, baselines, scores, 1.5)


def test_the_verdict_is_honest():
    assert "beats the better of the two by 0.500" in report(1.5).verdict
    assert "0.500 nats per row below the mixture" in report(0.5).verdict
    assert "1.500 nats per row below the Gaussian" in report(0.5, gaussian=2.0).verdict
    assert "nothing to compare" in report(math.nan).verdict
    assert "nothing to compare" in report(1.0, gaussian=math.nan, mixture=math.inf).verdict
    for flow in (0.5, 1.5, 100.0):
        assert report(flow, 49).verdict == "49 held-out rows are too few to tell which is better."
    assert report(9.0, 1).verdict.startswith("1 held-out row is too few to tell")


def test_notes_are_plain_and_finite():
    notes = report(0.5, mixture=-math.inf).notes()
    assert notes["held out"] == {"flow": 0.5, "gaussian": 0.0}
    assert (notes["rows"], notes["steps"], notes["seconds"]) == (500, 100, 1.5)
