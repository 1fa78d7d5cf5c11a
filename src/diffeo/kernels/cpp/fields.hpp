// Stages made of a smooth net of all columns: residual blocks, and transport along a field.
#pragma once

#include "stages.hpp"
#include "tangents.hpp"

namespace diffeo::DIFFEO_ISA {

template <class T> ALWAYS void add(T *to, T by, const T *a, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES<T>) store(to + i, load(to + i) + by * load(a + i));
}

// ---- y = x + g(x), g a contraction --------------------------------------------------------------------

// Elimination of I + J without pivots: since |J| < 1 its symmetric part is positive, so every pivot is.
template <class T> struct Determinant {
    static constexpr int N = LANES<T>;
    Vec<T> m[MAX_COLUMNS][MAX_COLUMNS], inverse[MAX_COLUMNS][MAX_COLUMNS];

    // The log-determinant; INVERSE: and the inverse.
    template <bool INVERSE> Vec<T> eliminate(const T *jacobian, int D, int v) {
        for (int i = 0; i < D; i++)
            for (int j = 0; j < D; j++) {
                m[i][j] = load(jacobian + (j * D + i) * ROWS + v * N) + (i == j ? T(1) : T(0));
                if (INVERSE) inverse[i][j] = splat<T>(i == j ? T(1) : T(0));
            }
        Vec<T> determinant = splat<T>(T(1));
        for (int p = 0; p < D; p++) {
            determinant *= m[p][p];
            const Vec<T> by = T(1) / m[p][p];
            for (int i = INVERSE ? 0 : p + 1; i < D; i++) {
                if (i == p) continue;
                const Vec<T> factor = m[i][p] * by;
                for (int j = p; j < D; j++) m[i][j] -= factor * m[p][j];
                if (INVERSE)
                    for (int j = 0; j < D; j++) inverse[i][j] -= factor * inverse[p][j];
            }
            if (INVERSE)
                for (int j = 0; j < D; j++) {
                    m[p][j] *= by;
                    inverse[p][j] *= by;
                }
        }
        return log<T>(determinant);
    }
};

