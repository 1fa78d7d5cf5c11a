// What a call is made of: plain data, laid out by reader.hpp and module.cpp and run by the kernels of every
// instruction set. No functions, and nothing of the standard library: either would be compiled once per
// instruction set under one name, and the linker would keep one of them for all. Hence a union with a kind
// beside it, where a std::variant would bring such functions along.
#pragma once

#include <cstdint>

#include "wire.hpp"

namespace diffeo {

// Parameters of how many columns are made at once: few of them leave a product too thin.
constexpr int GROUP = 24;

// One dense layer: out = W act(in) + bias + extra + (output of layer `add`).
struct DenseSpec {
    const void *weight, *bias, *extra; // extra: (rows, out), or null
    int64_t ld;                        // distance of two rows of the weight
    int in, out;
    const int32_t *limits; // unit o sees its first limits[o] inputs, ascending; null: all
    const void *reach;     // of a net's first layer: it sees its input within +- this number; null: as it is
    bool relu;             // of the input
    double drop;           // probability with which an activation of the input is 0, the others larger by 1 / (1 - drop)
    int add;               // -1: none
    void *g_weight, *g_bias, *g_extra;
    int64_t sums; // where this layer's gradient sums begin in a worker's memory
    int pad;      // distance of two rows of those
};

struct NetSpec {
    const DenseSpec *layers;
    int num_layers;
};

// A net of all columns to all columns, with one smooth activation between its layers.
struct SmoothNetSpec {
    NetSpec stack;
    Activation activation;
    double reach; // it sees x / sqrt(1 + (x / reach)^2); 0: it sees x
};

struct FamilySpec {
    FamilyKind kind;
    int bins;
    Ends ends;
    double low, high; // affine: high bounds the log-scale
    double reach;     // spline: bounds the log-scale of an affine map behind it; 0: there is none
};

// ---- the kinds of stages; `sums`: where the stage's own gradient sums begin ---------------------------

// Columns through a family whose parameters a net gives.
struct ConditionalSpec {
    bool autoregressive;
    int num_seen, num_changed;
    const int32_t *seen, *changed; // columns
    FamilySpec family;
    NetSpec net;
    const int32_t *ready; // autoregressive: for each hidden unit the step at which it can be computed
};

struct PermuteSpec {
    const int32_t *permutation;
};

struct NormalizeSpec {
    const void *loc, *log_scale;
    void *g_loc, *g_log_scale;
    int64_t sums;
};

struct LUSpec {
    const void *weight, *log_diagonal, *bias;
    void *g_weight, *g_log_diagonal, *g_bias;
    double bound; // of the log-diagonal
    int64_t sums;
};

struct ResidualSpec {
    SmoothNetSpec net;
    bool with_x;    // x + net(x) with its log-determinant; else the net alone
    int iterations; // of the inverse, at most
    double goal;    // of the inverse
};

struct TransportSpec {
    SmoothNetSpec net;
    const void *biases; // of the first layer, (3 steps + 1, out): at the ends of the steps and at their thirds
    void *g_biases;
    int64_t sums;
    bool traced; // with the integral of the trace
    int steps;
    double span; // of time, over all steps
};

struct StageSpec {
    StageKind kind;
    bool inverted; // the stage's inverse stands in the chain
    int number;    // in the chain
    int kept;      // which of the inputs kept for the backward pass is this stage's; -1: none
    union {        // by `kind`
        ConditionalSpec conditional;
        PermuteSpec permute;
        NormalizeSpec normalize;
        LUSpec lu;
        ResidualSpec residual;
        TransportSpec transport;
    };
};

struct Call {
    const StageSpec *stages;
    int num_stages, features;
    bool inverse;
    int64_t rows;
    const void *x; // (rows, features); the gradient of y in a backward call
    void *y, *log_det;
    uint32_t seed; // of the draws
    void *saved; // (blocks, num_kept, features, ROWS): the inputs of the stages, or null
    int num_kept;
    const void *g_log_det;
    int64_t sums;    // numbers in one worker's gradient sums
    int64_t scratch; // bytes of one worker's memory, sums apart
};

using ParallelFor = int32_t (*)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void *), void *);

// A family on its own. Value i = (o, j), j < inner, has its parameters at
// params[o * outer_stride + j * row_stride + k * param_stride]; their gradients stand either as
// (count, parameters), g_param_stride = 1, or as (parameters, count), g_param_stride = count.
struct ScalarCall {
    FamilySpec family;
    bool inverse, backward;
    int64_t count, inner, outer_stride, row_stride, param_stride, g_param_stride;
    const void *x, *params, *g_y, *g_log_slope;
    void *y, *log_slope, *g_x, *g_params;
};

// Three convolutions of images, channels last: x is (images, height, width, in), its pixels `stride` numbers
// apart, y (images, height, width, out). w1 is (hidden, in, 3, 3), w2 (hidden, hidden), w3 (out, 3, 3, hidden).
// With g_y a backward call: g_x may be null, the others not.
struct ConvCall {
    int64_t images, stride;
    int height, width, in, hidden, out;
    const void *x, *w1, *b1, *w2, *b2, *w3, *b3, *g_y;
    void *y, *g_x, *g_w1, *g_b1, *g_w2, *g_b2, *g_w3, *g_b3;
};

// An instruction set's kernels.
struct Table {
    void (*run_f32)(const Call &, char *scratch, int workers, ParallelFor);
    void (*run_f64)(const Call &, char *scratch, int workers, ParallelFor);
    void (*back_f32)(const Call &, char *scratch, int workers, ParallelFor);
    void (*back_f64)(const Call &, char *scratch, int workers, ParallelFor);
    void (*scalar_f32)(const ScalarCall &, int workers, ParallelFor);
    void (*scalar_f64)(const ScalarCall &, int workers, ParallelFor);
    int64_t (*conv_memory_f32)(const ConvCall &, int workers); // bytes of one worker
    int64_t (*conv_memory_f64)(const ConvCall &, int workers);
    void (*conv_f32)(const ConvCall &, char *scratch, int workers, ParallelFor);
    void (*conv_f64)(const ConvCall &, char *scratch, int workers, ParallelFor);
};

} // namespace diffeo
