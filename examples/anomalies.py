"""Anomaly scores from a table: rows that are odd only as combinations.

python examples/anomalies.py
"""

import numpy as np
from sklearn.metrics import roc_auc_score

import diffeo
from diffeo.tables import Table, score_table

rng = np.random.default_rng(0)


def machine(rows: int) -> dict[str, np.ndarray]:
    """Readings of a motor: load drives current and vibration, each by a law of its own."""
    load = rng.beta(2, 2, rows)
    current = 2 + 8 * load + rng.normal(0, 0.5, rows)
    vibration = np.exp(np.sin(6 * load)) * rng.lognormal(0, 0.1, rows)
    return {"load": load, "current": current, "vibration": vibration}


normal = Table.from_columns(machine(3000))
good, other = machine(950), machine(50)
# Fifty faults: the vibration of some other moment. Each column alone looks as it always does.
other["vibration"] = rng.permutation(other["vibration"])
mixed = Table.from_columns({name: np.concatenate([good[name], other[name]]) for name in good})
is_fault = np.arange(1000) >= 950

columns = {"load": "bounded(0, 1)", "vibration": "positive"}
flow, report = diffeo.fit_table(normal, columns=columns, max_seconds=7)
print("held-out nats per row:", ", ".join(f"{name} {nats:.2f}" for name, nats in report.baselines.items()))

scores = score_table(flow, mixed)
log_prob = scores.log_prob
print(f"ROC-AUC of the flow: {roc_auc_score(is_fault, -log_prob):.3f}")
for name in mixed.names:
    values = mixed.column(name)
    far = np.abs(values - normal.column(name).mean()) / normal.column(name).std()
    print(f"  by the distance of {name} alone: {roc_auc_score(is_fault, far):.3f}")

print("the five oddest rows (the last 50 of 1000 are faults):")
for row in np.argsort(log_prob)[:5]:
    rarer = 1 - scores.quantile[row]
    print(f"  row {row + 1:4d}: log p {log_prob[row]:8.2f}, lower than {rarer:.1%} of the training rows")
