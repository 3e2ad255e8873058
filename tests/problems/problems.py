"""Right-hand sides of the reference initial-value problems, y' = f(t, y, p).

Plain functions, nothing but numpy's elementary functions:

    f(t, y, p) -> list of n values

``y`` is any indexable of length n, ``p`` any indexable with the parameter values in the
order in which they stand in the problem's JSON record.  The functions use only + - * / **
with small integer exponents and np.{sqrt,exp,sin,cos,tanh,log}; there is no branching on
values, so they can also be traced: numpy calls ``x.sin()`` and the like on an object that
is no number.

``RHS[name]`` gives f; families that depend on a size have ``make_*`` factories, and
``load()`` pairs the JSON records with their functions.
"""

import json
import os

import numpy as np

# --------------------------------------------------------------------------------------
# Nonstiff: dynamics and mechanics
# --------------------------------------------------------------------------------------


def lorenz(t, y, p):
    sigma, rho, beta = p
    return [
        sigma * (y[1] - y[0]),
        y[0] * (rho - y[2]) - y[1],
        y[0] * y[1] - beta * y[2],
    ]


def arenstorf(t, y, p):
    """Planar restricted three-body problem in the rotating frame; y = (x, y, x', y')."""
    mu = p[0]
    mup = 1 - mu
    d1 = (y[0] + mu) ** 2 + y[1] ** 2
    d2 = (y[0] - mup) ** 2 + y[1] ** 2
    r1 = d1 * np.sqrt(d1)
    r2 = d2 * np.sqrt(d2)
    return [
        y[2],
        y[3],
        y[0] + 2 * y[3] - mup * (y[0] + mu) / r1 - mu * (y[0] - mup) / r2,
        y[1] - 2 * y[2] - mup * y[1] / r1 - mu * y[1] / r2,
    ]


def pleiades(t, y, p):
    """Seven stars in the plane; y = (x1..x7, y1..y7, x1'..x7', y1'..y7'), p = masses."""
    n = 7
    ax = [0] * n
    ay = [0] * n
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            dx = y[j] - y[i]
            dy = y[n + j] - y[n + i]
            d = dx**2 + dy**2
            w = p[j] / (d * np.sqrt(d))
            ax[i] = ax[i] + w * dx
            ay[i] = ay[i] + w * dy
    return [y[2 * n + i] for i in range(2 * n)] + ax + ay


def nbody3d(t, y, p):
    """Newtonian N bodies in space; y = positions (x1,y1,z1,x2,...) then velocities;
    p = (G, m1, ..., mN)."""
    n = len(p) - 1
    acc = [0] * (3 * n)
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            d = [y[3 * j + k] - y[3 * i + k] for k in range(3)]
            r2 = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
            w = p[0] * p[1 + j] / (r2 * np.sqrt(r2))
            for k in range(3):
                acc[3 * i + k] = acc[3 * i + k] + w * d[k]
    return [y[3 * n + i] for i in range(3 * n)] + acc


def three_body_planar(t, y, p):
    """Three bodies in the plane; y = (x1,y1,x2,y2,x3,y3, velocities), p = masses, G = 1."""
    acc = [0] * 6
    for i in range(3):
        for j in range(3):
            if i == j:
                continue
            dx = y[2 * j] - y[2 * i]
            dy = y[2 * j + 1] - y[2 * i + 1]
            d = dx**2 + dy**2
            w = p[j] / (d * np.sqrt(d))
            acc[2 * i] = acc[2 * i] + w * dx
            acc[2 * i + 1] = acc[2 * i + 1] + w * dy
    return [y[6 + i] for i in range(6)] + acc


def kepler(t, y, p):
    """Two-body problem in the plane, gravitational parameter p[0]; also DETEST class D."""
    d = y[0] ** 2 + y[1] ** 2
    w = p[0] / (d * np.sqrt(d))
    return [y[2], y[3], -w * y[0], -w * y[1]]


def pendulum(t, y, p):
    """p = (g, L); y = (angle, angular velocity)."""
    g, length = p
    return [y[1], -(g / length) * np.sin(y[0])]


