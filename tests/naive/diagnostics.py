"""Slow, obvious twins of the diagnostics: explicit loops, explicit matrices, no reuse of the package's formulas."""

import itertools
import math

import numpy as np


def covariance(rows):
    """Sample covariance, ddof 1, entry by entry."""
    n, d = rows.shape
    mean = [sum(rows[i, a] for i in range(n)) / n for a in range(d)]
    out = np.zeros((d, d))
    for a in range(d):
        for b in range(d):
            out[a, b] = sum((rows[i, a] - mean[a]) * (rows[i, b] - mean[b]) for i in range(n)) / (n - 1)
    return out


def gap_length(states, positive):
    up = np.mean([row for row, p in zip(states, positive, strict=True) if p], axis=0)
    down = np.mean([row for row, p in zip(states, positive, strict=True) if not p], axis=0)
    return math.sqrt(sum((u - v) ** 2 for u, v in zip(up, down, strict=True)))


def all_relabellings(states, positives):
    """D under every labelling with that many positives."""
    n = len(states)
    return [
        gap_length(states, [i in chosen for i in range(n)]) for chosen in itertools.combinations(range(n), positives)
    ]


def psi_norm(values, alpha):
    """Bisection on the definition."""
    low, high = 1e-12, 1e6 * max(abs(v) for v in values)
    for _ in range(300):
        middle = math.sqrt(low * high)
        terms = [(abs(v) / middle) ** alpha for v in values]
        total = math.inf if max(terms) > 700 else sum(math.exp(t) for t in terms) / len(values)
        low, high = (low, middle) if total <= 2 else (middle, high)
    return high


def flat_features(states, chosen, rejected, vocabulary):
    """φ of each pair as a full vocabulary × d matrix, flattened."""
    rows = []
    for g, w, lost in zip(states, chosen, rejected, strict=True):
        phi = np.zeros((vocabulary, len(g)))
        phi[w] += g
        phi[lost] -= g
        rows.append(phi.ravel())
    return np.array(rows)


