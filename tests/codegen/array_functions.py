"""Small functions that together need every way in which array code reads, computes and writes."""

import numpy as np

from odec.graph.function import Function
from odec.graph.node import input_node
from odec.graph.trace import call_model, unwrap, wrap

FUNCTIONS = {}  # name -> (function, shapes of its arguments by name, dtype)


def arguments(dtype="float64", **shapes):
    """Decorator: put a function in the table, with the shapes of its arguments."""

    def register(function):
        FUNCTIONS[function.__name__] = (function, shapes, dtype)
        return function

    return register


def traced(function, shapes, dtype="float64"):
    """The Function of a plain function of named arrays; outputs out, out1, ..."""
    inputs = {name: input_node(name, shape, dtype) for name, shape in shapes.items()}
    result = call_model(function, function.__name__, tuple(map(wrap, inputs.values())), dtype)
    results = result if isinstance(result, tuple) else (result,)
    return Function(function.__name__, inputs, {f"out{k or ''}": unwrap(r) for k, r in enumerate(results)})


# ---- views ---------------------------------------------------------------------------------------------


@arguments(y=(4, 5))
def view_of_view(y):
    return y.T[::-1, 1:3] * 2.0, y[1:, ::2].T[1], y[::-2, ::-1]


@arguments(y=(4, 6))
def reshape_of_transpose(y):
    return np.tanh(y.T).reshape(3, 8) + 1.0, y.T.reshape(-1)


@arguments(y=(4, 6))
def reshape_of_broadcast(y):
    return (y + y[0]).reshape(-1) * 2, (y[:, :1] + y[0]).reshape(2, 12)


@arguments(y=(24,))
def reshape_and_flip(y):
    grid = y.reshape(4, 6)
    return np.sin(grid[:, ::-1] + y[:6]).reshape(24), y[::-1].reshape(4, 6) * 2, y[3:19].reshape(4, 4).T + y[0]


@arguments(y=(5, 6))
def reshape_across_rows(y):
    return (y[:, 1:4] * 2).reshape(3, 5), y[1:4].reshape(2, 9)


@arguments(y=(7,))
def gathers(y):
    first = y[np.array([3, 1, 1, 6, 0])]
    return first * y[np.array([0, 0, 2, 3, 4])], first[np.array([4, 4, 0])], (y * y)[np.array([2, 5, 2])], y[3] + y


@arguments(y=(4, 5))
def gather_of_view(y):
    return np.sin(y.T)[np.array([0, 2, 2]), np.array([1, 3, 0])] + y.T[::2][np.array([0, 2, 1])].sum(axis=1)


@arguments(y=(6, 3), x=(5, 2, 3))
def gathers_of_rows(y, x):
    rows = y[np.array([3, 1, 1, 5])]
    turned = y[:, ::-1][np.array([0, 2, 2, 4])] * rows
    blocks = x[np.array([4, 0, 1])] + x[np.array([2, 2, 3]), ::-1]
    return rows - turned, np.tanh(y[np.array([0, 5, 3])]), blocks * 2.0, y.T[np.array([2, 0])] + 1.0, rows[:, 1]


@arguments(x=(70, 3), y=(70,))
def additions_at_rows(x, y):
    runs = np.repeat(np.arange(4), [31, 0, 20, 19])
    wide, flat, few = np.zeros_like(x[:4]), np.zeros_like(y[:4]), np.zeros_like(x)
    np.add.at(wide, runs, x * y[:, None])
    np.subtract.at(flat, runs, np.exp(y))
    np.add.at(few, runs[::-1], x)
    return wide, flat, few


# ---- assembling ------------------------------------------------------------------------------------------


@arguments(y=(3, 4), x=(3, 2))
def concatenation(y, x):
    return np.concatenate([np.sin(y), x, y[:, :1] * x], axis=1), np.concatenate([y, y * 2, x.T @ y])


@arguments(y=(3, 4))
def many_pieces(y):
    joined = np.concatenate([y[:1], y[1:2] * 2, y[2:], y, y[::-1], np.exp(y)])
    return joined * joined, joined[::-2]


@arguments(y=(9,))
def updates(y):
    d = np.zeros_like(y)
    d[2:4] = y[:2]
    d[0] = 3.0
    d[::4] = y[4] * 2
    d[1] += d[2]
    return d


@arguments(y=(9,))
def update_of_values(y):
    d = y * 2
    d[1:-1] = np.exp(y[2:])
    e = d + 1
    e[3] = d[2]
    e[::-3] = y[:3]
    return e, d


@arguments(y=(5, 6))
def update_with_holes(y):
    d = np.ones_like(y)
    d[::2, ::2] = y[::2, ::2]
    return d, d * y