# --------------------------------------------------------------------------------------
# Nonstiff: DETEST (Hull, Enright, Fellen, Sedgwick 1972; Enright & Pryce 1987)
# --------------------------------------------------------------------------------------


def detest_a1(t, y, p):
    return [-y[0]]


def detest_a2(t, y, p):
    return [-(y[0] ** 3) / 2]


def detest_a3(t, y, p):
    return [y[0] * np.cos(t)]


def detest_a4(t, y, p):
    return [y[0] / 4 * (1 - y[0] / 20)]


def detest_a5(t, y, p):
    return [(y[0] - t) / (y[0] + t)]


def detest_b1(t, y, p):
    """Growth of two conflicting populations."""
    return [2 * (y[0] - y[0] * y[1]), -(y[1] - y[0] * y[1])]


def detest_b3(t, y, p):
    """A nonlinear chemical reaction."""
    return [-y[0], y[0] - y[1] ** 2, y[1] ** 2]


def detest_b5(t, y, p):
    """Euler's equations of a rigid body; p = (0.51,)."""
    return [y[1] * y[2], -y[0] * y[2], -p[0] * y[0] * y[1]]


def detest_c1(t, y, p):
    """A radioactive decay chain, n = 10."""
    n = len(y)
    return [-y[0]] + [y[i - 1] - y[i] for i in range(1, n - 1)] + [y[n - 2]]


def detest_c5(t, y, p):
    """Five outer planets about the sun, heliocentric; y = (x1,y1,z1, ... z5, velocities);
    p = (k2, m0, m1, ..., m5)."""
    k2, m0 = p[0], p[1]
    m = [p[2 + j] for j in range(5)]
    pos = [[y[3 * j + k] for k in range(3)] for j in range(5)]

    def inv_cube(v):
        d = v[0] ** 2 + v[1] ** 2 + v[2] ** 2
        return 1 / (d * np.sqrt(d))

    ir3 = [inv_cube(pos[j]) for j in range(5)]
    acc = []
    for j in range(5):
        a = [-(m0 + m[j]) * pos[j][k] * ir3[j] for k in range(3)]
        for i in range(5):
            if i == j:
                continue
            diff = [pos[i][k] - pos[j][k] for k in range(3)]
            id3 = inv_cube(diff)
            for k in range(3):
                a[k] = a[k] + m[i] * (diff[k] * id3 - pos[i][k] * ir3[i])
        acc += [k2 * a[k] for k in range(3)]
    return [y[15 + i] for i in range(15)] + acc


def detest_e1(t, y, p):
    """Derived from Bessel's equation of order 1/2."""
    s = t + 1
    return [y[1], -(y[1] / s + (1 - 0.25 / s**2) * y[0])]


def detest_e2(t, y, p):
    """Van der Pol's equation with mu = 1."""
    return [y[1], (1 - y[0] ** 2) * y[1] - y[0]]


# --------------------------------------------------------------------------------------
# Nonstiff: biology and a neural network
# --------------------------------------------------------------------------------------


def lotka_volterra(t, y, p):
    a, b, c, d = p
    return [a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]]


def sir(t, y, p):
    beta, gamma, total = p
    infection = beta * y[0] * y[1] / total
    return [-infection, infection - gamma * y[1], gamma * y[1]]


def fitzhugh_nagumo(t, y, p):
    a, b, tau, current = p
    return [y[0] - y[0] ** 3 / 3 - y[1] + current, (y[0] + a - b * y[1]) / tau]


