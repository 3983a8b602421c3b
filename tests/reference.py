"""The papers' equations as slow float64 loops, written from the text and from nothing else here."""

import numpy as np


def distance(x_D, y_D, p=2.0):
    """L_p norm of the difference (Deep kNN, below equation 1); inf: its largest entry."""
    if p == np.inf:
        return float(np.max(np.abs(x_D - y_D)))
    return float(np.sum(np.abs(x_D - y_D) ** p) ** (1.0 / p))


def distance_gradient(x_D, y_D, p=2.0):
    """Derivative of `distance` by its first argument; 0 where the two are equal."""
    d = distance(x_D, y_D, p)
    if d == 0:
        return np.zeros_like(x_D)
    delta = x_D - y_D
    return np.sign(delta) * (np.abs(delta) / d) ** (p - 1)


def nearest(x, i, allowed, k, p=2.0, furthest=False):
    """The k nearest (or furthest) of the `allowed` rows to row i; ties to the lower index."""
    sign = -1 if furthest else 1
    return sorted(allowed, key=lambda j: (sign * distance(x[i], x[j], p), j))[:k]


def triplets(x, labels, ids, where, k, m, p, hard):
    """All (anchor, positive, negative) of a batch."""
    rows = [i for i in range(len(x)) if where[i]]
    for i in rows:
        same = [j for j in rows if labels[j] == labels[i] and ids[j] != ids[i]]
        other = [j for j in rows if labels[j] != labels[i]]
        for positive in nearest(x, i, same, 1 if hard else k, p, furthest=hard):
            for negative in nearest(x, i, other, 1 if hard else m, p):
                yield i, positive, negative


def triplet_loss(x, labels, *, k=5, m=5, margin, p=2.0, ids=None, where=None, hard=False):
    """Loss and gradient: equations 1-3 of Deep kNN; with `hard`, batch-hard triplets."""
    x = np.asarray(x, np.float64)
    ids = range(len(x)) if ids is None else ids
    where = [True] * len(x) if where is None else where
    loss, gradient, count = 0.0, np.zeros_like(x), 0
    for a, b, c in triplets(x, labels, ids, where, k, m, p, hard):
        count += 1
        term = distance(x[a], x[b], p) + margin - distance(x[a], x[c], p)
        if term > 0:
            loss += term
            near, far = distance_gradient(x[a], x[b], p), distance_gradient(x[a], x[c], p)
            gradient[a] += near - far
            gradient[b] -= near
            gradient[c] += far
    return (loss / count, gradient / count) if count else (0.0, gradient)


def neighbors(queries, gallery, k, p=2.0, skip=lambda q, g: False):
    """Distances and indices [Q, k] of the nearest gallery rows that `skip` leaves; inf and -1."""
    distances = np.full((len(queries), k), np.inf)
    indices = np.full((len(queries), k), -1)
    for q in range(len(queries)):
        found = sorted(
            (distance(queries[q], gallery[g], p), g) for g in range(len(gallery)) if not skip(q, g)
        )
        for place, (d, g) in enumerate(found[:k]):
            distances[q, place], indices[q, place] = d, g
    return distances, indices


def vote(distances, labels, num_classes):
    """Label and shares of one query: majority, then the nearer voters in sum, then the label."""
    votes, total = np.zeros(num_classes), np.zeros(num_classes)
    for d, label in zip(distances, labels, strict=True):
        if label >= 0:
            votes[label] += 1
            total[label] += d
    if not votes.any():
        return -1, votes
    best = min(range(num_classes), key=lambda c: (-votes[c], total[c], c))
    return best, votes / votes.sum()


