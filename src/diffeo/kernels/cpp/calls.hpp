// Whole calls: rows cut into blocks, blocks dealt to workers.
#pragma once

#include "fields.hpp"

namespace diffeo::DIFFEO_ISA {

// ---- one stage, whichever it is -------------------------------------------------------------------

template <class T> void run_stage(const StageSpec &stage, Block<T> &block, bool inverse) {
    const Memory mark = block.memory;
    inverse = inverse != stage.inverted;
    switch (stage.kind) {
    case StageKind::conditional:
        if (stage.conditional.family.bins == 8)
            Conditional<T, 8>(stage.conditional, stage.number, block).run(inverse);
        else Conditional<T, 0>(stage.conditional, stage.number, block).run(inverse);
        break;
    case StageKind::permute: permute(stage.permute, block, inverse); break;
    case StageKind::normalize: normalize(stage.normalize, block, inverse); break;
    case StageKind::lu: LU<T>(stage.lu, block).run(inverse); break;
    case StageKind::residual:
        if (inverse) Residual<T>(stage.residual, block).inverse(T(stage.residual.goal), stage.residual.iterations);
        else Residual<T>(stage.residual, block).run();
        break;
    case StageKind::transport: Transport<T>(stage.transport, block).run(inverse); break;
    }
    block.memory = mark;
}

// The gradient of a stage's own map (module.cpp refuses inverses, but for permutations); x: its input.
template <class T> void back_stage(const StageSpec &stage, Block<T> &block, const T *x, bool inverse) {
    const Memory mark = block.memory;
    switch (stage.kind) {
    case StageKind::conditional:
        if (stage.conditional.family.bins == 8) Conditional<T, 8>(stage.conditional, stage.number, block).back(x);
        else Conditional<T, 0>(stage.conditional, stage.number, block).back(x);
        break;
    case StageKind::permute: permute(stage.permute, block, inverse == stage.inverted); break;
    case StageKind::normalize: normalize_back(stage.normalize, block, x); break;
    case StageKind::lu: LU<T>(stage.lu, block).back(stage.lu, x); break;
    case StageKind::residual: Residual<T>(stage.residual, block).back(x); break;
    case StageKind::transport: Transport<T>(stage.transport, block).back(x); break;
    }
    block.memory = mark;
}

// f(worker) for each worker, by torch's threads. Which blocks a worker has depends on their number alone.
template <class F> void each_worker(int workers, ParallelFor parallel_for, F &&f) {
    if (workers == 1 || !parallel_for) {
        for (int w = 0; w < workers; w++) f(w);
        return;
    }
    parallel_for(
        0, workers, 1,
        [](int64_t begin, int64_t end, void *context) {
            for (int64_t w = begin; w < end; w++) (*static_cast<std::remove_reference_t<F> *>(context))(int(w));
        },
        &f);
}

template <class T> Block<T> block_at(const Call &call, int64_t b, Memory &memory) {
    Block<T> block;
    block.first_row = b * ROWS;
    const int64_t left = call.rows - block.first_row;
    block.rows = left < ROWS ? int(left) : ROWS;
    block.vectors = (block.rows + LANES<T> - 1) / LANES<T>;
    block.features = call.features;
    block.seed = call.seed;
    block.x = memory.take<T>(int64_t(call.features) * ROWS);
    block.log_det = memory.take<T>(ROWS);
    block.memory = memory;
    return block;
}

template <class T> T *saved_at(const Call &call, int64_t b, const StageSpec &stage) {
    if (!call.saved || stage.kept < 0) return nullptr;
    return static_cast<T *>(call.saved) + (b * call.num_kept + stage.kept) * call.features * ROWS;
}

template <class T> void run(const Call &call, char *scratch, int workers, ParallelFor parallel_for) {
    const int64_t blocks = (call.rows + ROWS - 1) / ROWS;
    each_worker(workers, parallel_for, [&](int worker) {
        for (int64_t b = blocks * worker / workers; b < blocks * (worker + 1) / workers; b++) {
            Memory memory{scratch + worker * call.scratch};
            Block<T> block = block_at<T>(call, b, memory);
            load_block<T>(static_cast<const T *>(call.x) + block.first_row * call.features, call.features,
                          call.features, block.rows, block.vectors, block.x);
            clear(block.log_det, ROWS);
            for (int i = 0; i < call.num_stages; i++) {
                const int s = call.inverse ? call.num_stages - 1 - i : i;
                if (T *kept = saved_at<T>(call, b, call.stages[s]))
                    std::memcpy(kept, block.x, size_t(call.features) * ROWS * sizeof(T));
                run_stage(call.stages[s], block, call.inverse);
            }
            store_block<T>(block.x, call.features, block.rows,
                           static_cast<T *>(call.y) + block.first_row * call.features, call.features);
            std::memcpy(static_cast<T *>(call.log_det) + block.first_row, block.log_det,
                        size_t(block.rows) * sizeof(T));
        }
    });
}

// One gradient out of the workers' sums: rows of a weight stand `pad` apart there, masked entries are 0.
template <class T>
void gather(const T *sums, int64_t distance, int workers, int64_t at, int rows, int columns, int pad,
            const int32_t *limits, void *to) {
    T *out = static_cast<T *>(to);
    for (int r = 0; out && r < rows; r++) {
        const T *from = sums + at + int64_t(r) * pad;
        const int seen = limits ? limits[r] : columns;
        T *row = out + int64_t(r) * columns;
        std::memcpy(row, from, size_t(seen) * sizeof(T));
        std::memset(row + seen, 0, size_t(columns - seen) * sizeof(T));
        for (int w = 1; w < workers; w++)
            for (int c = 0; c < seen; c++) row[c] += from[w * distance + c];
    }
}

template <class T> void gather_net(const Call &call, const NetSpec &net, const T *sums, int workers) {
    const int64_t n = call.sums;
    for (int l = 0; l < net.num_layers; l++) {
        const DenseSpec &d = net.layers[l];
        gather<T>(sums, n, workers, d.sums, d.out, d.in, d.pad, d.limits, d.g_weight);
        gather<T>(sums, n, workers, d.sums + (d.g_weight ? int64_t(d.out) * d.pad : 0), 1, d.out, d.out, nullptr,
                  d.g_bias);
    }
}

template <class T> void gather_stage(const Call &call, const StageSpec &stage, const T *sums, int workers) {
    const int64_t n = call.sums;
    const int D = call.features;
    switch (stage.kind) {
    case StageKind::conditional: gather_net(call, stage.conditional.net, sums, workers); break;
    case StageKind::permute: break;
    case StageKind::normalize: {
        const NormalizeSpec &s = stage.normalize;
        gather<T>(sums, n, workers, s.sums, 1, D, D, nullptr, s.g_loc);
        gather<T>(sums, n, workers, s.sums + D, 1, D, D, nullptr, s.g_log_scale);
        break;
    }
    case StageKind::lu: {
        const LUSpec &s = stage.lu;
        const int64_t diagonal = s.sums + int64_t(D) * D;
        gather<T>(sums, n, workers, s.sums, D, D, D, nullptr, s.g_weight);
        gather<T>(sums, n, workers, diagonal, 1, D, D, nullptr, s.g_log_diagonal);
        gather<T>(sums, n, workers, diagonal + D, 1, D, D, nullptr, s.g_bias);
        break;
    }
    case StageKind::residual: gather_net(call, stage.residual.net.stack, sums, workers); break;
    case StageKind::transport: {
        const TransportSpec &s = stage.transport;
        const int units = s.net.stack.layers[0].out;
        gather_net(call, s.net.stack, sums, workers);
        gather<T>(sums, n, workers, s.sums, 3 * s.steps + 1, units, units, nullptr, s.g_biases);
        break;
    }
    }
}

// call.x is the gradient of y and call.y that of the input; the stages' own gradients go where they say.
template <class T> void back(const Call &call, char *scratch, int workers, ParallelFor parallel_for) {
    const int64_t blocks = (call.rows + ROWS - 1) / ROWS;
    const int64_t bytes = (call.sums * int64_t(sizeof(T)) + 63) / 64 * 64, distance = bytes / int64_t(sizeof(T));
    T *all_sums = reinterpret_cast<T *>(scratch);
    each_worker(workers, parallel_for, [&](int worker) {
        T *sums = all_sums + worker * distance;
        clear(sums, call.sums);
        for (int64_t b = blocks * worker / workers; b < blocks * (worker + 1) / workers; b++) {
            Memory memory{scratch + workers * bytes + worker * call.scratch};
            Block<T> block = block_at<T>(call, b, memory);
            block.sums = sums;
            load_block<T>(static_cast<const T *>(call.x) + block.first_row * call.features, call.features,
                          call.features, block.rows, block.vectors, block.x);
            load_block<T>(static_cast<const T *>(call.g_log_det) + block.first_row, 1, 1, block.rows,
                          block.vectors, block.log_det);
            for (int i = call.num_stages - 1; i >= 0; i--) {
                const int s = call.inverse ? call.num_stages - 1 - i : i;
                back_stage(call.stages[s], block, saved_at<T>(call, b, call.stages[s]), call.inverse);
            }
            store_block<T>(block.x, call.features, block.rows,
                           static_cast<T *>(call.y) + block.first_row * call.features, call.features);
        }
    });
    Call reduced = call;
    reduced.sums = distance;
    for (int s = 0; s < call.num_stages; s++) gather_stage<T>(reduced, call.stages[s], all_sums, workers);
}

// ---- a family on its own -----------------------------------------------------------------------------

// Parameters of LANES values at a time are brought to [parameter][lane], worked on, and brought back.
template <class T, bool inverse, bool backward, int K>
void scalar_range(const ScalarCall &call, int64_t begin, int64_t end) {
    constexpr int N = LANES<T>;
    const Family<T, K> family(call.family);
    const int P = family.num_params();
    alignas(BYTES) T params[(3 * MAX_BINS + 1) * N], g_params[(3 * MAX_BINS + 1) * N]; // the most of any family
    auto param = [&](int k) ALWAYS_LAMBDA { return load(params + k * N); };
    auto put = [&](int k, Vec<T> v) ALWAYS_LAMBDA { store(g_params + k * N, v); };
    auto read = [&](const void *p, int64_t i, int n) ALWAYS_LAMBDA {
        if (n == N) return load(static_cast<const T *>(p) + i);
        Vec<T> v{};
        for (int j = 0; j < n; j++) v[j] = static_cast<const T *>(p)[i + j];
        return v;
    };
    auto write = [&](void *p, int64_t i, int n, Vec<T> v) ALWAYS_LAMBDA {
        if (n == N) return store(static_cast<T *>(p) + i, v);
        for (int j = 0; j < n; j++) static_cast<T *>(p)[i + j] = v[j];
    };
    int64_t outer = begin / call.inner, inner = begin % call.inner;
    for (int64_t i = begin; i < end; i += N) {
        const int n = end - i < N ? int(end - i) : N;
        int64_t place[N];
        for (int j = 0; j < N; j++) {
            place[j] = outer * call.outer_stride + inner * call.row_stride;
            if (j < n && ++inner == call.inner) {
                inner = 0;
                outer++;
            }
            if (j >= n) place[j] = place[0];
        }
        bool near = true; // the lanes' parameters stand side by side
        for (int j = 0; j < N; j++) near = near && place[j] == place[0] + j;
        const T *p = static_cast<const T *>(call.params);
        for (int k = 0; k < P; k++) {
            const T *q = p + k * call.param_stride;
            if (near) store(params + k * N, load(q + place[0]));
            else
                for (int j = 0; j < N; j++) params[k * N + j] = q[place[j]];
        }
        const Vec<T> x = read(call.x, i, n);
        if constexpr (!backward) {
            Vec<T> log_slope;
            write(call.y, i, n, apply<T, inverse, K>(family, x, param, log_slope));
            write(call.log_slope, i, n, log_slope);
        } else {
            write(call.g_x, i, n,
                  pull_back<T, inverse, K>(family, x, param, read(call.g_y, i, n), read(call.g_log_slope, i, n), put));
            T *g = static_cast<T *>(call.g_params);
            for (int k = 0; k < P; k++) {
                T *q = g + k * call.g_param_stride;
                if (call.g_param_stride != 1 && n == N) store(q + i, load(g_params + k * N));
                else
                    for (int j = 0; j < n; j++) q[(call.g_param_stride == 1 ? (i + j) * P : i + j)] = g_params[k * N + j];
            }
        }
    }
}

template <class T, int K> void scalar_range(const ScalarCall &call, int64_t begin, int64_t end) {
    if (call.backward) {
        if (call.inverse) scalar_range<T, true, true, K>(call, begin, end);
        else scalar_range<T, false, true, K>(call, begin, end);
    } else {
        if (call.inverse) scalar_range<T, true, false, K>(call, begin, end);
        else scalar_range<T, false, false, K>(call, begin, end);
    }
}

template <class T> void scalar(const ScalarCall &call, int workers, ParallelFor parallel_for) {
    const int64_t chunk = (call.count / workers + LANES<T> - 1) / LANES<T> * LANES<T>;
    each_worker(workers, parallel_for, [&](int worker) {
        const int64_t begin = chunk * worker < call.count ? chunk * worker : call.count;
        const int64_t end = worker + 1 == workers || begin + chunk > call.count ? call.count : begin + chunk;
        if (call.family.bins == 8) scalar_range<T, 8>(call, begin, end);
        else scalar_range<T, 0>(call, begin, end);
    });
}

} // namespace diffeo::DIFFEO_ISA
