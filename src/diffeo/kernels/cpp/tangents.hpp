// A smooth net together with its Jacobian, on one block of rows: as many tangents as columns go along with the
// value. [tangent][feature][row], so that every product is one of gemm.hpp.
#pragma once

#include "net.hpp"

namespace diffeo::DIFFEO_ISA {

template <class T> struct Curve {
    Vec<T> value, slope, bend; // a, a', a''
};

template <class T> ALWAYS Curve<T> curve(Activation kind, Vec<T> h) {
    switch (kind) {
    case Activation::sine: {
        Vec<T> s, c;
        sine_cosine<T>(h, s, c);
        return {s, c, -s};
    }
    case Activation::tanh: {
        const Vec<T> e = exp<T>(T(-2) * abs(h)), t = (T(1) - e) / (T(1) + e);
        const Vec<T> value = h < 0 ? -t : t, slope = T(4) * e / ((T(1) + e) * (T(1) + e));
        return {h != h ? h : value, slope, T(-2) * value * slope};
    }
    case Activation::silu: break;
    }
    const Vec<T> s = sigmoid<T>(h), value = h * s;
    return {value, s + value * (T(1) - s), s * (T(1) - s) * (T(2) + h - T(2) * value)};
}

template <class T> struct TangentNet {
    static constexpr int N = LANES<T>;
    const DenseSpec *specs;
    int layers, tangents, vectors, rows;
    Activation activation;
    T *value[MAX_LAYERS], *slope[MAX_LAYERS], *bend[MAX_LAYERS]; // of the hidden layers
    T *before[MAX_LAYERS], *after[MAX_LAYERS]; // their tangents before and behind the activation
    T *out, *jacobian;                   // [out][row], [tangent][out][row]
    T *extra;                            // what the context adds to the first layer, or null
    T reach;                             // 0: the net sees x itself
    T *seen, *dim, *dimming;             // what it sees of x, with the first two derivatives
    T *ping, *pong, *at;                 // backward: gradients of a layer's value and tangents; a layer's input

    TangentNet(const SmoothNetSpec &net, int tangents, int rows, int vectors, int64_t first_row, Memory &memory)
        : specs(net.stack.layers), layers(net.stack.num_layers), tangents(tangents), vectors(vectors), rows(rows),
          activation(net.activation) {
        int64_t widest = 0, pad = 0;
        for (int l = 0; l < layers; l++) {
            const int64_t size = int64_t(specs[l].out) * ROWS;
            widest = specs[l].in > widest ? specs[l].in : widest;
            widest = specs[l].out > widest ? specs[l].out : widest;
            pad = specs[l].pad > pad ? specs[l].pad : pad;
            if (l + 1 == layers) break;
            value[l] = memory.take<T>(size);
            slope[l] = memory.take<T>(size);
            bend[l] = memory.take<T>(size);
            before[l] = memory.take<T>(size * tangents);
            after[l] = memory.take<T>(size * tangents);
        }
        const int64_t size = int64_t(specs[layers - 1].out) * ROWS;
        out = memory.take<T>(size);
        jacobian = memory.take<T>(size * tangents);
        ping = memory.take<T>((1 + tangents) * widest * ROWS);
        pong = memory.take<T>((1 + tangents) * widest * ROWS);
        at = memory.take<T>(pad * ROWS);
        reach = T(net.reach);
        seen = memory.take<T>(3 * int64_t(specs[0].in) * ROWS);
        dim = seen + int64_t(specs[0].in) * ROWS;
        dimming = dim + int64_t(specs[0].in) * ROWS;
        extra = nullptr;
        if (const T *given = static_cast<const T *>(specs[0].extra)) {
            extra = memory.take<T>(int64_t(specs[0].out) * ROWS);
            load_block<T>(given + first_row * specs[0].out, specs[0].out, specs[0].out, rows, vectors, extra);
        }
    }

    Weights<T> weights(int l) const {
        const DenseSpec &d = specs[l];
        return {static_cast<const T *>(d.weight), d.ld, d.in, d.out, nullptr};
    }
    // The first layer's tangent k at unit o, before the activation.
    Vec<T> enters(int o, int k, int v) const {
        const T w = static_cast<const T *>(specs[0].weight)[o * specs[0].ld + k];
        return reach > 0 ? w * load(dim + k * ROWS + v * N) : splat<T>(w);
    }
    const T *look(const T *x) {
        const int64_t numbers = int64_t(specs[0].in) * ROWS;
        if (!(reach > 0)) {
            for (int64_t i = 0; i < numbers; i += N) store(seen + i, within<T>(load(x + i)));
            return seen;
        }
        const T by = 1 / reach, most = reach * T(0x1p30);
        for (int64_t i = 0; i < numbers; i += N) {
            const Vec<T> a = max(min(load(x + i), splat<T>(most)), splat<T>(-most)), q = a * by, r = T(1) / (T(1) + q * q), root = sqrt(r);
            store(seen + i, a * root);
            store(dim + i, r * root);
            store(dimming + i, T(-3) * by * q * r * r * root);
        }
        return seen;
    }

    // The value at x, and the Jacobian if asked for; `bias` is the first layer's.
    template <bool JACOBIAN> void forward(const T *point, const T *bias) {
        const T *x = look(point);
        for (int l = 0; l < layers; l++) {
            const DenseSpec &d = specs[l];
            const bool last = l + 1 == layers;
            const T *b = l ? static_cast<const T *>(d.bias) : bias;
            T *h = last ? out : value[l];
            for (int o = 0; o < d.out; o++)
                for (int v = 0; v < vectors; v++) {
                    const Vec<T> start = splat<T>(b ? b[o] : T(0));
                    store(h + o * ROWS + v * N, l || !extra ? start : start + load(extra + o * ROWS + v * N));
                }
            product<T>(weights(l), 0, d.out, l ? value[l - 1] : x, h, vectors);
            if (JACOBIAN && l) {
                T *u = last ? jacobian : before[l];
                clear(u, int64_t(tangents) * d.out * ROWS);
                for (int k = 0; k < tangents; k++)
                    product<T>(weights(l), 0, d.out, after[l - 1] + int64_t(k) * d.in * ROWS,
                               u + int64_t(k) * d.out * ROWS, vectors);
            }
            if (!last) activate<JACOBIAN>(l);
        }
    }
    template <bool JACOBIAN> void activate(int l) {
        const int units = specs[l].out;
        for (int o = 0; o < units; o++)
            for (int v = 0; v < vectors; v++) {
                const int64_t i = o * ROWS + v * N;
                const Curve<T> c = curve<T>(activation, load(value[l] + i));
                store(value[l] + i, c.value);
                if (!JACOBIAN) continue;
                store(slope[l] + i, c.slope);
                store(bend[l] + i, c.bend);
                for (int k = 0; k < tangents; k++) {
                    const int64_t j = int64_t(k) * units * ROWS + i;
                    store(after[l] + j, c.slope * (l ? load(before[l] + j) : enters(o, k, v)));
                }
            }
    }

    // After forward<true>(x, bias): from the gradients of value and Jacobian to those of x, which is added to, of
    // the weights, in `sums`, of the first layer's bias and of what the context adds to it, where not null.
    void back(const T *g_out, const T *g_jacobian, T *g_x, T *sums, T *g_bias, T *g_extra) {
        const T *g = g_out, *g_tangents = g_jacobian;
        T *here = ping, *next = pong;
        for (int l = layers - 1; l >= 0; l--) {
            const DenseSpec &d = specs[l];
            const int64_t size = int64_t(d.out) * ROWS;
            if (l + 1 < layers) {
                through_activation(l, here, here + size);
                g = here;
                g_tangents = here + size;
            }
            if (d.g_weight) weight_gradient(l, g, g_tangents, sums + d.sums);
            T *bias = l == 0 ? g_bias : d.g_bias ? sums + d.sums + (d.g_weight ? int64_t(d.out) * d.pad : 0) : nullptr;
            for (int o = 0; bias && o < d.out; o++) bias[o] += row_sum(g + o * ROWS);
            if (l == 0) {
                if (g_extra)
                    for (int64_t i = 0; i < size; i += N) store(g_extra + i, load(g_extra + i) + load(g + i));
                if (!(reach > 0)) return transposed<T>(weights(0), 0, d.out, g, g_x, vectors);
                through_reach(g, g_tangents, next, g_x);
                return;
            }
            const int64_t below = int64_t(d.in) * ROWS;
            clear(next, (1 + tangents) * below);
            transposed<T>(weights(l), 0, d.out, g, next, vectors);
            for (int k = 0; k < tangents; k++)
                transposed<T>(weights(l), 0, d.out, g_tangents + k * size, next + (1 + k) * below, vectors);
            T *swap = here;
            here = next;
            next = swap;
        }
    }
    // From the gradients before the first activation to that of x.
    void through_reach(const T *g, const T *g_tangents, T *g_seen, T *g_x) const {
        const DenseSpec &d = specs[0];
        clear(g_seen, int64_t(d.in) * ROWS);
        transposed<T>(weights(0), 0, d.out, g, g_seen, vectors);
        for (int k = 0; k < d.in; k++)
            for (int v = 0; v < vectors; v++) {
                Vec<T> g_dim{};
                for (int o = 0; k < tangents && o < d.out; o++)
                    g_dim += load(g_tangents + (int64_t(k) * d.out + o) * ROWS + v * N) *
                             static_cast<const T *>(d.weight)[o * d.ld + k];
                const int64_t i = k * ROWS + v * N;
                store(g_x + i, load(g_x + i) + load(g_seen + i) * load(dim + i) + g_dim * load(dimming + i));
            }
    }
    // g, of the activations, and g_tangents, of the tangents behind them, become those before them.
    void through_activation(int l, T *g, T *g_tangents) const {
        const int units = specs[l].out;
        for (int o = 0; o < units; o++)
            for (int v = 0; v < vectors; v++) {
                const int64_t i = o * ROWS + v * N;
                const Vec<T> s = load(slope[l] + i);
                Vec<T> g_slope{};
                for (int k = 0; k < tangents; k++) {
                    const int64_t j = int64_t(k) * units * ROWS + i;
                    const Vec<T> gt = load(g_tangents + j);
                    g_slope += gt * (l ? load(before[l] + j) : enters(o, k, v));
                    store(g_tangents + j, gt * s);
                }
                store(g + i, load(g + i) * s + g_slope * load(bend[l] + i));
            }
    }
    void weight_gradient(int l, const T *g, const T *g_tangents, T *sums) const {
        const DenseSpec &d = specs[l];
        const int64_t size = int64_t(d.out) * ROWS, below = int64_t(d.in) * ROWS;
        to_row_major<T>(l ? value[l - 1] : seen, d.in, at, d.pad);
        outer<T>(weights(l), 0, d.out, g, at, d.pad, rows, sums);
        for (int k = 0; k < tangents; k++) {
            if (l == 0) { // the tangents that enter are the unit vectors
                for (int o = 0; o < d.out; o++) {
                    Vec<T> total{};
                    for (int v = 0; v < vectors; v++) {
                        const Vec<T> own = load(g_tangents + k * size + o * ROWS + v * N);
                        total += reach > 0 ? own * load(dim + k * ROWS + v * N) : own;
                    }
                    sums[o * d.pad + k] += sum<T>(total);
                }
                continue;
            }
            to_row_major<T>(after[l - 1] + k * below, d.in, at, d.pad);
            outer<T>(weights(l), 0, d.out, g_tangents + k * size, at, d.pad, rows, sums);
        }
    }
    T row_sum(const T *p) const {
        Vec<T> total{};
        for (int v = 0; v < vectors; v++) total += load(p + v * N);
        return sum<T>(total);
    }
};

} // namespace diffeo::DIFFEO_ISA