def hodgkin_huxley(t, y, p):
    """Squid axon; y = (V, m, h, n) in mV, ms.  The rates alpha_m and alpha_n have removable
    singularities at V = -40 and V = -55, which the solution crosses."""
    c, g_na, g_k, g_l, e_na, e_k, e_l, current = p
    v, m, h, n = y
    a_m = 0.1 * (v + 40) / (1 - np.exp(-(v + 40) / 10))
    b_m = 4 * np.exp(-(v + 65) / 18)
    a_h = 0.07 * np.exp(-(v + 65) / 20)
    b_h = 1 / (1 + np.exp(-(v + 35) / 10))
    a_n = 0.01 * (v + 55) / (1 - np.exp(-(v + 55) / 10))
    b_n = 0.125 * np.exp(-(v + 65) / 80)
    ionic = g_na * m**3 * h * (v - e_na) + g_k * n**4 * (v - e_k) + g_l * (v - e_l)
    return [
        (current - ionic) / c,
        a_m * (1 - m) - b_m * m,
        a_h * (1 - h) - b_h * h,
        a_n * (1 - n) - b_n * n,
    ]


def make_mlp_tanh(sizes):
    """y' = W3 tanh(W2 tanh(W1 y + b1) + b2) + b3 for layer widths ``sizes``; p holds the
    layers in turn, each as its weights row by row and then its biases."""

    def mlp_tanh(t, y, p):
        a = list(y)
        k = 0
        for layer in range(len(sizes) - 1):
            rows, cols = sizes[layer + 1], sizes[layer]
            bias = k + rows * cols
            z = []
            for i in range(rows):
                s = p[bias + i]
                for j in range(cols):
                    s = s + p[k + i * cols + j] * a[j]
                z.append(s)
            k = bias + rows
            a = z if layer == len(sizes) - 2 else [np.tanh(v) for v in z]
        return a

    return mlp_tanh


# --------------------------------------------------------------------------------------
# Stiff
# --------------------------------------------------------------------------------------


def rober(t, y, p):
    """Robertson's autocatalytic reaction."""
    k1, k2, k3 = p
    r1 = k1 * y[0]
    r2 = k2 * y[1] ** 2
    r3 = k3 * y[1] * y[2]
    return [-r1 + r3, r1 - r2 - r3, r2]


def hires(t, y, p):
    """High irradiance response of photomorphogenesis (Schaefer); p = (k1..k6, k+, k-, k*, oks)."""
    k1, k2, k3, k4, k5, k6, kp, km, ks, oks = p
    bind = kp * y[5] * y[7]
    return [
        -k1 * y[0] + k2 * y[1] + k6 * y[2] + oks,
        k1 * y[0] - (k2 + k3) * y[1],
        -(k6 + k1) * y[2] + k2 * y[3] + k5 * y[4],
        k3 * y[1] + k1 * y[2] - (k4 + k2) * y[3],
        -(k5 + k1) * y[4] + k2 * (y[5] + y[6]),
        -bind + k4 * y[3] + k1 * y[4] - k2 * y[5] + km * y[6],
        bind - (k2 + km + ks) * y[6],
        -bind + (k2 + km + ks) * y[6],
    ]


def oregonator(t, y, p):
    s, q, w = p
    return [
        s * (y[1] + y[0] * (1 - q * y[0] - y[1])),
        (y[2] - (1 + y[0]) * y[1]) / s,
        w * (y[0] - y[2]),
    ]


def vdpol(t, y, p):
    """Scaled van der Pol: y1'' = mu ((1 - y1^2) y1' - y1), mu = 1/eps."""
    return [y[1], p[0] * ((1 - y[0] ** 2) * y[1] - y[0])]


def vdpol_unscaled(t, y, p):
    """y1'' = mu (1 - y1^2) y1' - y1."""
    return [y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]]


