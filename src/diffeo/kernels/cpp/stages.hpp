// The stages a chain is made of, each on one feature-major block [column][row], in place.
#pragma once

#include "family.hpp"
#include "net.hpp"

namespace diffeo::DIFFEO_ISA {

// One worker at one block of rows.
template <class T> struct Block {
    int vectors, rows, features;
    int64_t first_row;
    uint32_t seed;
    T *x;       // [features][ROWS]: the value as it goes through the chain; backward: its gradient
    T *log_det; // [ROWS]; backward: the gradient of log_det
    T *sums;    // this worker's gradient sums
    Memory memory;
};

// ---- a net, and a family whose parameters it gives ----------------------------------------------

template <class T, bool inverse, int K>
ALWAYS void apply_column(const Family<T, K> &family, const T *params, const T *from, T *to, T *log_det, int vectors) {
    constexpr int N = LANES<T>;
    for (int v = 0; v < vectors; v++) {
        Vec<T> log_slope;
        auto param = [&](int k) ALWAYS_LAMBDA { return load(params + k * ROWS + v * N); };
        store(to + v * N, apply<T, inverse, K>(family, load(from + v * N), param, log_slope));
        store(log_det + v * N, load(log_det + v * N) + log_slope);
    }
}

template <class T, int K> struct Conditional {
    const ConditionalSpec &spec;
    Block<T> &block;
    Family<T, K> family;
    Net<T> net;
    int P, group; // parameters of a column; columns whose parameters are made at once
    T *params;

    // number: the stage's, which its draws depend on.
    Conditional(const ConditionalSpec &spec, int number, Block<T> &block)
        : spec(spec), block(block), family(spec.family), net(spec.net, block.memory),
          P(family.num_params()), group(P < GROUP ? GROUP / P : 1),
          params(block.memory.template take<T>(int64_t(P) * group * ROWS)) {
        net.at_rows(block.first_row, block.rows, block.vectors, block.seed + uint32_t(number) * 0x9e3779b9u);
    }
    int last() const { return spec.net.num_layers - 1; }

    void see(const T *x) {
        for (int i = 0; i < spec.num_seen; i++) net.see(i, x + spec.seen[i] * ROWS);
    }
    template <bool inverse> void all() {
        see(block.x);
        net.all_hidden();
        for (int first = 0; first < spec.num_changed; first += group) {
            const int end = least(first + group, spec.num_changed);
            net.units(last(), first * P, end * P, params);
            for (int j = first; j < end; j++) {
                T *x = block.x + spec.changed[j] * ROWS;
                const T *own = params + (j - first) * P * ROWS;
                apply_column<T, inverse, K>(family, own, x, x, block.log_det, block.vectors);
            }
        }
    }
    // The autoregressive inverse: with column d - 1 the hidden units of step d become known, with them the
    // parameters of column d. Together the steps are one pass.
    void columns() {
        int at[MAX_LAYERS] = {};
        for (int d = 0; d < spec.num_changed; d++) {
            const int32_t *ready = spec.ready;
            for (int l = 0; l < last(); l++) {
                const int out = spec.net.layers[l].out, begin = at[l];
                int end = begin;
                while (end < out && ready[end] <= d) end++;
                if (end > begin) net.hidden(l, begin, end);
                at[l] = end;
                ready += out;
            }
            net.units(last(), d * P, (d + 1) * P, params);
            T *y = block.x + spec.changed[d] * ROWS;
            apply_column<T, true, K>(family, params, y, y, block.log_det, block.vectors);
            net.see(d, y);
        }
    }
    void run(bool inverse) {
        if (!inverse) all<false>();
        else if (spec.autoregressive) columns();
        else all<true>();
    }

    // block.x holds the gradient of the stage's output and becomes that of its input x.
    void back(const T *x) {
        constexpr int N = LANES<T>;
        NetBack<T> way(net, block.sums, block.memory);
        T *g_params = block.memory.template take<T>(int64_t(P) * group * ROWS);
        see(x);
        net.all_hidden();
        way.begin();
        for (int first = 0; first < spec.num_changed; first += group) {
            const int end = least(first + group, spec.num_changed);
            net.units(last(), first * P, end * P, params);
            for (int j = first; j < end; j++) {
                const T *from = x + spec.changed[j] * ROWS;
                const int64_t at = int64_t(j - first) * P * ROWS;
                T *g = block.x + spec.changed[j] * ROWS;
                for (int v = 0; v < block.vectors; v++) {
                    auto param = [&](int k) ALWAYS_LAMBDA { return load(params + at + k * ROWS + v * N); };
                    auto put = [&](int k, Vec<T> g) ALWAYS_LAMBDA { store(g_params + at + k * ROWS + v * N, g); };
                    store(g + v * N, pull_back<T, false, K>(family, load(from + v * N), param, load(g + v * N),
                                                            load(block.log_det + v * N), put));
                }
            }
            way.units(last(), first * P, end * P, g_params);
        }
        way.finish();
        for (int i = 0; i < spec.num_seen; i++) {
            T *g = block.x + spec.seen[i] * ROWS;
            for (int v = 0; v < block.vectors; v++) {
                const Int<T> seen = abs(load(x + spec.seen[i] * ROWS + v * N)) <= net.reach;
                store(g + v * N, load(g + v * N) + (seen ? load(way.g_in + i * ROWS + v * N) : Vec<T>{}));
            }
        }
    }
};

// ---- permutations, scales, LU ---------------------------------------------------------------------

// Column j of the output is column permutation[j] of the input; `scatter` is the way back.
template <class T> void permute(const PermuteSpec &spec, Block<T> &block, bool scatter) {
    T *copy = block.memory.template take<T>(int64_t(block.features) * ROWS);
    std::memcpy(copy, block.x, size_t(block.features) * ROWS * sizeof(T));
    for (int j = 0; j < block.features; j++) {
        const int i = spec.permutation[j];
        std::memcpy(block.x + (scatter ? i : j) * ROWS, copy + (scatter ? j : i) * ROWS, ROWS * sizeof(T));
    }
}

// z = (x - loc) e^(-log_scale)
template <class T> void normalize(const NormalizeSpec &spec, Block<T> &block, bool inverse) {
    constexpr int N = LANES<T>;
    const T *loc = static_cast<const T *>(spec.loc), *log_scale = static_cast<const T *>(spec.log_scale);
    T total = 0;
    for (int i = 0; i < block.features; i++) {
        total += log_scale[i];
        const Vec<T> factor = exp<T>(splat<T>(inverse ? log_scale[i] : -log_scale[i]));
        for (int v = 0; v < block.vectors; v++) {
            T *p = block.x + i * ROWS + v * N;
            store(p, inverse ? load(p) * factor + loc[i] : (load(p) - loc[i]) * factor);
        }
    }
    for (int v = 0; v < block.vectors; v++)
        store(block.log_det + v * N, load(block.log_det + v * N) + (inverse ? total : -total));
}

template <class T> void normalize_back(const NormalizeSpec &spec, Block<T> &block, const T *x) {
    constexpr int N = LANES<T>;
    const T *loc = static_cast<const T *>(spec.loc), *log_scale = static_cast<const T *>(spec.log_scale);
    T *sums = block.sums + spec.sums;
    Vec<T> g_log_det{};
    for (int v = 0; v < block.vectors; v++) g_log_det += load(block.log_det + v * N);
    const T total = sum<T>(g_log_det);
    for (int i = 0; i < block.features; i++) {
        const Vec<T> factor = exp<T>(splat<T>(-log_scale[i]));
        Vec<T> g_loc{}, g_scale{};
        for (int v = 0; v < block.vectors; v++) {
            T *p = block.x + i * ROWS + v * N;
            const Vec<T> g = load(p) * factor;
            g_loc -= g;
            g_scale -= g * (load(x + i * ROWS + v * N) - loc[i]);
            store(p, g);
        }
        if (spec.g_loc) sums[i] += sum<T>(g_loc);
        if (spec.g_log_scale) sums[block.features + i] += sum<T>(g_scale) - total;
    }
}

// y = L U x + bias: L unit lower-triangular, U upper-triangular with diagonal e^s, both in one square.
template <class T> struct LU {
    static constexpr int N = LANES<T>;
    const T *w, *log_diagonal, *bias;
    int D;
    T bound;
    Block<T> &block;

    LU(const LUSpec &spec, Block<T> &block)
        : w(static_cast<const T *>(spec.weight)), log_diagonal(static_cast<const T *>(spec.log_diagonal)),
          bias(static_cast<const T *>(spec.bias)), D(block.features), bound(T(spec.bound)), block(block) {}

    T clipped(int i) const {
        const T r = log_diagonal[i];
        return r / (1 + (r < 0 ? -r : r) / bound);
    }
    Vec<T> diagonal(int i) const { return exp<T>(splat<T>(clipped(i))); }
    // x_i = (x_i - sum over k in [begin, end) of w_ik x_k), or plus.
    ALWAYS void row(T *x, int i, int begin, int end, T sign) const {
        groups(block.vectors, [&]<int NV>(int first) {
            Vec<T> acc[NV];
            T *p = x + i * ROWS + first * N;
#pragma GCC unroll 8
            for (int v = 0; v < NV; v++) acc[v] = load(p + v * N);
            for (int k = begin; k < end; k++) {
                const T s = sign * w[i * D + k];
#pragma GCC unroll 8
                for (int v = 0; v < NV; v++) acc[v] += s * load(x + k * ROWS + (first + v) * N);
            }
#pragma GCC unroll 8
            for (int v = 0; v < NV; v++) store(p + v * N, acc[v]);
        });
    }
    void scale(T *x, int i, Vec<T> by) const {
        for (int v = 0; v < block.vectors; v++) store(x + i * ROWS + v * N, load(x + i * ROWS + v * N) * by);
    }
    void upper(T *x) const { // x becomes U x; row i needs only rows from i on
        for (int i = 0; i < D; i++) {
            scale(x, i, diagonal(i));
            row(x, i, i + 1, D, T(1));
        }
    }
    void take_within(const T *x, T *to) const {
        for (int i = 0; i < D; i++)
            for (int v = 0; v < block.vectors; v++) store(to + i * ROWS + v * N, within<T>(load(x + i * ROWS + v * N)));
    }
    void run(bool inverse) const {
        T *x = block.x, total = 0;
        take_within(x, x);
        for (int i = 0; i < D; i++) total += clipped(i);
        for (int v = 0; v < block.vectors; v++)
            store(block.log_det + v * N, load(block.log_det + v * N) + (inverse ? -total : total));
        if (!inverse) {
            upper(x);
            for (int i = D - 1; i >= 0; i--) row(x, i, 0, i, T(1));
            shift(x, T(1));
            return;
        }
        shift(x, T(-1));
        for (int i = 0; i < D; i++) row(x, i, 0, i, T(-1));
        for (int i = D - 1; i >= 0; i--) {
            row(x, i, i + 1, D, T(-1));
            scale(x, i, T(1) / diagonal(i));
        }
    }
    void shift(T *x, T sign) const {
        if (!bias) return;
        for (int i = 0; i < D; i++)
            for (int v = 0; v < block.vectors; v++)
                store(x + i * ROWS + v * N, load(x + i * ROWS + v * N) + sign * bias[i]);
    }
    // g_x = U^T L^T g, dL = g u^T, dU = (L^T g) x^T, with u = U x.
    void back(const LUSpec &spec, const T *given) const {
        T *g = block.x, *sums = block.sums + spec.sums;
        T *u = block.memory.template take<T>(int64_t(D) * ROWS), *x = block.memory.template take<T>(int64_t(D) * ROWS);
        clear(x, int64_t(D) * ROWS);
        take_within(given, x);
        std::memcpy(u, x, size_t(D) * ROWS * sizeof(T));
        upper(u);
        Vec<T> g_log_det{};
        for (int v = 0; v < block.vectors; v++) g_log_det += load(block.log_det + v * N);
        const T total = sum<T>(g_log_det);
        T *g_w = spec.g_weight ? sums : nullptr, *g_diagonal = sums + int64_t(D) * D, *g_bias = g_diagonal + D;
        for (int i = 0; spec.g_bias && i < D; i++) g_bias[i] += row_sum(g, i);
        const int pad = (D + N - 1) / N * N;
        T *at = block.memory.template take<T>(int64_t(pad) * ROWS);
        T *dw = block.memory.template take<T>(int64_t(pad) * D); // of the whole square, half of it of use
        weigh(g, u, at, pad, dw);
        for (int i = 0; g_w && i < D; i++)
            for (int k = 0; k < i; k++) g_w[i * D + k] += dw[i * pad + k];
        for (int k = 0; k < D; k++) columns(g, k, k + 1, D, Vec<T>{} + T(1)); // L^T
        weigh(g, x, at, pad, dw);
        for (int i = 0; i < D; i++) {
            const T r = log_diagonal[i], per = 1 / (1 + (r < 0 ? -r : r) / bound);
            if (spec.g_log_diagonal) g_diagonal[i] += (dw[i * pad + i] * diagonal(i)[0] + total) * per * per;
            for (int k = i + 1; g_w && k < D; k++) g_w[i * D + k] += dw[i * pad + k];
        }
        for (int k = D - 1; k >= 0; k--) columns(g, k, 0, k, diagonal(k)); // U^T
        for (int i = 0; i < D; i++)
            for (int v = 0; v < block.vectors; v++) {
                const int64_t p = i * ROWS + v * N;
                store(g + p, abs(load(given + p)) <= FAR<T> ? load(g + p) : Vec<T>{});
            }
    }
    // g_k = by g_k + sum over i in [begin, end) of w_ik g_i
    void columns(T *g, int k, int begin, int end, Vec<T> by) const {
        for (int v = 0; v < block.vectors; v++) {
            Vec<T> acc = load(g + k * ROWS + v * N) * by;
            for (int i = begin; i < end; i++) acc += w[i * D + k] * load(g + i * ROWS + v * N);
            store(g + k * ROWS + v * N, acc);
        }
    }
    T row_sum(const T *g, int i) const {
        Vec<T> acc{};
        for (int v = 0; v < block.vectors; v++) acc += load(g + i * ROWS + v * N);
        return sum<T>(acc);
    }
    // dw = g x^T
    void weigh(const T *g, const T *x, T *at, int pad, T *dw) const {
        to_row_major(x, D, at, pad);
        clear(dw, int64_t(D) * pad);
        outer<T>(Weights<T>{nullptr, 0, D, D, nullptr}, 0, D, g, at, pad, block.rows, dw);
    }
};

} // namespace diffeo::DIFFEO_ISA