def off_diagonal_mean(phi):
    n = len(phi)
    return sum(float(phi[i] @ phi[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))


def swap_deviation(phi):
    """Standard deviation over random swaps of the sum of the off-diagonal kernel, by all 2^n sign vectors."""
    n = len(phi)
    found = []
    for signs in itertools.product([-1, 1], repeat=n):
        found.append(sum(signs[i] * signs[j] * float(phi[i] @ phi[j]) for i in range(n) for j in range(n) if i != j))
    return float(np.std(found)), found


def ridge_scores(rows, targets, asked, penalties, intercept):
    """Ridge by explicit inverse, hat matrix and generalised cross-validation; rows centred if intercept. Scores and the
    penalty that was chosen."""
    n, d = rows.shape
    mean = targets.mean() if intercept else 0.0
    best, scores, chosen = math.inf, None, None
    for penalty in sorted(penalties, reverse=True):
        inverse = np.linalg.inv(rows.T @ rows + penalty * np.eye(d))
        hat = rows @ inverse @ rows.T + (np.ones((n, n)) / n if intercept else 0.0)
        residual = targets - hat @ targets
        error = float(residual @ residual) / (n - np.trace(hat)) ** 2
        if error < best:
            best, scores, chosen = error, asked @ inverse @ rows.T @ (targets - mean) + mean, penalty
    return scores, chosen


def held_out(rows, signs, fold, units, intercept, thresholds=True):
    """Scores of every pair by the fit on the other folds, and the threshold of its fold.

    The threshold lies halfway between the mean scores that the two classes have where each training pair is left out
    and the rest fitted anew, one by one, at the same penalty; not asked for, it is 0.
    """
    scores, threshold = np.zeros(len(fold)), np.zeros(len(fold))
    for held in sorted(set(fold)):
        fit, test = [i for i in range(len(fold)) if fold[i] != held], [i for i in range(len(fold)) if fold[i] == held]
        centre = rows[fit].mean(axis=0) if intercept else np.zeros(rows.shape[1])
        known, asked = rows[fit] - centre, rows[test] - centre
        scale = np.sqrt((known**2).mean(axis=0))
        scale[scale == 0] = 1.0
        known, asked = known / scale, asked / scale
        gram = np.linalg.eigvalsh(known.T @ known)
        penalties = [gram[gram > 1e-12 * gram.max()].mean() * unit for unit in units]
        scores[test], penalty = ridge_scores(known, signs[fit], asked, penalties, intercept)
        if intercept and thresholds:
            left_out = [refit_without(known, signs[fit], place, penalty) for place in range(len(fit))]
            up = [score for score, sign in zip(left_out, signs[fit], strict=True) if sign > 0]
            down = [score for score, sign in zip(left_out, signs[fit], strict=True) if sign < 0]
            threshold[test] = (sum(up) / len(up) + sum(down) / len(down)) / 2
    return scores, threshold


def refit_without(rows, targets, place, penalty):
    """Score of one row by ridge regression on the others, its intercept without penalty."""
    kept = [i for i in range(len(rows)) if i != place]
    columns = np.column_stack([np.ones(len(kept)), rows[kept]])
    shrink = penalty * np.diag([0.0] + [1.0] * rows.shape[1])
    weights = np.linalg.solve(columns.T @ columns + shrink, columns.T @ targets[kept])
    return float(weights[0] + rows[place] @ weights[1:])


def contests(scores, signs, fold, pairs):
    """(i, j, 1 or 0 or one half) of every contest within a fold: a positive against a negative, or, of `pairs`, each
    against every other's swapped self."""
    for i in range(len(scores)):
        for j in range(len(scores)):
            if fold[i] == fold[j] and i != j and (pairs or signs[i] > 0 > signs[j]):
                other = -signs[j] * scores[j] if pairs else scores[j]
                own = signs[i] * scores[i] if pairs else scores[i]
                yield i, j, 1.0 if own > other else 0.5 if own == other else 0.0


def area(scores, signs, fold, pairs):
    """Share of contests that are won."""
    won = [win for _, _, win in contests(scores, signs, fold, pairs)]
    return sum(won) / len(won)


def area_error(scores, signs, fold, pairs, unit, shared):
    """Each contest's surprise goes to the units of both who take part; what a unit gathers is squared."""
    found = list(contests(scores, signs, fold, pairs))
    mean = sum(win for _, _, win in found) / len(found)
    gathered = dict.fromkeys(unit, 0.0)
    for i, j, win in found:
        gathered[unit[i]] += (win - mean) / len(found)
        gathered[unit[j]] += (win - mean) / len(found)
    count = len(gathered)
    return shared * math.sqrt(count / (count - 1) * sum(value**2 for value in gathered.values()))


def probe(rows, signs, fold, units, intercept):
    """Held-out accuracy, of both classes alike, and area."""
    scores, threshold = held_out(rows, signs, fold, units, intercept)
    right = {1.0: [], -1.0: []}
    for score, limit, sign in zip(scores, threshold, signs, strict=True):
        right[float(sign)].append(1.0 if (score - limit) * sign > 0 else 0.5 if score == limit else 0.0)
    shares = [sum(each) / len(each) for each in right.values() if each]
    return sum(shares) / len(shares), area(scores, signs, fold, not intercept)


def drawn_areas(rows, drawn, fold, units, intercept):
    """The area under each of some other labellings, fitted and judged by them."""
    found = []
    for signs in drawn:
        scores, _ = held_out(rows, signs, fold, units, intercept, thresholds=False)
        found.append(area(scores, signs, fold, not intercept))
    return found


def priority(phi, weight, group, m):
    """Levels and pairwise gaps from explicit group sums."""
    sums = [sum(w * p for p, w, g in zip(phi, weight, group, strict=True) if g == code) for code in range(m)]
    mass = [sum(w for w, g in zip(weight, group, strict=True) if g == code) for code in range(m)]
    means = [s / w for s, w in zip(sums, mass, strict=True)]

    def levels(codes):
        overall = sum(sums[c] for c in codes) / sum(mass[c] for c in codes)
        largest = max(np.linalg.norm(means[c]) for c in codes)
        return {c: float(overall @ means[c] / (np.linalg.norm(overall) * largest)) for c in codes}

    level = levels(range(m))
    gaps = np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            if i != j:
                two = levels([i, j])
                gaps[i, j] = two[i] - two[j]
    return np.array([level[c] for c in range(m)]), gaps


def pushes(phi, weight, group, held_out, beta, rate):
    """Agreement, group agreement and influence, pair by pair."""
    n, m = len(phi), max(group) + 1
    total = sum(w for w, h in zip(weight, held_out, strict=True) if not h)
    agreement, own = np.zeros(n), np.zeros(n)
    influence = np.zeros((m, m))
    size = [sum(1 for g, h in zip(group, held_out, strict=True) if g == code and not h) for code in range(m)]
    for i in range(n):
        for j in range(n):
            if held_out[j]:
                continue
            push = rate * beta**2 / total * 0.5 * weight[j] * float(phi[i] @ phi[j])
            if not held_out[i]:
                influence[group[j], group[i]] += push / size[group[i]]
            if i != j:
                agreement[i] += push
                if group[i] == group[j]:
                    own[i] += push
    return agreement, own, influence


def log_prob(states, head):
    """log-softmax of every row, token by token."""
    logits = states @ head.T
    out = np.zeros_like(logits)
    for i, row in enumerate(logits):
        top = max(row)
        out[i] = row - top - math.log(sum(math.exp(z - top) for z in row))
    return out


def mean_cosines(rows, group, m, *, self_pairs):
    out = np.full((m, m), np.nan)
    for a in range(m):
        for b in range(m):
            found = [
                float(rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])))
                for i in range(len(rows))
                for j in range(len(rows))
                if group[i] == a and group[j] == b and (self_pairs or i != j)
            ]
            out[a, b] = sum(found) / len(found) if found else math.nan
    return out


def holm(p_values):
    """Step down, smallest first."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, (len(p_values) - place) * p_values[i])
        out[i] = min(1.0, worst)
    return out