def pollu(t, y, p):
    """Air pollution (Verwer): 20 species, 25 reactions; p = (k1, ..., k25)."""
    k = [None] + [p[i] for i in range(25)]
    c = [None] + [y[i] for i in range(20)]
    r1 = k[1] * c[1]
    r2 = k[2] * c[2] * c[4]
    r3 = k[3] * c[5] * c[2]
    r4 = k[4] * c[7]
    r5 = k[5] * c[7]
    r6 = k[6] * c[7] * c[6]
    r7 = k[7] * c[9]
    r8 = k[8] * c[9] * c[6]
    r9 = k[9] * c[11] * c[2]
    r10 = k[10] * c[11] * c[1]
    r11 = k[11] * c[13]
    r12 = k[12] * c[10] * c[2]
    r13 = k[13] * c[14]
    r14 = k[14] * c[1] * c[6]
    r15 = k[15] * c[3]
    r16 = k[16] * c[4]
    r17 = k[17] * c[4]
    r18 = k[18] * c[16]
    r19 = k[19] * c[16]
    r20 = k[20] * c[17] * c[6]
    r21 = k[21] * c[19]
    r22 = k[22] * c[19]
    r23 = k[23] * c[1] * c[4]
    r24 = k[24] * c[19] * c[1]
    r25 = k[25] * c[20]
    return [
        -r1 - r10 - r14 - r23 - r24 + r2 + r3 + r9 + r11 + r12 + r22 + r25,
        -r2 - r3 - r9 - r12 + r1 + r21,
        -r15 + r1 + r17 + r19 + r22,
        -r2 - r16 - r17 - r23 + r15,
        -r3 + 2 * r4 + r6 + r7 + r13 + r20,
        -r6 - r8 - r14 - r20 + r3 + 2 * r18,
        -r4 - r5 - r6 + r13,
        r4 + r5 + r6 + r7,
        -r7 - r8,
        -r12 + r7 + r9,
        -r9 - r10 + r8 + r11,
        r9,
        -r11 + r10,
        -r13 + r12,
        r14,
        -r18 - r19 + r16,
        -r20,
        r20,
        -r21 - r22 - r24 + r23 + r25,
        -r25 + r24,
    ]


def make_brusselator_1d(N):
    """Brusselator with diffusion on N interior points of (0, 1), Dirichlet u = 1, v = 3;
    y = (u1, v1, u2, v2, ...), p = (A, B, alpha).  The Jacobian is banded (2 below, 2 above)."""

    def brusselator_1d(t, y, p):
        a, b, alpha = p
        c = alpha * (N + 1) ** 2
        dy = []
        for i in range(N):
            u, v = y[2 * i], y[2 * i + 1]
            ul, vl = (y[2 * i - 2], y[2 * i - 1]) if i > 0 else (1, 3)
            ur, vr = (y[2 * i + 2], y[2 * i + 3]) if i < N - 1 else (1, 3)
            uuv = u * u * v
            dy.append(a + uuv - (b + 1) * u + c * (ul - 2 * u + ur))
            dy.append(b * u - uuv + c * (vl - 2 * v + vr))
        return dy

    return brusselator_1d


def ring_modulator(t, y, p):
    """Ring modulator (Kampowsky, Rentrop, Schmidt): 15 voltages and currents."""
    c, cs, cp, r, rp, lh, ls1, ls2, ls3, rg1, rg2, rg3, ri, rc, gamma, delta, w1, w2 = p
    uin1 = 0.5 * np.sin(w1 * t)
    uin2 = 2 * np.sin(w2 * t)
    q1 = gamma * (np.exp(delta * (y[2] - y[4] - y[6] - uin2)) - 1)
    q2 = gamma * (np.exp(delta * (-y[3] + y[5] - y[6] - uin2)) - 1)
    q3 = gamma * (np.exp(delta * (y[3] + y[4] + y[6] + uin2)) - 1)
    q4 = gamma * (np.exp(delta * (-y[2] - y[5] + y[6] + uin2)) - 1)
    return [
        (y[7] - 0.5 * y[9] + 0.5 * y[10] + y[13] - y[0] / r) / c,
        (y[8] - 0.5 * y[11] + 0.5 * y[12] + y[14] - y[1] / r) / c,
        (y[9] - q1 + q4) / cs,
        (-y[10] + q2 - q3) / cs,
        (y[11] + q1 - q3) / cs,
        (-y[12] - q2 + q4) / cs,
        (-y[6] / rp + q1 + q2 - q3 - q4) / cp,
        -y[0] / lh,
        -y[1] / lh,
        (0.5 * y[0] - y[2] - rg2 * y[9]) / ls2,
        (-0.5 * y[0] + y[3] - rg3 * y[10]) / ls3,
        (0.5 * y[1] - y[4] - rg2 * y[11]) / ls2,
        (-0.5 * y[1] + y[5] - rg3 * y[12]) / ls3,
        (-y[0] + uin1 - (ri + rg1) * y[13]) / ls1,
        (-y[1] - (rc + rg1) * y[14]) / ls1,
    ]