@arguments(y=(5, 6))
def laplacian(y):
    d = np.zeros_like(y)
    d[1:-1, 1:-1] = y[2:, 1:-1] + y[:-2, 1:-1] + y[1:-1, 2:] + y[1:-1, :-2] - 4 * y[1:-1, 1:-1]
    return d, d * y


@arguments(y=(7,))
def rolls(y):
    return np.roll(y, 1) - 2 * y + np.roll(y, -1), np.roll(y, 3)[::-1], np.tanh(np.roll(y, 2)[1:])


@arguments(y=(6, 8))
def rolls_of_grid(y):
    moved = np.roll(y, 1, axis=0) + np.roll(y, -1, axis=0) + np.roll(y, 1, axis=1) + np.roll(y, -1, axis=1)
    return moved - 4 * y, np.roll(y, 1, axis=0).reshape(-1) * 2


# ---- reductions --------------------------------------------------------------------------------------------


@arguments(y=(3, 40))
def sums(y):
    return y.sum(), y.sum(axis=0), np.sin(y).sum(axis=1), (y.T * 2).sum(axis=0), y[:, ::2].sum(), y[:, :3].sum(axis=1)


@arguments(y=(2, 3, 20))
def sums_of_three_axes(y):
    return y.sum(axis=(0, 2)), y.sum(axis=1), y.sum(axis=(0, 1)), np.exp(y).sum(axis=(1, 2)), y.sum(axis=2)


@arguments(y=(3, 4))
def running_sums(y):
    return np.cumsum(y, axis=0), np.cumsum(np.sin(y), axis=1), np.cumsum(y), np.cumsum(y.T[::-1], axis=0)


@arguments(y=(6,))
def running_sum_of_pieces(y):
    return np.cumsum(np.roll(np.tanh(y), 2)), np.roll(y, 1).sum()


# ---- linear algebra ------------------------------------------------------------------------------------------


@arguments(y=(3, 4), w=(4, 5))
def small_products(y, w):
    return y @ w, w.T @ y.T, y @ w[:, 0], y[0] @ w, y[1] @ y[0]


@arguments(y=(30, 40), w=(40, 50))
def large_products(y, w):
    tail = y[:, 5:] @ w[:35, 3:43]
    flipped = w.T[2:] @ np.tanh(y).T
    return y @ w, (w.T @ y.T) * 2, tail, flipped, y[::-1] @ w, y @ np.concatenate([w, w], axis=1)[:, ::2]


@arguments(y=(40, 50), v=(50,))
def products_with_vectors(y, v):
    return y @ v, v @ y.T, y.T @ y[:, 3], (y.T @ y @ v) + v


@arguments(y=(3, 30, 20), w=(20, 30), b=(3, 20, 9))
def stacked_products(y, w, b):
    return y @ w, y @ b, np.transpose(y, (0, 2, 1)) @ y, y[:, :2] @ b


@arguments(y=(30, 30))
def products_in_place(y):
    z = np.tanh(y @ y)
    return np.concatenate([(z * y).reshape(-1), (z @ y).reshape(-1)]), np.concatenate([z @ z, y], axis=1)


@arguments(y=(20, 30), w=(32, 40), v=(2,))
def products_with_repeated_rows(y, w, v):
    joined = np.concatenate([y, np.full((20, 1), v[0]), np.broadcast_to(v[1:], (20, 1))], axis=1)
    alike, columns = np.broadcast_to(w[:, 0], (9, 32)), np.broadcast_to(v[:1], (12, 20))
    return joined @ w, joined.T @ np.sin(y), alike @ w, alike.T @ np.cos(y[:9]), columns @ y, columns.T @ y[:12]


@arguments(y=(20, 30), w=(30, 40))
def products_read_in_parts(y, w):
    z, whole = y @ w, w @ w.T
    sums = (np.sin(y) @ w).sum(axis=0)
    return np.tanh(z[:, :10]), z[:5, 12:].sum(axis=0), sums, whole[:20], whole[10:], y[:, :1] @ w[:1]


@arguments(t=(), z=(64, 5), w1=(6, 128), b1=(128,), w2=(128, 5))
def layers(t, z, w1, b1, w2):
    return np.tanh(np.concatenate([z, np.full((64, 1), t)], axis=1) @ w1 + b1) @ w2 + z.sum(axis=0)


@arguments(z=(64, 5), w1=(5, 128), w2=(128, 5))
def rows_that_meet(z, w1, w2):
    u = z @ w1
    v = np.tanh(u) * u.sum(axis=0)
    return (u[::-1] * u) @ w2, v @ w2, np.cumsum(u, axis=0) @ w2, v.reshape(128, 64).T @ w2, v[1:] @ w2 + z[:-1]


@arguments(a=(3, 3), b=(3, 2), c=(8, 8), d=(8, 3), v=(8,))
def systems(a, b, c, d, v):
    a, c = a + 9 * np.eye(3), c + 9 * np.eye(8)
    det = np.linalg.det
    return np.linalg.solve(a, b), np.linalg.solve(c, d), np.linalg.solve(c.T, v), det(a), det(c), det(c[::-1])


