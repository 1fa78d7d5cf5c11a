"""Densities of cells: each takes training and test cells, and gives the log-probability of test rows.

``independent``: shares of cells. ``products``: a mixture of products, by EM, until a tenth held out falls.
``forest``: arfpy's adversarial forest; a leaf's share times the shares of its cells within the leaf's bounds,
the mean over trees. ``chain``: a boosted classifier a column given those before it; one of many cells goes to
it in groups, with the shares of cells within a group. Shares are smoothed by half a row, or by those of all
rows.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from mixed.cells import Cells

LEAST = 20  # rows of a group


def shares(cells: np.ndarray, size: int) -> np.ndarray:
    counts = np.bincount(cells, minlength=size) + 0.5
    return counts / counts.sum()


def independent(cells: Cells, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return sum(np.log(shares(train[:, j], size))[test[:, j]] for j, size in enumerate(cells.sizes))


def products(cells: Cells, train: np.ndarray, test: np.ndarray, seed: int, rounds: int = 200) -> np.ndarray:
    """Parts and smoothing are chosen by the tenth, too."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *cells.sizes[:-1]])
    prior = np.concatenate([shares(train[:, j], size) for j, size in enumerate(cells.sizes)])[:, None]

    def hot(rows: np.ndarray) -> sparse.csr_array:
        ends = np.arange(0, rows.size + 1, rows.shape[1])
        return sparse.csr_array((np.ones(rows.size), (rows + starts).ravel(), ends), (len(rows), len(prior)))

    held = rng.random(len(train)) < 0.1
    fit, valid, given = hot(train[~held]), hot(train[held]), hot(test)
    best = (-np.inf, np.empty(0))
    for parts, rows in product((30, 100, 300), (1, 10)):
        owner, last = rng.dirichlet(np.full(parts, 0.1), size=fit.shape[0]), -np.inf
        for step in range(rounds):
            counts = fit.T @ owner + rows * prior
            table = np.log(counts / np.repeat(np.add.reduceat(counts, starts), cells.sizes, axis=0))
            weights = np.log(owner.mean(0) + 1e-12)
            if step % 5 == 4:
                now = logsumexp(valid @ table + weights, axis=1).mean()
                if now < last + 1e-3:
                    break
                last = now
                if now > best[0]:
                    best = now, logsumexp(given @ table + weights, axis=1)
            owner = fit @ table + weights
            owner = np.exp(owner - logsumexp(owner, axis=1, keepdims=True))
    return best[1]


def forest(
    cells: Cells,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    trees: int = 10,
    least: int = 20,
    rounds: int = 3,
) -> np.ndarray:
    import pandas as pd

    np.in1d = np.isin  # arfpy 0.1.1 calls it so, and NumPy 2.4 has dropped the name
    from arfpy.arf import arf

    np.random.seed(seed)
    frame = pd.DataFrame(train, columns=[f"x{j}" for j in range(train.shape[1])])
    grown = arf(
        frame, num_trees=trees, min_node_size=least, max_iters=rounds, verbose=False, random_state=seed
    )
    found = []
    for tree in grown.clf.estimators_:
        lower, upper = bounds(tree.tree_, cells.sizes)
        ours, theirs = leaves(tree.tree_, train), leaves(tree.tree_, test)
        count = np.bincount(ours, minlength=len(lower))
        log_p = np.log(np.maximum(count[theirs], 0.5) / len(train))
        for j, size in enumerate(cells.sizes):
            share = shares(train[:, j], size)
            total = np.r_[0, np.cumsum(share)]
            room = (total[upper[:, j]] - total[lower[:, j]])[theirs]
            pairs, hits = np.unique(ours * size + train[:, j], return_counts=True)
            wanted = theirs * size + test[:, j]
            at = np.clip(np.searchsorted(pairs, wanted), 0, len(pairs) - 1)
            here = np.where(pairs[at] == wanted, hits[at], 0)
            log_p += np.log((here + share[test[:, j]] / room) / (count[theirs] + 1))
        found.append(log_p)
    return logsumexp(found, axis=0) - np.log(len(found))


def leaves(tree: object, rows: np.ndarray) -> np.ndarray:
    """Of each row, going down the children as arfpy has pruned them."""
    node = np.zeros(len(rows), int)
    while True:
        going = tree.children_left[node] >= 0
        if not going.any():
            return node
        left = rows[np.arange(len(rows)), np.maximum(tree.feature[node], 0)] <= tree.threshold[node]
        node = np.where(going, np.where(left, tree.children_left[node], tree.children_right[node]), node)


def bounds(tree: object, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each node, the cells it may hold: from lower to, not including, upper."""
    lower = np.zeros((len(tree.feature), len(sizes)), int)
    upper = np.tile(sizes, (len(tree.feature), 1))
    waiting = [0]
    while waiting:
        node = waiting.pop()
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            continue
        for child in {left, right}:
            lower[child], upper[child] = lower[node], upper[node]
            waiting.append(child)
        if left != right:  # a node whose other child was pruned splits nothing
            j, cut = tree.feature[node], int(np.floor(tree.threshold[node])) + 1
            upper[left, j] = min(cut, upper[left, j])
            lower[right, j] = max(cut, lower[right, j])
    return lower, upper


def chain(cells: Cells, train: np.ndarray, test: np.ndarray, seed: int, groups: int = 32) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier

    log_p = np.zeros(len(test))
    for j, size in enumerate(cells.sizes):
        share = shares(train[:, j], size)
        group = grouped(train[:, j], size, groups, cells.ordered[j])
        of_group = np.bincount(group, weights=share)
        log_p += np.log(share / of_group[group])[test[:, j]]
        labels = group[train[:, j]]
        if j == 0 or len(of_group) == 1:
            log_p += np.log(of_group)[group[test[:, j]]]
            continue
        nominal = [not cells.ordered[i] and cells.sizes[i] <= 255 for i in range(j)]
        booster = HistGradientBoostingClassifier(
            categorical_features=nominal,
            early_stopping=True,
            n_iter_no_change=5,
            l2_regularization=1,
            max_leaf_nodes=15,
            random_state=seed,
        ).fit(train[:, :j], labels)
        learnt = 0.999 * booster.predict_proba(test[:, :j]) + 0.001 * of_group  # no cell is impossible
        log_p += np.log(learnt[np.arange(len(test)), group[test[:, j]]])
    return log_p


def grouped(values: np.ndarray, size: int, groups: int, ordered: bool) -> np.ndarray:
    """The group of each cell: neighbors of about equal share, or the most frequent and all others."""
    counts = np.bincount(values, minlength=size)
    order = np.arange(size) if ordered else np.argsort(-counts, kind="stable")
    most = LEAST if size <= groups or not ordered else max(LEAST, len(values) / groups)
    found, now, held = np.zeros(size, int), 0, 0
    for place, cell in enumerate(order):
        found[cell] = now
        held += counts[cell]
        if held >= most and counts[order[place + 1 :]].sum() >= LEAST and now < groups - 1:
            now, held = now + 1, 0
    return found


BASELINES = {"independent": independent, "products": products, "forest": forest, "chain": chain}
