// The elementwise families on vectors of points: one interface for whatever layer holds them.
#pragma once

#include "spline.hpp"

namespace diffeo::DIFFEO_ISA {

template <class T, int K = 0> struct Family {
    FamilyKind kind;
    T bound; // of the log-scale
    bool behind; // an affine map follows the spline; its two parameters come first
    Spline<T, K> spline;

    explicit Family(const FamilySpec &f)
        : kind(f.kind), bound(T(f.kind == FamilyKind::spline ? f.reach : f.high)),
          behind(f.kind == FamilyKind::spline && f.reach > 0), spline{f.bins, T(f.low), T(f.high), f.ends} {}

    ALWAYS int first() const { return behind ? 2 : 0; } // of the spline's parameters
    int num_params() const {
        return kind == FamilyKind::additive ? 1 : kind == FamilyKind::affine ? 2 : first() + spline.num_params();
    }
};

template <class T, int K> ALWAYS Int<T> outside(const Spline<T, K> &s, Vec<T> v) { return (v < s.low) | (v > s.high); }

// The map or its inverse at v: the value returned, log slope in `log_slope`.
template <class T, bool inverse, int K, class P>
ALWAYS Vec<T> apply_spline(const Spline<T, K> &spline, Vec<T> v, P &&param, Vec<T> &log_slope) {
    using V = Vec<T>;
    const Int<T> out = outside(spline, v);
    const T centre = (spline.low + spline.high) / 2;
    const V inner = out ? splat<T>(centre) : v;
    Bin<T> bin;
    Place<T> place;
    locate<T, inverse, K>(spline, inner, param, bin);
    V value;
    if constexpr (inverse) value = DIFFEO_ISA::inverse<T>(bin, inner, place);
    else value = DIFFEO_ISA::forward<T>(bin, inner, place);
    log_slope = place.log_slope(bin);
    if constexpr (inverse) log_slope = -log_slope;
    if (spline.ends == Ends::fixed) {
        log_slope = out ? V{} : log_slope;
        return out ? v : value;
    }
    value = value < spline.low ? splat<T>(spline.low) : value;
    value = value > spline.high ? splat<T>(spline.high) : value;
    log_slope = out ? splat<T>(-std::numeric_limits<T>::infinity()) : log_slope;
    return out ? splat<T>(centre) : value;
}

// The bounded log-scale of an affine map, and its derivative by the parameter.
template <class T> ALWAYS Vec<T> soft_clip(Vec<T> raw, T bound, Vec<T> &slope) {
    const Vec<T> per = T(1) / (T(1) + abs(raw) / bound);
    slope = per * per;
    return raw * per;
}

template <class T, bool inverse, int K, class P>
ALWAYS Vec<T> apply(const Family<T, K> &family, Vec<T> v, P &&param, Vec<T> &log_slope) {
    using V = Vec<T>;
    log_slope = V{};
    if (family.kind == FamilyKind::additive) return inverse ? v - param(0) : v + param(0);
    const bool bends = family.kind == FamilyKind::spline, shifts = !bends || family.behind;
    V shift{}, log_scale{}, unused;
    if (shifts) {
        shift = param(0);
        log_scale = soft_clip<T>(param(1), family.bound, unused);
    }
    if (inverse && shifts) v = (v - shift) * exp<T>(-log_scale);
    if (bends) {
        const int first = family.first();
        v = apply_spline<T, inverse, K>(family.spline, v, [&](int k) ALWAYS_LAMBDA { return param(first + k); }, log_slope);
    }
    if (!shifts) return v;
    log_slope += inverse ? -log_scale : log_scale;
    return inverse ? v : v * exp<T>(log_scale) + shift;
}

// Gradient of g_value . value + g_log . log_slope for the same v; put(k, .) takes that of parameter k.
// `value` becomes the value.
template <class T, bool inverse, int K, class P, class Q>
ALWAYS Vec<T> pull_back_spline(const Spline<T, K> &spline, Vec<T> v, P &&param, Vec<T> g_value, Vec<T> g_log,
                               Q &&put, Vec<T> &value) {
    using V = Vec<T>;
    const Int<T> out = outside(spline, v);
    const V inner = out ? splat<T>((spline.low + spline.high) / 2) : v;
    const V g_outside = spline.ends == Ends::fixed ? g_value : V{};
    g_value = out ? V{} : g_value;
    g_log = out ? V{} : g_log;
    Bin<T> bin;
    Place<T> p;
    locate<T, inverse, K>(spline, inner, param, bin);
    V g;
    if constexpr (inverse) {
        // x = f^-1(y): with a the whole gradient of x, that of y is a / f', that of the parameters
        // -(a / f') df/dtheta - g_log dL/dtheta.
        value = DIFFEO_ISA::inverse<T>(bin, inner, p);
        const V L_x = T(2) / bin.w *
                      ((bin.d1 * p.t + bin.s * (p.t1 - p.t) - bin.d0 * p.t1) / p.numerator -
                       (bin.d0 + bin.d1 - T(2) * bin.s) * (p.t1 - p.t) / p.denominator);
        const V slope = bin.s * bin.s * p.numerator / (p.denominator * p.denominator);
        g = (g_value - g_log * L_x) / slope;
        (void)gradient<T, K>(spline, bin, p, -g, -g_log, put);
    } else {
        value = DIFFEO_ISA::forward<T>(bin, inner, p);
        g = gradient<T, K>(spline, bin, p, g_value, g_log, put);
    }
    value = out ? v : value;
    return out ? g_outside : g;
}

template <class T, bool inverse, int K, class P, class Q>
ALWAYS Vec<T> pull_back(const Family<T, K> &family, Vec<T> v, P &&param, Vec<T> g_value, Vec<T> g_log, Q &&put) {
    using V = Vec<T>;
    if (family.kind == FamilyKind::additive) {
        put(0, inverse ? -g_value : g_value);
        return g_value;
    }
    const bool bends = family.kind == FamilyKind::spline, shifts = !bends || family.behind;
    V shift{}, scale = splat<T>(1), clip{}, g_shift = g_value; // scale: of this direction
    if (shifts) {
        const V log_scale = soft_clip<T>(param(1), family.bound, clip);
        shift = param(0);
        scale = exp<T>(inverse ? -log_scale : log_scale);
        if (inverse) v = (v - shift) * scale;
        else g_value *= scale;
    }
    V value = v;
    if (bends) {
        const int first = family.first();
        g_value = pull_back_spline<T, inverse, K>(
            family.spline, v, [&](int k) ALWAYS_LAMBDA { return param(first + k); }, g_value, g_log,
            [&](int k, V g) ALWAYS_LAMBDA { put(first + k, g); }, value);
    }
    if (!shifts) return g_value;
    if constexpr (inverse) {
        const V g = g_value * scale;
        put(0, -g);
        put(1, -(g_value * v + g_log) * clip);
        return g;
    } else {
        put(0, g_shift);
        put(1, (g_shift * value * scale + g_log) * clip);
        return g_value;
    }
}

} // namespace diffeo::DIFFEO_ISA