def weighted_vote(distances, labels, counts, power=0.0, temperature=0.0):
    """Label and shares of one query: votes of n_c^-power exp(-d^2 / temperature); ties as `vote`.

    Sums within 1e-6 of the largest tie with it.
    """
    C = len(counts)
    votes, total = np.zeros(C), np.zeros(C)
    voting = [(float(d), c) for d, c in zip(distances, labels, strict=True) if c >= 0]
    for d, c in voting:
        nearest = min(other for other, _ in voting)
        near = 1.0 if d == nearest or not temperature else np.exp((nearest**2 - d**2) / temperature)
        votes[c] += near * float(max(counts[c], 1)) ** -power
        total[c] += d
    if not votes.any():
        return -1, votes
    leading = [c for c in range(C) if votes[c] >= votes.max() * (1 - 1e-6) and c in labels]
    return min(leading, key=lambda c: (total[c], c)), votes / votes.sum()


def cross_entropy(logits, labels, weights):
    """Weighted mean of -log softmax: sum of w l over sum of w."""
    total = weight = 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        total += weights[label] * (np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[label])
        weight += weights[label]
    return total / weight


def log_sum_exp(values):
    """Stable log of a sum of exponentials."""
    top = max(values)
    return top + np.log(np.sum(np.exp(np.subtract(values, top))))


def nca_loop(x, labels, *, temperature=1.0, log=False, ids=None, where=None):
    """Loss and gradient of NCA (Goldberger et al. 2004): the mean of -p_i, or of -log p_i."""
    x = np.asarray(x, np.float64)
    ids = range(len(x)) if ids is None else ids
    rows = [i for i in range(len(x)) if where is None or where[i]]
    loss, gradient, count = 0.0, np.zeros_like(x), 0
    for i in rows:
        score = {j: -(distance(x[i], x[j]) ** 2) / temperature for j in rows if ids[j] != ids[i]}
        same = {j: score[j] for j in score if labels[j] == labels[i]}
        if not same:
            count += not log  # p_i is 0, its logarithm is left out
            continue
        count += 1
        of_same, of_all = log_sum_exp(list(same.values())), log_sum_exp(list(score.values()))
        p = np.exp(of_same - of_all)
        loss -= of_same - of_all if log else p
        for j in score:
            among_same = np.exp(score[j] - of_same) if j in same else 0.0
            slope = (among_same - np.exp(score[j] - of_all)) * (1.0 if log else p) / temperature
            gradient[i] += 2 * slope * (x[i] - x[j])
            gradient[j] -= 2 * slope * (x[i] - x[j])
    return (loss / count, gradient / count) if count else (0.0, gradient)


def soft_deep_knn_loop(
    x, labels, *, k, m, temperature, margin, each_positive=False, ids=None, where=None, weights=None
):
    """Loss and gradient of deep kNN's soft form on squared distances; k, m of 0 are all.

    A weighted mean over the anchors that have a positive; `weights` by anchor.
    """
    x = np.asarray(x, np.float64)
    ids = range(len(x)) if ids is None else ids
    rows = [i for i in range(len(x)) if where is None or where[i]]
    loss, gradient, total = 0.0, np.zeros_like(x), 0.0
    for i in rows:
        same = [j for j in rows if labels[j] == labels[i] and ids[j] != ids[i]]
        other = [j for j in rows if labels[j] != labels[i]]
        near, far = nearest(x, i, same, k or len(x)), nearest(x, i, other, m or len(x))
        weight = 1.0 if weights is None else weights[i]
        total += weight if near else 0.0
        groups = [[j] for j in near] if each_positive else [near]
        for group in groups if near and far else []:
            scores = {j: -(distance(x[i], x[j]) ** 2) / temperature for j in (*group, *far)}
            below, above = (log_sum_exp([scores[j] for j in those]) for those in (group, far))
            gap = above - below + margin / temperature
            loss += weight * temperature * log_sum_exp([0.0, gap]) / len(groups)
            slope = weight * np.exp(gap - log_sum_exp([0.0, gap])) / len(groups)
            for those, top, sign in ((group, below, 1.0), (far, above, -1.0)):
                for j in those:
                    step = 2 * sign * slope * np.exp(scores[j] - top) * (x[i] - x[j])
                    gradient[i] += step
                    gradient[j] -= step
    return (loss / total, gradient / total) if total else (0.0, gradient)