def e5_pyrolysis(t, y, p):
    """E5 (Enright, Hull, Lindberg): chemical pyrolysis, concentrations down to 1e-290."""
    a, b, c, m = p
    p1 = a * y[0]
    p2 = b * y[0] * y[2]
    p3 = m * c * y[1] * y[2]
    p4 = c * y[3]
    return [-p1 - p2, p1 - p3, p1 - p2 + p4 - p3, p2 - p4]


def akzo_nobel(t, y, p):
    """Chemical Akzo Nobel, the algebraic sixth unknown y6 = Ks y1 y4 eliminated (n = 5)."""
    k1, k2, k3, k4, kk, kla, ks, pco2, henry = p
    root = np.sqrt(y[1])
    y6 = ks * y[0] * y[3]
    r1 = k1 * y[0] ** 4 * root
    r2 = k2 * y[2] * y[3]
    r3 = k2 / kk * y[0] * y[4]
    r4 = k3 * y[0] * y[3] ** 2
    r5 = k4 * y6**2 * root
    fin = kla * (pco2 / henry - y[1])
    return [
        -2 * r1 + r2 - r3 - r4,
        -0.5 * r1 - r4 - 0.5 * r5 + fin,
        r1 - r2 + r3,
        -r2 + r3 - 2 * r4,
        r2 - r3 + r5,
    ]


def make_advection_diffusion_1d(N):
    """u_t + a u_x = d u_xx on (0, 1), u = 0 at both ends, N interior points, central
    differences; p = (a, d).  Linear with constant tridiagonal Jacobian."""

    def advection_diffusion_1d(t, y, p):
        a, d = p
        lo = d * (N + 1) ** 2 + a * (N + 1) / 2
        up = d * (N + 1) ** 2 - a * (N + 1) / 2
        mid = -2 * d * (N + 1) ** 2
        dy = []
        for i in range(N):
            s = mid * y[i]
            if i > 0:
                s = s + lo * y[i - 1]
            if i < N - 1:
                s = s + up * y[i + 1]
            dy.append(s)
        return dy

    return advection_diffusion_1d


# --------------------------------------------------------------------------------------

RHS = {
    f.__name__: f
    for f in (
        lorenz, arenstorf, pleiades, nbody3d, three_body_planar, kepler, pendulum,
        detest_a1, detest_a2, detest_a3, detest_a4, detest_a5, detest_b1, detest_b3,
        detest_b5, detest_c1, detest_c5, detest_e1, detest_e2, lotka_volterra, sir,
        fitzhugh_nagumo, hodgkin_huxley, rober, hires, oregonator, vdpol, vdpol_unscaled,
        pollu, ring_modulator, e5_pyrolysis, akzo_nobel,
    )
}  # fmt: skip

MAKE = {
    "mlp_tanh": make_mlp_tanh,
    "brusselator_1d": make_brusselator_1d,
    "advection_diffusion_1d": make_advection_diffusion_1d,
}


def rhs_of(record):
    """The function f(t, y, p) of a JSON record."""
    if record["rhs"] in MAKE:
        return MAKE[record["rhs"]](**record["structure"])
    return RHS[record["rhs"]]


FOLDER = os.path.dirname(os.path.abspath(__file__))


def load(*files, folder=FOLDER):
    """{name: (record, f)} of the given JSON files (both when none is named)."""
    out = {}
    for name in files or ("nonstiff.json", "stiff.json"):
        with open(os.path.join(folder, name)) as fh:
            for rec in json.load(fh)["problems"]:
                out[rec["name"]] = (rec, rhs_of(rec))
    return out