template <class T> struct Residual {
    static constexpr int N = LANES<T>;
    Block<T> &block;
    const bool with_x;
    TangentNet<T> net;
    const T *bias;

    Residual(const ResidualSpec &spec, Block<T> &block)
        : block(block), with_x(spec.with_x),
          net(spec.net, with_x ? block.features : 0, block.rows, block.vectors, block.first_row, block.memory),
          bias(static_cast<const T *>(spec.net.stack.layers[0].bias)) {}

    void run() {
        if (!with_x) {
            net.template forward<false>(block.x, bias);
            std::memcpy(block.x, net.out, size_t(block.features) * ROWS * sizeof(T));
            return;
        }
        net.template forward<true>(block.x, bias);
        add_log_det(T(1));
        add<T>(block.x, T(1), net.out, int64_t(block.features) * ROWS);
    }
    void add_log_det(T sign) {
        Determinant<T> determinant;
        for (int v = 0; v < block.vectors; v++) {
            const Vec<T> found = determinant.template eliminate<false>(net.jacobian, block.features, v);
            store(block.log_det + v * N, load(block.log_det + v * N) + sign * found);
        }
    }

    // Solves x + g(x) = y by Broyden's method from the Jacobian at y; a step that does not shrink a row's residual
    // is undone, and that row goes on with a step of plain iteration, which shrinks it for sure. A row is done when
    // its residual is at most goal (1 + |y|); one that never is becomes NaN.
    void inverse(T goal, int iterations) {
        const int D = block.features;
        const int64_t size = int64_t(D) * ROWS;
        T *y = block.memory.template take<T>(size), *f = block.memory.template take<T>(size);
        T *trial = block.memory.template take<T>(size), *h = block.memory.template take<T>(D * size);
        std::memcpy(y, block.x, size_t(size) * sizeof(T));
        T *x = block.x;
        net.template forward<true>(x, bias);
        Determinant<T> determinant;
        for (int v = 0; v < block.vectors; v++) {
            determinant.template eliminate<true>(net.jacobian, D, v);
            for (int i = 0; i < D; i++) {
                store(f + i * ROWS + v * N, load(net.out + i * ROWS + v * N)); // x is y
                for (int j = 0; j < D; j++) store(h + (i * D + j) * ROWS + v * N, determinant.inverse[i][j]);
            }
        }
        for (int n = 0; n < iterations && !done(y, f, goal); n++) {
            for (int v = 0; v < block.vectors; v++)
                for (int i = 0; i < D; i++)
                    store(trial + i * ROWS + v * N, load(x + i * ROWS + v * N) - times(h, f, i, v));
            net.template forward<false>(trial, bias);
            for (int v = 0; v < block.vectors; v++) judge(x, y, f, trial, h, v);
        }
        for (int v = 0; v < block.vectors; v++) {
            const Int<T> missed = norm(f, v) > goal * (T(1) + norm(y, v));
            for (int i = 0; i < D; i++) {
                T *p = x + i * ROWS + v * N;
                store(p, missed ? splat<T>(std::numeric_limits<T>::quiet_NaN()) : load(p));
            }
        }
        net.template forward<true>(x, bias);
        add_log_det(T(-1));
    }
    Vec<T> norm(const T *a, int v) const {
        Vec<T> total{};
        for (int i = 0; i < block.features; i++) total += load(a + i * ROWS + v * N) * load(a + i * ROWS + v * N);
        return sqrt(total);
    }
    bool done(const T *y, const T *f, T goal) const {
        for (int v = 0; v < block.vectors; v++) {
            const Int<T> over = norm(f, v) > goal * (T(1) + norm(y, v)); // a NaN is not
            for (int j = 0; j < N; j++)
                if (over[j]) return false;
        }
        return true;
    }
    Vec<T> times(const T *h, const T *f, int i, int v) const {
        Vec<T> total{};
        for (int j = 0; j < block.features; j++)
            total += load(h + (i * block.features + j) * ROWS + v * N) * load(f + j * ROWS + v * N);
        return total;
    }
    // Takes the step where it shrank the residual, and learns from it: with s = -H f, H becomes
    // H - (H f') (s' H) / s'(s + H f').
    void judge(T *x, const T *y, T *f, const T *trial, T *h, int v) const {
        const int D = block.features;
        Vec<T> next[MAX_COLUMNS], step[MAX_COLUMNS], ahead[MAX_COLUMNS], size{}, dot{};
        for (int i = 0; i < D; i++) {
            const int64_t at = i * ROWS + v * N;
            next[i] = load(trial + at) + load(net.out + at) - load(y + at);
            step[i] = load(trial + at) - load(x + at);
            size += next[i] * next[i];
        }
        const Int<T> better = sqrt(size) < norm(f, v);
        for (int i = 0; i < D; i++) {
            ahead[i] = Vec<T>{};
            for (int j = 0; j < D; j++) ahead[i] += load(h + (i * D + j) * ROWS + v * N) * next[j];
            dot += step[i] * (step[i] + ahead[i]);
        }
        const Vec<T> by = dot == 0 ? Vec<T>{} : T(1) / dot;
        Vec<T> row[MAX_COLUMNS]; // s' H
        for (int j = 0; j < D; j++) {
            row[j] = Vec<T>{};
            for (int i = 0; i < D; i++) row[j] += step[i] * load(h + (i * D + j) * ROWS + v * N);
        }
        for (int i = 0; i < D; i++) {
            const int64_t at = i * ROWS + v * N;
            for (int j = 0; j < D; j++) {
                T *p = h + (i * D + j) * ROWS + v * N;
                store(p, better ? load(p) - ahead[i] * row[j] * by : splat<T>(i == j ? T(1) : T(0)));
            }
            store(x + at, better ? load(trial + at) : load(x + at));
            store(f + at, better ? next[i] : load(f + at));
        }
    }
    void back(const T *x) {
        const DenseSpec &first = net.specs[0];
        const int D = block.features;
        net.template forward<true>(x, bias);
        T *g_jacobian = block.memory.template take<T>(int64_t(D) * D * ROWS);
        T *g_out = block.memory.template take<T>(int64_t(D) * ROWS);
        std::memcpy(g_out, block.x, size_t(D) * ROWS * sizeof(T));
        if (!with_x) clear(block.x, int64_t(D) * ROWS);
        Determinant<T> determinant;
        for (int v = 0; with_x && v < block.vectors; v++) {
            determinant.template eliminate<true>(net.jacobian, D, v);
            const Vec<T> g = load(block.log_det + v * N);
            for (int k = 0; k < D; k++)
                for (int o = 0; o < D; o++) store(g_jacobian + (k * D + o) * ROWS + v * N, g * determinant.inverse[k][o]);
        }
        T *g_bias = first.g_bias ? block.sums + first.sums + (first.g_weight ? int64_t(first.out) * first.pad : 0) : nullptr;
        T *g_extra = nullptr;
        if (first.g_extra) {
            g_extra = block.memory.template take<T>(int64_t(first.out) * ROWS);
            clear(g_extra, int64_t(first.out) * ROWS);
        }
        net.back(g_out, g_jacobian, block.x, block.sums, g_bias, g_extra);
        if (g_extra)
            store_block<T>(g_extra, first.out, block.rows,
                           static_cast<T *>(first.g_extra) + block.first_row * first.out, first.out);
    }
};

// ---- dx/dt = v(x, t), by Kutta's 3/8 rule -------------------------------------------------------------