def lmnn_loop(x, labels, targets, *, mu=0.5, margin=1.0, ids=None, where=None):
    """Loss and gradient of LMNN (Weinberger and Saul 2009): weighted sums of pull and push."""
    x = np.asarray(x, np.float64)
    ids = list(range(len(x))) if ids is None else list(ids)
    rows = [i for i in range(len(x)) if where is None or where[i]]
    loss, gradient = 0.0, np.zeros_like(x)
    for i in rows:
        positives = [j for j in rows if labels[j] == labels[i] and ids[j] != ids[i]]
        impostors = [c for c in rows if labels[c] != labels[i]]
        for target in targets[i]:
            found = [j for j in positives if ids[j] == target]
            if not found:
                continue
            near = x[i] - x[found[0]]
            loss += (1 - mu) * near @ near
            slope = 1 - mu
            for c in impostors:
                far = x[i] - x[c]
                term = margin + near @ near - far @ far
                if term > 0:
                    loss += mu * term
                    slope += mu
                    gradient[i] -= 2 * mu * far
                    gradient[c] += 2 * mu * far
            gradient[i] += 2 * slope * near
            gradient[found[0]] -= 2 * slope * near
    return loss, gradient


# Survival


def cox_loop(log_hazards, times, events, where=None):
    """Negative log Cox partial likelihood and its gradient, Breslow's ties, a mean over events."""
    h = np.asarray(log_hazards, np.float64)
    rows = [i for i in range(len(h)) if where is None or where[i]]
    died = [i for i in rows if events[i]]
    loss, gradient = 0.0, np.zeros_like(h)
    for i in died:
        at_risk = [j for j in rows if times[j] >= times[i]]
        total = log_sum_exp([h[j] for j in at_risk])
        loss += total - h[i]
        gradient[i] -= 1
        for j in at_risk:
            gradient[j] += np.exp(h[j] - total)
    return (loss / len(died), gradient / len(died)) if died else (0.0, gradient)


def concordance_loop(log_hazards, times, events):
    """Harrell's C: of all pairs of which one is known to have died first."""
    good, pairs = 0.0, 0
    for i in range(len(times)):
        for j in range(len(times)):
            outlived = times[j] > times[i] or (times[j] == times[i] and not events[j])
            if events[i] and outlived:
                pairs += 1
                difference = log_hazards[i] - log_hazards[j]
                good += 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
    return good / pairs


# Neighborhood Watch


def watch_loop(near, far, margins, weights, *, valid=None, pushed=None, reduction="mean"):
    """The objective of section 3 and its derivatives by D_ap [A, K] and D_an [A, M].

    `weights`: w_lm, w_ms, w_md, w_ss, w_sd; `valid`: which D count at all; `pushed`: which anchors
    the hinge counts.
    """
    (size, k), m = near.shape, far.shape[1]
    valid_near, valid_far = valid or (np.ones((size, k), bool), np.ones((size, m), bool))
    w_lm, w_ms, w_md, w_ss, w_sd = weights
    hinge, count = 0.0, 0
    by_near, by_far = np.zeros((size, k)), np.zeros((size, m))
    for a, i, j in np.ndindex(size, k, m):
        if valid_near[a, i] and valid_far[a, j] and (pushed is None or pushed[a]):
            count += 1
            term = near[a, i] - far[a, j] + margins[a]
            if term > 0:
                hinge += term
                by_near[a, i] += 1
                by_far[a, j] -= 1
    scale = w_lm / max(count, 1) if reduction == "mean" else w_lm
    loss, slopes = scale * hinge, []
    for d, there, slope, w_mean, w_variance in (
        (near, valid_near, by_near, w_ms, w_ss),
        (far, valid_far, by_far, -w_md, w_sd),
    ):
        values = [d[place] for place in np.ndindex(d.shape) if there[place]]
        if values:
            average = sum(values) / len(values)
            loss += w_mean * average
            loss += w_variance * sum((v - average) ** 2 for v in values) / len(values)
            inner = (w_mean + w_variance * 2 * (d - average)) / len(values)
            slopes.append(scale * slope + np.where(there, inner, 0.0))
        else:
            slopes.append(scale * slope)
    return loss, *slopes


