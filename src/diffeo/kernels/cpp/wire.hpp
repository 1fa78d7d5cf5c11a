// What crosses from Python into the kernels, in one table: codes, limits, and which number follows which.
// functional/wire.py is the same table in Python. module.cpp exports this one as the compiler sees it, and
// tests/kernels/test_wire.py compares the two, name by name.
//
// A chain of stages comes as three lists: whole numbers, reals, and addresses of tensors (0: none). Records fill
// them, one after the other, each with its own part of each list:
//
//     the chain        Program, then its stages
//     a stage          Stage, then by its kind
//         conditional  Conditional, Scalar, then a Dense for each layer
//         permute      Permute
//         normalize    Normalize
//         lu           LU
//         residual     Residual, SmoothNet, then a Dense for each layer
//         transport    Transport, SmoothNet, then a Dense for each layer
//
// What the fields mean stands in wire.py; what becomes of them in stage_spec.hpp. A family on its own and the
// convolutions of images need no records: their numbers are named arguments (module.cpp).
#pragma once

#include <cstdint>

namespace diffeo {

// An enum whose codes count from 0, and its names as they stand here.
#define DIFFEO_CODES(name, ...)                                                                                    \
    enum class name { __VA_ARGS__ };                                                                               \
    constexpr const char *name##_names = #__VA_ARGS__;

DIFFEO_CODES(StageKind, conditional, permute, normalize, lu, residual, transport)
DIFFEO_CODES(FamilyKind, additive, affine, spline)
DIFFEO_CODES(Ends, fixed, open, joined)
DIFFEO_CODES(Activation, sine, tanh, silu)

constexpr int ROWS = 64;       // of a block, and the stride of every feature-major buffer
constexpr int MAX_LAYERS = 64; // of a net
constexpr int MAX_BINS = 64;   // of a spline
constexpr int MAX_COLUMNS = 8; // whose Jacobian is computed in full
constexpr int MAX_STEPS = 4096;           // of a solver
constexpr int MAX_ITERATIONS = 1'000'000; // of a residual block's inverse

namespace wire {

// An address, and where its gradient goes; null: none, nowhere.
struct Tensor {
    void *data, *gradient;
};

// A record: its whole numbers, its reals and its tensors, each read in the order they are listed in.
#define DIFFEO_RECORD(name, i, r, t)                                                                               \
    struct name {                                                                                                  \
        DIFFEO_INTS i DIFFEO_REALS r DIFFEO_TENSORS t                                                              \
        static constexpr const char *order[] = {DIFFEO_TEXT i, DIFFEO_TEXT r, DIFFEO_TEXT t};                      \
        template <class Reader> void read(Reader &from) {                                                          \
            from.integers i;                                                                                       \
            from.reals r;                                                                                          \
            from.tensors t;                                                                                        \
        }                                                                                                          \
    };
#define DIFFEO_INTS(...) __VA_OPT__(int64_t __VA_ARGS__;)
#define DIFFEO_REALS(...) __VA_OPT__(double __VA_ARGS__;)
#define DIFFEO_TENSORS(...) __VA_OPT__(Tensor __VA_ARGS__;)
#define DIFFEO_TEXT(...) #__VA_ARGS__

DIFFEO_RECORD(Program, (num_stages), (), ())
DIFFEO_RECORD(Stage, (kind, inverted), (), ())
DIFFEO_RECORD(Conditional, (autoregressive, num_seen, num_changed, num_layers), (), (seen, changed))
DIFFEO_RECORD(Permute, (), (), (permutation))
DIFFEO_RECORD(Normalize, (), (), (loc, log_scale))
DIFFEO_RECORD(LU, (), (bound), (weight, log_diagonal, bias))
DIFFEO_RECORD(Residual, (with_x, iterations), (goal), ())
DIFFEO_RECORD(Transport, (traced, steps), (span), (biases))
DIFFEO_RECORD(SmoothNet, (activation, num_layers), (reach), ())
DIFFEO_RECORD(Dense, (inputs, outputs, row_stride, relu, add), (drop), (weight, bias, extra, limits, reach))
DIFFEO_RECORD(Scalar, (kind, bins, ends), (low, high, reach), ())

#undef DIFFEO_INTS
#undef DIFFEO_REALS
#undef DIFFEO_TENSORS
#undef DIFFEO_TEXT
#undef DIFFEO_RECORD
#undef DIFFEO_CODES

} // namespace wire
} // namespace diffeo