# ---- constants, choices, numbers -------------------------------------------------------------------------------


@arguments(y=(4, 5))
def choices(y):
    both = (y > 0) & (y.sum() < 100.0)
    keep, far = np.array([True, False, True, True, False]), np.sin(y) > 0.2
    return (
        np.where(both, np.sqrt(np.abs(y)), -y),
        np.where(keep, y, 0.0),
        np.where(far, y, 1.0).sum(axis=0),
        2.0 * far[::-1],
    )


@arguments(y=(6, 7))
def constants(y):
    grid = np.linspace(0, 1, 42).reshape(7, 6).T
    return y * np.arange(7.0) + np.arange(6.0)[:, None] - grid, np.arange(14.0).reshape(2, 7) @ y.T, grid[::2] + y[1]


@arguments(y=(40,))
def constant_matrix(y):
    matrix = np.cos(np.arange(1600.0)).reshape(40, 40)
    return matrix @ y, matrix @ (y * matrix), y + matrix[3]


@arguments(y=(300,))
def shared_values(y):
    v = np.tanh(y)
    return v[1:] * v[:-1], 1 - v * v, (y * y)[2:] - (y * y)[:-2]


@arguments(y=(5,), p=(3,))
def numbers(y, p):
    a = np.sin(p[0]) * p[1]
    b = np.exp(a) + y[2]
    return a * y + b, np.stack([a, b, y[0] * b]), y.sum() * a, b


@arguments(y=(3,))
def repeated_outputs(y):
    return y, y[::-1], np.zeros(3) + 1.0 * y[0], y, y * 2, y * 2, np.zeros(2) + 0.0 * y[0]


@arguments(y=(33,))
def functions(y):
    return np.abs(y) ** 1.7 + y**3, np.hypot(y, 1.0), np.arctan2(y, y[::-1]), np.where(y > 0, np.exp(y), y)


@arguments(dtype="float32", y=(30, 40), w=(40, 30), a=(8, 8))
def single_precision(y, w, a):
    a = a + 9 * np.eye(8, dtype=np.float32)
    sums = np.tanh(y @ w).sum(axis=0), y.sum(), np.cumsum(y, axis=1) * 2
    return *sums, np.linalg.solve(a, a[0]), np.linalg.det(a), np.sin(y)


# ---- random compositions ---------------------------------------------------------------------------------------


def composed(seed, length=12):
    """A function of y and x that applies `length` random steps, each to values that earlier ones gave."""

    def composition(y, x):
        random, values = np.random.default_rng(seed), [y, x]
        for _ in range(length):
            a, b = (values[k] for k in random.integers(len(values), size=2))
            step = STEPS[random.integers(len(STEPS))]
            result = step(random, a, b) if a.ndim else np.sin(a) * 2.0
            if result is not None and 0 < result.size < 2_000:
                values.append(result * 0.5)
        return tuple(values[2:][-3:]) or (y * 2.0,)

    return composition


def _update(random, a, b):
    result, start = a * 1.0, int(random.integers(a.shape[0]))
    result[start:] = np.sin(a[start:]) if random.random() < 0.5 else 3.0
    return result


def _slice(random, a, b):
    steps = random.choice([-2, -1, 1, 2], size=a.ndim)
    return a[tuple(slice(int(random.integers(n)), None, int(s)) for n, s in zip(a.shape, steps, strict=True))]


def _divided(random, a, b):
    rows = random.choice([n for n in range(1, a.size + 1) if a.size % n == 0])
    return a.reshape(int(rows), -1)


def _product(random, a, b):
    if a.ndim == 2 == b.ndim and a.shape[1] in b.shape:
        return a @ b if a.shape[1] == b.shape[0] else a @ b.T
    return None


def _combined(random, a, b):
    if a.shape != b.shape and b.ndim:
        return None
    return np.where(a > b, a, b * b) if random.random() < 0.5 else a + b


STEPS = (
    _update, _slice, _divided, _product, _combined,
    lambda random, a, b: np.tanh(a),
    lambda random, a, b: np.roll(a, int(random.integers(-2, 3)), axis=int(random.integers(a.ndim))),
    lambda random, a, b: a.T,
    lambda random, a, b: a.reshape(-1),
    lambda random, a, b: np.concatenate([a, b, a[:1]]) if a.shape[1:] == b.shape[1:] and b.ndim == a.ndim else None,
    lambda random, a, b: a.sum(axis=int(random.integers(a.ndim))),
    lambda random, a, b: np.cumsum(a, axis=int(random.integers(a.ndim))),
    lambda random, a, b: a.reshape(-1)[random.integers(a.size, size=5)],
)  # fmt: skip