def watch_triplets_loop(x, anchors, positives, negatives, margins, weights, **options):
    """`watch_loop` of listed triplets, rows of x and -1 for none, and its derivative by x.

    Options `squared`, `p` are of the distance, the rest are `watch_loop`'s.
    """
    x = np.asarray(x, np.float64)
    squared, p = options.pop("squared", False), options.pop("p", 2.0)
    lists = positives, negatives
    distances, valid = [], []
    for listed in lists:
        d = np.zeros(listed.shape)
        for a, i in np.ndindex(listed.shape):
            d[a, i] = distance(x[anchors[a]], x[listed[a, i]], p) if listed[a, i] >= 0 else 0.0
        distances.append(d**2 if squared else d)
        valid.append(listed >= 0)
    loss, *slopes = watch_loop(*distances, margins, weights, valid=tuple(valid), **options)
    gradient = np.zeros_like(x)
    for listed, slope in zip(lists, slopes, strict=True):
        for a, i in np.ndindex(listed.shape):
            if listed[a, i] >= 0:
                one, other = x[anchors[a]], x[listed[a, i]]
                inner = 2 * distance(one, other, p) if squared else 1.0
                step = slope[a, i] * inner * distance_gradient(one, other, p)
                gradient[anchors[a]] += step
                gradient[listed[a, i]] -= step
    return loss, gradient


def kth_positive_loop(x, labels, k, p=2.0, squared=False):
    """d_{a,k+}: distance to the k-th nearest other of the class, or the furthest there is; 0."""
    x = np.asarray(x, np.float64)
    found = np.zeros(len(x))
    for a in range(len(x)):
        others = sorted(
            distance(x[a], x[i], p) for i in range(len(x)) if i != a and labels[i] == labels[a]
        )
        if others:
            found[a] = others[min(k, len(others)) - 1]
    return found**2 if squared else found


def watch_choices(neighbors, labels, a, *, mine):
    """What algorithm 1 may draw for anchor a: positives, negatives, and whether each is as asked.

    The positive is as asked outside N_{a,k}, the negative inside; without `mine` all are.
    """
    everyone = range(len(labels))
    positives = {i for i in everyone if i != a and labels[i] == labels[a]}
    negatives = {i for i in everyone if labels[i] != labels[a]}
    if not mine:
        return positives, negatives, bool(positives), bool(negatives)
    near = {int(i) for i in neighbors[a] if i >= 0}
    outside, local = positives - near, negatives & near
    return outside or positives, local or negatives, bool(outside), bool(local)


def area_under_roc(scores, positive, weights):
    """Share of (positive, negative) pairs in the right order, ties half; NaN without a pair."""
    won = pairs = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if positive[i] and not positive[j]:
                pair = weights[i] * weights[j]
                pairs += pair
                won += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / pairs if pairs else np.nan


def figures_of_draw(labels, predicted, scores, units, weights, classes):
    """acc, mcr, of each class sensitivity, specificity and AUC; units count `weights` times."""
    own = [weights[unit] for unit in units]
    n = len(labels)
    right = sum(own[i] for i in range(n) if labels[i] == predicted[i])
    by_class = []
    for c in range(classes):
        count = {(t, p): 0.0 for t in (True, False) for p in (True, False)}
        for i in range(n):
            count[labels[i] == c, predicted[i] == c] += own[i]
        there, rest = (count[t, True] + count[t, False] for t in (True, False))
        by_class.append((
            count[True, True] / there if there else np.nan,
            count[False, False] / rest if rest else np.nan,
            area_under_roc(scores[:, c], [label == c for label in labels], own),
        ))  # fmt: skip
    recalls = [each[0] for each in by_class if not np.isnan(each[0])]
    return right / sum(own), sum(recalls) / len(recalls), by_class
