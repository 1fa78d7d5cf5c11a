// A stack of dense layers on one block of rows: forward, a column at a time, and backward.
#pragma once

#include "gemm.hpp"

namespace diffeo::DIFFEO_ISA {

// One worker's memory: a bump allocator over a region module.cpp sized.
struct Memory {
    char *at;
    template <class T> T *take(int64_t numbers) {
        T *p = reinterpret_cast<T *>(at);
        at += (numbers * int64_t(sizeof(T)) + 63) / 64 * 64;
        return p;
    }
};

template <class T> ALWAYS void clear(T *p, int64_t n) { std::memset(p, 0, size_t(n) * sizeof(T)); }

// Rows of a row-major (., columns) matrix to a feature-major block; rows from `rows` on become zero.
template <class T>
void load_block(const T *x, int64_t stride, int columns, int rows, int vectors, T *block) {
    constexpr int N = LANES<T>;
    for (int r = 0; r < vectors * N; r += N)
        for (int c = 0; c < columns; c += N) {
            if (r + N <= rows && c + N <= columns) {
                Vec<T> tile[N];
                for (int k = 0; k < N; k++) tile[k] = load(x + (r + k) * stride + c);
                transpose<T>(tile);
                for (int k = 0; k < N; k++) store(block + (c + k) * ROWS + r, tile[k]);
            } else {
                for (int j = c; j < least(c + N, columns); j++)
                    for (int k = r; k < r + N; k++) block[j * ROWS + k] = k < rows ? x[k * stride + j] : T(0);
            }
        }
}

template <class T> void store_block(const T *block, int columns, int rows, T *x, int64_t stride) {
    constexpr int N = LANES<T>;
    for (int r = 0; r < rows; r += N)
        for (int c = 0; c < columns; c += N) {
            if (r + N <= rows && c + N <= columns) {
                Vec<T> tile[N];
                for (int k = 0; k < N; k++) tile[k] = load(block + (c + k) * ROWS + r);
                transpose<T>(tile);
                for (int k = 0; k < N; k++) store(x + (r + k) * stride + c, tile[k]);
            } else {
                for (int j = c; j < least(c + N, columns); j++)
                    for (int k = r; k < least(r + N, rows); k++) x[k * stride + j] = block[j * ROWS + k];
            }
        }
}

template <class T> struct Net {
    const DenseSpec *specs;
    int layers, vectors, rows;
    uint32_t seed;
    int64_t first_row;
    T reach;            // how far the net sees
    T *in;              // [in][ROWS]
    T *raw[MAX_LAYERS]; // outputs of the hidden layers
    T *act[MAX_LAYERS]; // what the next layer sees of them

    Net(const NetSpec &net, Memory &memory) : specs(net.layers), layers(net.num_layers) {
        reach = specs[0].reach ? *static_cast<const T *>(specs[0].reach) : std::numeric_limits<T>::infinity();
        in = memory.take<T>(int64_t(specs[0].in) * ROWS);
        for (int l = 0; l + 1 < layers; l++) {
            raw[l] = memory.take<T>(int64_t(specs[l].out) * ROWS);
            act[l] = specs[l + 1].relu ? memory.take<T>(int64_t(specs[l].out) * ROWS) : raw[l];
        }
    }
    void at_rows(int64_t first, int n, int v, uint32_t draws) {
        seed = draws;
        first_row = first;
        rows = n;
        vectors = v;
    }
    Weights<T> weights(int l) const {
        const DenseSpec &d = specs[l];
        return {static_cast<const T *>(d.weight), d.ld, d.in, d.out, d.limits};
    }
    const T *input(int l) const { return l ? act[l - 1] : in; }
    // Feature i of the input, within the net's reach; NaN stays.
    void see(int i, const T *x) const {
        const Vec<T> high = splat<T>(reach);
        for (int r = 0; r < ROWS; r += LANES<T>) store(in + i * ROWS + r, max(min(load(x + r), high), -high));
    }

    // Units begin <= o < end of layer l, into `out`, which points at unit `begin`.
    void units(int l, int begin, int end, T *out) const {
        const DenseSpec &d = specs[l];
        const T *bias = static_cast<const T *>(d.bias), *extra = static_cast<const T *>(d.extra);
        constexpr int N = LANES<T>;
        if (extra) load_block<T>(extra + first_row * d.out + begin, d.out, end - begin, rows, vectors, out);
        for (int o = begin; o < end; o++) {
            const Vec<T> b = splat<T>(bias ? bias[o] : T(0));
            for (int v = 0; v < vectors; v++) {
                T *p = out + (o - begin) * ROWS + v * N;
                Vec<T> sum = extra ? load(p) + b : b;
                if (d.add >= 0) sum += load(raw[d.add] + o * ROWS + v * N);
                store(p, sum);
            }
        }
        product<T>(weights(l), begin, end, input(l), out, vectors);
    }

    // Units of a hidden layer, and their activations.
    void hidden(int l, int begin, int end) const {
        units(l, begin, end, raw[l] + begin * ROWS);
        if (act[l] == raw[l]) return;
        const DenseSpec &next = specs[l + 1];
        for (int o = begin; o < end; o++)
            for (int v = 0; v < vectors; v++) {
                Vec<T> h = load(raw[l] + o * ROWS + v * LANES<T>);
                h = h < 0 ? Vec<T>{} : h; // NaN stays: it must reach the density of its row
                if (next.drop > 0) h *= kept(l + 1, o, v);
                store(act[l] + o * ROWS + v * LANES<T>, h);
            }
    }
    // 0 with probability drop, else 1 / (1 - drop): drawn by hashing where the activation stands, so that every
    // pass over the same rows draws the same. functional/stages.py has it in PyTorch.
    Vec<T> kept(int l, int unit, int v) const {
        const DenseSpec &d = specs[l];
        const uint32_t threshold = uint32_t(d.drop * 4294967296.0);
        const T scale = T(1.0 / (1.0 - d.drop));
        Vec<T> factor;
        for (int j = 0; j < LANES<T>; j++) {
            uint32_t x = uint32_t(first_row + v * LANES<T> + j) * uint32_t(d.in) + uint32_t(unit);
            x ^= seed + uint32_t(l) * 0x85ebca6bu;
            x = (x ^ (x >> 16)) * 0x7feb352du;
            x = (x ^ (x >> 15)) * 0x846ca68bu;
            x ^= x >> 16;
            factor[j] = x >= threshold ? scale : T(0);
        }
        return factor;
    }
    void all_hidden() const {
        for (int l = 0; l + 1 < layers; l++) hidden(l, 0, specs[l].out);
    }
};

// The gradient's way back through a net, on one block.
template <class T> struct NetBack {
    const Net<T> &net;
    T *sums;              // this worker's gradient sums
    T *g_raw[MAX_LAYERS]; // of the hidden layers' outputs
    T *g_act, *g_in;      // of the input of the layer at hand; of the net's input
    T *at;                // a layer's input, row-major

    NetBack(const Net<T> &net, T *sums, Memory &memory) : net(net), sums(sums) {
        int64_t widest = 0, pad = 0;
        for (int l = 0; l < net.layers; l++) {
            if (l + 1 < net.layers) g_raw[l] = memory.take<T>(int64_t(net.specs[l].out) * ROWS);
            widest = net.specs[l].in > widest ? net.specs[l].in : widest;
            pad = net.specs[l].pad > pad ? net.specs[l].pad : pad;
        }
        g_act = memory.take<T>(widest * ROWS);
        g_in = memory.take<T>(int64_t(net.specs[0].in) * ROWS);
        at = memory.take<T>(pad * ROWS);
    }

    void begin() {
        for (int l = 0; l + 1 < net.layers; l++) clear(g_raw[l], int64_t(net.specs[l].out) * ROWS);
        enter(net.layers - 1);
    }
    void enter(int l) {
        clear(g_act, int64_t(net.specs[l].in) * ROWS);
        if (net.specs[l].g_weight) to_row_major<T>(net.input(l), net.specs[l].in, at, net.specs[l].pad);
    }
    // Units begin <= o < end of layer l, whose gradient is g (at unit `begin`).
    void units(int l, int begin, int end, const T *g) {
        const DenseSpec &d = net.specs[l];
        const Weights<T> W = net.weights(l);
        transposed<T>(W, begin, end, g, g_act, net.vectors);
        if (d.g_weight)
            outer<T>(W, begin, end, g, at, d.pad, net.rows, sums + d.sums + int64_t(begin) * d.pad);
        if (d.g_bias) {
            T *bias = sums + d.sums + (d.g_weight ? int64_t(d.out) * d.pad : 0);
            for (int o = begin; o < end; o++) {
                Vec<T> total{};
                for (int v = 0; v < net.vectors; v++) total += load(g + (o - begin) * ROWS + v * LANES<T>);
                bias[o] += sum<T>(total);
            }
        }
        if (d.g_extra)
            store_block<T>(g, end - begin, net.rows, static_cast<T *>(d.g_extra) + net.first_row * d.out + begin,
                           d.out);
    }
    // What layer l leaves in g_act goes to the outputs of the layer below it.
    void leave(int l) {
        const int64_t n = int64_t(net.specs[l].in) * ROWS;
        T *below = l ? g_raw[l - 1] : g_in;
        const bool relu = net.specs[l].relu;
        const T scale = T(1.0 / (1.0 - net.specs[l].drop));
        const T *act = net.input(l);
        for (int64_t i = 0; i < n; i += LANES<T>) {
            Vec<T> g = load(g_act + i);
            if (relu) g = load(act + i) > 0 ? g * scale : Vec<T>{};
            store(below + i, l ? load(below + i) + g : g);
        }
    }
    // After every unit of the last layer: the rest of the way, to g_in.
    void finish() {
        leave(net.layers - 1);
        for (int l = net.layers - 2; l >= 0; l--) {
            const DenseSpec &d = net.specs[l];
            if (d.add >= 0)
                for (int64_t i = 0; i < int64_t(d.out) * ROWS; i += LANES<T>)
                    store(g_raw[d.add] + i, load(g_raw[d.add] + i) + load(g_raw[l] + i));
            enter(l);
            units(l, 0, d.out, g_raw[l]);
            leave(l);
        }
    }
};

} // namespace diffeo::DIFFEO_ISA
