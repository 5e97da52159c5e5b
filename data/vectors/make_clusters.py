"""Makes clusters.json: the clusters of clients by SciPy's average linkage, from Gram matrices.

The cut is the one of 2 to min(n - 1, 32) clusters with the largest mean silhouette, and a single cluster if that is below
0.25. SciPy makes the tree and the cuts; the silhouettes are NumPy code of this script, by Rousseeuw's definition.
"""

import json

import numpy as np
import scipy
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

LEAST, MOST = 0.25, 32


def silhouette(distances, labels):
    found = []
    for i, own in enumerate(labels):
        others = labels == own
        others[i] = False
        if not others.any():
            found.append(0.0)
            continue
        a = distances[i][others].mean()
        b = min(distances[i][labels == other].mean() for other in set(labels) - {own})
        found.append((b - a) / max(a, b))
    return float(np.mean(found))


def clusters(gram):
    n = len(gram)
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(norms, norms)
    distances = 1 - cosines
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    cuts = {}
    for k in range(2, min(n - 1, MOST) + 1):
        labels = fcluster(tree, k, "maxclust")
        assert len(set(labels)) == k
        cuts[k] = (silhouette(distances, labels), labels)
    ranked = sorted((cut[0] for cut in cuts.values()), reverse=True)
    # No result depends on the last bits.
    assert len(ranked) < 2 or ranked[0] - ranked[1] > 1e-9
    assert abs(ranked[0] - LEAST) > 1e-9
    best, labels = max(cuts.values(), key=lambda cut: cut[0])
    if best < LEAST:
        labels = np.ones(n, int)
    order = list(dict.fromkeys(labels.tolist()))
    members = np.array([order.index(label) + 1 for label in labels])
    pairs = [(i, j) for i in range(n) for j in range(i)]
    inside = [cosines[i, j] for i, j in pairs if members[i] == members[j]]
    between = [cosines[i, j] for i, j in pairs if members[i] != members[j]]
    return {
        "members": members.tolist(),
        "silhouette": best,
        "inside": float(np.mean(inside)) if inside else None,
        "between": float(np.mean(between)) if between else None,
    }


def updates(rng, groups, width, noise):
    """Clients of groups with one direction each, a direction that all share, and noise; in random order and lengths."""
    shared, own = rng.standard_normal(width), rng.standard_normal((len(groups), width))
    rows = [shared / 2 + own[g] + noise * rng.standard_normal(width) for g, size in enumerate(groups) for _ in range(size)]
    return np.array(rows)[rng.permutation(len(rows))] * rng.lognormal(0, 1, (len(rows), 1))


def main():
    rng = np.random.default_rng(11)
    rounds = []
    for groups in [[3], [5], [2, 2], [4, 3], [8, 1], [5, 5, 5], [12, 4, 2], [1] * 9, [6, 5, 4, 3, 2, 1], [2] * 20]:
        for noise in [0.3, 1.0, 3.0]:
            rows = updates(rng, groups, 24, noise)
            # The digits of an f32 are enough.
            gram = np.array([[float(f"{x:.7g}") for x in row] for row in rows @ rows.T])
            rounds.append({"groups": groups, "noise": noise, "gram": gram.tolist(), **clusters(gram)})
    print({len(set(r["members"])) for r in rounds}, [len(set(r["members"])) for r in rounds])
    with open("clusters.json", "w") as file:
        made_with = json.dumps({"numpy": np.__version__, "scipy": scipy.__version__})
        lines = ",\n  ".join(json.dumps(r, separators=(",", ":")) for r in rounds)
        file.write('{\n"made_with": ' + made_with + ',\n"rounds": [\n  ' + lines + "\n]\n}\n")


main()
