// Small matrix products on feature-major blocks: activations stand as [feature][row], rows in the lanes.
//
// A masked weight is a staircase: unit o sees its first limits[o] inputs, limits ascending. Products stop
// there, so masks cost no multiplication and masked weights are never read.
#pragma once

#include "simd.hpp"
#include "stage_spec.hpp"

namespace diffeo::DIFFEO_ISA {

// Own, since a library template compiled here for one processor could be linked in for all.
ALWAYS int least(int a, int b) { return a < b ? a : b; }
ALWAYS int most(int a, int b) { return a > b ? a : b; }

// How many of n ascending numbers are at most i.
ALWAYS int count_up_to(const int32_t *a, int n, int i) {
    int low = 0, high = n;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (a[middle] <= i) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <class T> struct Weights {
    const T *w;
    int64_t ld;          // distance of two rows
    int in, out;
    const int32_t *limits; // null: every unit sees every input

    int limit(int o) const { return limits ? limits[o] : in; }
    // The first unit that sees input i.
    int first(int i) const {
        return limits ? count_up_to(limits, out, i) : 0;
    }
};

// out[m] += sum_i w[o + m][i] in[i] for M units, at NV vectors of rows. `low` and `high` are the least and
// the greatest of their limits.
template <class T, int M, int NV>
ALWAYS void product_tile(const Weights<T> &W, int o, int low, int high, const T *in, T *out) {
    constexpr int N = LANES<T>;
    const T *w = W.w + o * W.ld;
    Vec<T> acc[M][NV];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[m][v] = load(out + m * ROWS + v * N);
    for (int i = 0; i < low; i++) {
        Vec<T> a[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) a[v] = load(in + i * ROWS + v * N);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const T s = w[m * W.ld + i];
#pragma GCC unroll 8
            for (int v = 0; v < NV; v++) acc[m][v] += s * a[v];
        }
    }
    for (int i = low; i < high; i++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            if (i < W.limit(o + m)) {
                const T s = w[m * W.ld + i];
#pragma GCC unroll 8
                for (int v = 0; v < NV; v++) acc[m][v] += s * load(in + i * ROWS + v * N);
            }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) store(out + m * ROWS + v * N, acc[m][v]);
}

// in[m] += sum_o w[o][i + m] g[o] over units begin <= o < end: the transposed product.
template <class T, int M, int NV>
ALWAYS void transposed_tile(const Weights<T> &W, int i, int begin, int whole, int end, const T *g, T *in) {
    constexpr int N = LANES<T>;
    const T *w = W.w + i;
    Vec<T> acc[M][NV];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[m][v] = load(in + m * ROWS + v * N);
    for (int o = begin; o < whole; o++) // units that see some of the M inputs
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            if (i + m < W.limit(o)) {
                const T s = w[o * W.ld + m];
#pragma GCC unroll 8
                for (int v = 0; v < NV; v++) acc[m][v] += s * load(g + o * ROWS + v * N);
            }
    for (int o = whole; o < end; o++) {
        Vec<T> a[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) a[v] = load(g + o * ROWS + v * N);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const T s = w[o * W.ld + m];
#pragma GCC unroll 8
            for (int v = 0; v < NV; v++) acc[m][v] += s * a[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) store(in + m * ROWS + v * N, acc[m][v]);
}

// dw[m][i ..] += sum_r g[m][r] at[r][i ..]: `at` is the transposed input, its rows `pad` apart.
template <class T, int M, int NV>
ALWAYS void outer_tile(const T *g, const T *at, int pad, int rows, T *dw) {
    constexpr int N = LANES<T>;
    Vec<T> acc[M][NV];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[m][v] = load(dw + m * pad + v * N);
    for (int r = 0; r < rows; r++) {
        Vec<T> a[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) a[v] = load(at + r * pad + v * N);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const T s = g[m * ROWS + r];
#pragma GCC unroll 8
            for (int v = 0; v < NV; v++) acc[m][v] += s * a[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) store(dw + m * pad + v * N, acc[m][v]);
}

// Calls f<M>(start) for tiles of at most TILE_ROWS that cover [begin, end).
template <class F> ALWAYS void tiles(int begin, int end, F &&f) {
    int at = begin;
    for (; at + TILE_ROWS <= end; at += TILE_ROWS) f.template operator()<TILE_ROWS>(at);
    switch (end - at) {
    case 5: return f.template operator()<5>(at);
    case 4: return f.template operator()<4>(at);
    case 3: return f.template operator()<3>(at);
    case 2: return f.template operator()<2>(at);
    case 1: return f.template operator()<1>(at);
    }
}

// Calls f<NV>(first vector) for groups of TILE_VECTORS, then single ones.
template <class F> ALWAYS void groups(int vectors, F &&f) {
    int at = 0;
    for (; at + TILE_VECTORS <= vectors; at += TILE_VECTORS) f.template operator()<TILE_VECTORS>(at);
    for (; at < vectors; at++) f.template operator()<1>(at);
}

// out[o] += W in, for units begin <= o < end; out points at unit `begin`.
template <class T>
void product(const Weights<T> &W, int begin, int end, const T *in, T *out, int vectors) {
    groups(vectors, [&]<int NV>(int v) {
        tiles(begin, end, [&]<int M>(int o) {
            product_tile<T, M, NV>(W, o, W.limit(o), W.limit(o + M - 1), in + v * LANES<T>,
                                   out + (o - begin) * ROWS + v * LANES<T>);
        });
    });
}

// in += W^T g over units begin <= o < end; g points at unit `begin`.
template <class T>
void transposed(const Weights<T> &W, int begin, int end, const T *g, T *in, int vectors) {
    const int seen = W.limit(end - 1);
    groups(vectors, [&]<int NV>(int v) {
        tiles(0, seen, [&]<int M>(int i) {
            const int from = most(begin, W.first(i)), whole = most(from, W.first(i + M - 1));
            transposed_tile<T, M, NV>(W, i, from, least(whole, end), end,
                                      g - begin * ROWS + v * LANES<T>, in + i * ROWS + v * LANES<T>);
        });
    });
}

// dw[o] += g in^T for units begin <= o < end; g and dw point at unit `begin`; dw's rows are `pad` apart.
template <class T>
void outer(const Weights<T> &W, int begin, int end, const T *g, const T *at, int pad, int rows, T *dw) {
    tiles(begin, end, [&]<int M>(int o) {
        const int vectors = (W.limit(o + M - 1) + LANES<T> - 1) / LANES<T>;
        groups(vectors, [&]<int NV>(int v) {
            outer_tile<T, M, NV>(g + (o - begin) * ROWS, at + v * LANES<T>, pad, rows,
                                 dw + (o - begin) * pad + v * LANES<T>);
        });
    });
}

// [feature][row] to [row][feature], features padded to whole vectors with whatever stands there.
template <class T> void to_row_major(const T *a, int features, T *at, int pad) {
    constexpr int N = LANES<T>;
    for (int i = 0; i < features; i += N)
        for (int r = 0; r < ROWS; r += N) {
            Vec<T> tile[N];
            for (int k = 0; k < N; k++) tile[k] = i + k < features ? load(a + (i + k) * ROWS + r) : Vec<T>{};
            transpose<T>(tile);
            for (int k = 0; k < N; k++) store(at + (r + k) * pad + i, tile[k]);
        }
}

} // namespace diffeo::DIFFEO_ISA