// Evaluation e of a step is at time e / 3 of it, at x + h sum_j REACH[e][j] k_j; the step is h sum_e WEIGHT[e] k_e.
constexpr double REACH[4][3] = {{0, 0, 0}, {1.0 / 3, 0, 0}, {-1.0 / 3, 1, 0}, {1, -1, 1}};
constexpr double WEIGHT[4] = {1.0 / 8, 3.0 / 8, 3.0 / 8, 1.0 / 8};

template <class T> struct Transport {
    static constexpr int N = LANES<T>;
    const TransportSpec &spec;
    Block<T> &block;
    TangentNet<T> net;
    const int D;
    const int64_t size;

    Transport(const TransportSpec &spec, Block<T> &block)
        : spec(spec), block(block),
          net(spec.net, spec.traced ? block.features : 0, block.rows, block.vectors, block.first_row, block.memory),
          D(block.features), size(int64_t(block.features) * ROWS) {}

    // Where the first layer's bias at evaluation e of step n stands.
    int64_t time(int n, int e, bool inverse) const {
        const int third = 3 * n + e;
        return int64_t(inverse ? 3 * spec.steps - third : third) * net.specs[0].out;
    }
    template <bool TRACE> void evaluate(const T *x, int n, int e, bool inverse) {
        net.template forward<TRACE>(x, static_cast<const T *>(spec.biases) + time(n, e, inverse));
    }
    // One step from x, in place; `points`, where not null, keeps the four places of evaluation.
    template <bool TRACE> void step(T *x, T *points, int n, T h, bool inverse) {
        T *point = block.memory.template take<T>(size), *rates = block.memory.template take<T>(4 * size);
        for (int e = 0; e < 4; e++) {
            std::memcpy(point, x, size_t(size) * sizeof(T));
            for (int j = 0; j < e; j++) add<T>(point, h * T(REACH[e][j]), rates + j * size, size);
            if (points) std::memcpy(points + e * size, point, size_t(size) * sizeof(T));
            evaluate<TRACE>(point, n, e, inverse);
            std::memcpy(rates + e * size, net.out, size_t(size) * sizeof(T));
            for (int k = 0; TRACE && k < D; k++)
                add<T>(block.log_det, h * T(WEIGHT[e]), net.jacobian + (k * D + k) * ROWS, ROWS);
        }
        for (int e = 0; e < 4; e++) add<T>(x, h * T(WEIGHT[e]), rates + e * size, size);
    }
    void run(bool inverse) {
        const T h = T((inverse ? -spec.span : spec.span) / spec.steps);
        for (int n = 0; n < spec.steps; n++) {
            const Memory mark = block.memory;
            if (spec.traced) step<true>(block.x, nullptr, n, h, inverse);
            else step<false>(block.x, nullptr, n, h, inverse);
            block.memory = mark;
        }
    }
    // The gradient of the steps themselves: each taken back through its four evaluations.
    void back(const T *x) {
        const DenseSpec &first = net.specs[0];
        const T h = T(spec.span / spec.steps);
        T *points = block.memory.template take<T>(4 * spec.steps * size);
        T *state = block.memory.template take<T>(size), *g_points = block.memory.template take<T>(4 * size);
        T *g_out = block.memory.template take<T>(size);
        T *g_jacobian = block.memory.template take<T>(D * size), *g_extra = nullptr;
        if (first.g_extra) {
            g_extra = block.memory.template take<T>(int64_t(first.out) * ROWS);
            clear(g_extra, int64_t(first.out) * ROWS);
        }
        std::memcpy(state, x, size_t(size) * sizeof(T));
        const Memory mark = block.memory;
        for (int n = 0; n < spec.steps; n++) {
            step<false>(state, points + 4 * n * size, n, h, false);
            block.memory = mark;
        }
        clear(g_jacobian, D * size);
        for (int n = spec.steps - 1; n >= 0; n--) {
            clear(g_points, 4 * size);
            for (int e = 3; e >= 0; e--) {
                clear(g_out, size);
                add<T>(g_out, h * T(WEIGHT[e]), block.x, size);
                for (int m = e + 1; m < 4; m++) add<T>(g_out, h * T(REACH[m][e]), g_points + m * size, size);
                for (int k = 0; spec.traced && k < D; k++) {
                    T *diagonal = g_jacobian + (k * D + k) * ROWS;
                    clear(diagonal, ROWS);
                    add<T>(diagonal, h * T(WEIGHT[e]), block.log_det, ROWS);
                }
                const T *point = points + (4 * n + e) * size;
                evaluate<true>(point, n, e, false);
                T *g_bias = spec.g_biases ? block.sums + spec.sums + time(n, e, false) : nullptr;
                net.back(g_out, g_jacobian, g_points + e * size, block.sums, g_bias, g_extra);
            }
            for (int e = 0; e < 4; e++) add<T>(block.x, T(1), g_points + e * size, size);
        }
        if (g_extra)
            store_block<T>(g_extra, first.out, block.rows,
                           static_cast<T *>(first.g_extra) + block.first_row * first.out, first.out);
    }
};

} // namespace diffeo::DIFFEO_ISA
