// Monotone rational-quadratic splines on vectors of points; the formulas and the reasons for their form
// are those of functional/rational_quadratic.py, their derivatives are below.
#pragma once

#include "simd.hpp"
#include "stage_spec.hpp"

namespace diffeo::DIFFEO_ISA {

#define UNROLL _Pragma("GCC unroll 16")

// K is the number of bins where the compiler may know it, 0 where it is read from `count`.
template <class T, int K = 0> struct Spline {
    int count;
    T low, high;
    Ends ends; // slopes that are parameters: the inner K - 1 (1 at both ends), all K + 1, or K with equal ends

    static constexpr T FLOOR = T(1e-3);
    static constexpr T ZERO = T(0.539742417236952); // softplus(ZERO) + FLOOR = 1

    ALWAYS int bins() const { return K ? K : count; }
    int num_params() const { return 3 * bins() + (ends == Ends::fixed ? -1 : ends == Ends::open ? 1 : 0); }
};

// One bin for each point, and what the gradient needs of the way to it.
template <class T> struct Bin {
    using V = Vec<T>;
    Int<T> index;
    V x0, y0, x1, y1, w, h, s, d0, d1, raw0, raw1;
    V widths[MAX_BINS], heights[MAX_BINS]; // e^(logit - max)
    V width_total, height_total;
};

// P(k) gives the vector of parameter k.
template <class T, class P> ALWAYS Vec<T> exponentials(int bins, P &&logit, Vec<T> (&e)[MAX_BINS]) {
    Vec<T> top = logit(0), total{};
    UNROLL
    for (int k = 1; k < bins; k++) top = max(top, logit(k));
    UNROLL
    for (int k = 0; k < bins; k++) {
        e[k] = exp<T>(logit(k) - top);
        total += e[k];
    }
    return total;
}

// Knots along one side. With `search`, finds the bin of v and sets index; else takes index as it is.
template <class T, bool search, int KK>
ALWAYS void edges(const Spline<T, KK> &spline, Vec<T> v, const Vec<T> (&e)[MAX_BINS], Vec<T> total,
                  Int<T> &index, Vec<T> &left, Vec<T> &right) {
    using V = Vec<T>;
    const T box = spline.high - spline.low;
    const int K = spline.bins();
    const V scale = (T(1) - K * Spline<T>::FLOOR) / total;
    V cumulative = e[0] * scale + Spline<T>::FLOOR;
    V knot = K == 1 ? splat<T>(spline.high) : cumulative * box + spline.low;
    left = splat<T>(spline.low);
    right = knot;
    UNROLL
    for (int k = 1; k < K; k++) {
        Int<T> reached;
        if constexpr (search) {
            reached = v >= knot;
            index -= reached;
        } else {
            reached = index >= k;
        }
        left = reached ? knot : left;
        if (k + 1 < K) {
            cumulative += e[k] * scale + Spline<T>::FLOOR;
            knot = cumulative * box + spline.low;
        } else {
            knot = splat<T>(spline.high);
        }
        right = reached ? knot : right;
    }
}

template <class T> ALWAYS Vec<T> slope(Vec<T> raw) {
    return softplus<T>(raw + Spline<T>::ZERO) + Spline<T>::FLOOR;
}

template <class T, bool inverse, int KK, class P>
ALWAYS void locate(const Spline<T, KK> &spline, Vec<T> v, P &&param, Bin<T> &bin) {
    const int K = spline.bins();
    bin.width_total = exponentials<T>(K, [&](int k) { return param(k); }, bin.widths);
    bin.height_total = exponentials<T>(K, [&](int k) { return param(K + k); }, bin.heights);
    bin.index = Int<T>{};
    if constexpr (inverse) {
        edges<T, true, KK>(spline, v, bin.heights, bin.height_total, bin.index, bin.y0, bin.y1);
        edges<T, false, KK>(spline, v, bin.widths, bin.width_total, bin.index, bin.x0, bin.x1);
    } else {
        edges<T, true, KK>(spline, v, bin.widths, bin.width_total, bin.index, bin.x0, bin.x1);
        edges<T, false, KK>(spline, v, bin.heights, bin.height_total, bin.index, bin.y0, bin.y1);
    }
    const bool fixed = spline.ends == Ends::fixed;
    auto raw = [&](int knot) { // the parameter of the slope at a knot
        if (fixed) return knot == 0 || knot == K ? Vec<T>{} : param(2 * K + knot - 1);
        return param(2 * K + (spline.ends == Ends::joined && knot == K ? 0 : knot));
    };
    bin.raw0 = raw(0);
    bin.raw1 = raw(1);
    UNROLL
    for (int k = 1; k < K; k++) {
        const Int<T> reached = bin.index >= k;
        bin.raw0 = reached ? raw(k) : bin.raw0;
        bin.raw1 = reached ? raw(k + 1) : bin.raw1;
    }
    bin.d0 = slope<T>(bin.raw0);
    bin.d1 = slope<T>(bin.raw1);
    if (fixed) {
        bin.d0 = bin.index == 0 ? splat<T>(1) : bin.d0;
        bin.d1 = bin.index == K - 1 ? splat<T>(1) : bin.d1;
    }
    bin.w = bin.x1 - bin.x0;
    bin.h = bin.y1 - bin.y0;
    bin.s = bin.h / bin.w;
}

// Place in the bin: t and 1 - t, and the sums every formula is made of.
template <class T> struct Place {
    using V = Vec<T>;
    V t, t1, tt, numerator, denominator;

    ALWAYS void sums(const Bin<T> &b) {
        tt = t * t1;
        numerator = b.d1 * t * t + T(2) * b.s * tt + b.d0 * t1 * t1;
        denominator = b.s * (t * t + t1 * t1) + (b.d0 + b.d1) * tt;
    }
    ALWAYS V log_slope(const Bin<T> &b) const {
        const V ratio = b.s / denominator; // at most 2; in this order nothing overflows
        return log<T>(numerator * ratio * ratio);
    }
};

template <class T> ALWAYS Vec<T> forward(const Bin<T> &b, Vec<T> x, Place<T> &p) {
    p.t = (x - b.x0) / b.w;
    p.t1 = (b.x1 - x) / b.w;
    p.sums(b);
    const Vec<T> up = b.h * (b.s * p.t * p.t + b.d0 * p.tt) / p.denominator;
    const Vec<T> down = b.h * (b.s * p.t1 * p.t1 + b.d1 * p.tt) / p.denominator;
    return p.t < p.t1 ? b.y0 + up : b.y1 - down;
}

template <class T> ALWAYS Vec<T> inverse(const Bin<T> &b, Vec<T> y, Place<T> &p) {
    using V = Vec<T>;
    const V u = (y - b.y0) / b.h, u1 = (b.y1 - y) / b.h;
    const V q = b.d0 * u1 - b.d1 * u;
    const V r = sqrt(q * q + T(4) * b.s * b.s * u * u1);
    const Int<T> rising = q >= 0;
    const V a = rising ? T(2) * b.s * u : r - q;
    const V c = rising ? q + r : T(2) * b.s * u1;
    p.t = a / (a + c);
    p.t1 = c / (a + c);
    p.sums(b);
    return p.t < p.t1 ? b.x0 + b.w * p.t : b.x1 - b.w * p.t1;
}

// Gradient of g_y y + g_l log y' at a place: of x it is returned, of each parameter it is handed to
// put(k, gradient). With L = log y', N = s t^2 + d0 t t1 and y = y0 + h N / den:
//   y_t = h s num / den^2            L_t = num_t / num - 2 den_t / den
//   y_s = h tt (d1 t^2 - d0 t1^2) / den^2    L_s = 2 tt / num + 2 / s - 2 (t^2 + t1^2) / den
//   y_d0 = h tt (s t1^2 + d1 tt) / den^2     L_d0 = t1^2 / num - 2 tt / den
//   y_d1 = -h tt N / den^2                   L_d1 = t^2 / num - 2 tt / den
// then t = (x - x0) / w, s = h / w, and every knot is a sum of softmax fractions.
template <class T, int KK, class P>
ALWAYS Vec<T> gradient(const Spline<T, KK> &spline, const Bin<T> &b, const Place<T> &p, Vec<T> g_y, Vec<T> g_l,
                       P &&put) {
    using V = Vec<T>;
    const int K = spline.bins();
    const V t = p.t, t1 = p.t1, tt = p.tt, ttt = t * t, t1t1 = t1 * t1;
    const V per_num = T(1) / p.numerator, per_den = T(1) / p.denominator, per_w = T(1) / b.w;
    const V N = b.s * ttt + b.d0 * tt;
    const V gain = g_y * b.h * per_den * per_den;
    const V L_t = T(2) * ((b.d1 * t + b.s * (t1 - t) - b.d0 * t1) * per_num -
                          (b.d0 + b.d1 - T(2) * b.s) * (t1 - t) * per_den);
    const V g_t = gain * b.s * p.numerator + g_l * L_t;
    const V g_s = gain * tt * (b.d1 * ttt - b.d0 * t1t1) +
                  g_l * T(2) * (tt * per_num + T(1) / b.s - (ttt + t1t1) * per_den);
    const V both = T(2) * tt * per_den;
    const V g_d0 = gain * tt * (b.s * t1t1 + b.d1 * tt) + g_l * (t1t1 * per_num - both);
    const V g_d1 = g_l * (ttt * per_num - both) - gain * tt * N;
    const V g_x = g_t * per_w;
    const V g_w = -(g_t * t + g_s * b.s) * per_w;
    const V g_h = g_y * N * per_den + g_s * per_w;

    const T weight = (T(1) - K * Spline<T>::FLOOR) * (spline.high - spline.low);
    auto softmax = [&](int first, const V(&e)[MAX_BINS], V total, V g_below, V g_own) {
        const V scale = T(1) / total;
        V mean{};
        UNROLL
        for (int k = 0; k < K; k++) {
            const V g = b.index > k ? g_below : (b.index == k ? g_own : V{});
            mean += e[k] * g;
        }
        mean *= scale;
        UNROLL
        for (int k = 0; k < K; k++) {
            const V g = b.index > k ? g_below : (b.index == k ? g_own : V{});
            put(first + k, e[k] * scale * (g - mean) * weight);
        }
    };
    softmax(0, b.widths, b.width_total, -g_x, g_w);
    softmax(K, b.heights, b.height_total, g_y, g_h);

    const V g_raw0 = g_d0 * sigmoid<T>(b.raw0 + Spline<T>::ZERO);
    const V g_raw1 = g_d1 * sigmoid<T>(b.raw1 + Spline<T>::ZERO);
    auto at = [&](int knot) {
        const V left = b.index == knot ? g_raw0 : V{};
        return b.index == knot - 1 ? g_raw1 : left;
    };
    if (spline.ends == Ends::fixed) {
        UNROLL
        for (int k = 1; k < K; k++) put(2 * K + k - 1, at(k));
    } else if (spline.ends == Ends::open) {
        for (int k = 0; k <= K; k++) put(2 * K + k, at(k));
    } else {
        for (int k = 0; k < K; k++) put(2 * K + k, k == 0 ? at(0) + at(K) : at(k));
    }
    return g_x;
}

} // namespace diffeo::DIFFEO_ISA
