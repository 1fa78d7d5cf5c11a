// The Python module diffeo.kernels._native: reads calls, checks them, and hands them to the instruction set in
// use. Tensors come as addresses; functional/native.py has checked their dtype, device, shape and layout.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "reader.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace diffeo {

#define DIFFEO_DECLARE(set)                                                                                        \
    namespace set {                                                                                                \
    extern const Table table;                                                                                      \
    }
#ifdef DIFFEO_WITH_AVX512
DIFFEO_DECLARE(avx512)
#endif
#ifdef DIFFEO_WITH_AVX2
DIFFEO_DECLARE(avx2)
#endif
DIFFEO_DECLARE(portable)

namespace {

struct Set {
    const char *name;
    bool (*supported)();
    const Table &table;
};

// Best first. __builtin_cpu_supports also asks whether the operating system saves the registers.
const Set sets[] = {
#ifdef DIFFEO_WITH_AVX512
    {"avx512",
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("fma");
     },
     avx512::table},
#endif
#ifdef DIFFEO_WITH_AVX2
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2::table},
#endif
    {"portable", [] { return true; }, portable::table},
};

const Set *in_use = &sets[sizeof(sets) / sizeof(sets[0]) - 1];
ParallelFor parallel_for = nullptr;

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Set &set : sets)
        if (set.supported()) names.emplace_back(set.name);
    return names;
}

void use(const std::string &name) {
    for (const Set &set : sets)
        if (name == set.name && set.supported()) {
            in_use = &set;
            return;
        }
    throw nb::value_error(("no instruction set " + name).c_str());
}

void set_parallel_for(std::uintptr_t address) { parallel_for = reinterpret_cast<ParallelFor>(address); }

// Memory that each calling thread keeps: fresh pages would cost more than many calls compute.
char *scratch(int64_t bytes) {
    struct Free {
        void operator()(char *p) const { std::free(p); }
    };
    thread_local std::unique_ptr<char, Free> memory;
    thread_local int64_t size = 0;
    if (bytes > size) {
        memory.reset();
        size = 0;
        const size_t whole = (size_t(bytes) + 4095) / 4096 * 4096;
        memory.reset(static_cast<char *>(std::aligned_alloc(4096, whole)));
        if (!memory) throw std::bad_alloc();
        size = int64_t(whole);
    }
    return memory.get();
}

int workers(int threads, int64_t rows) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    return parallel_for == nullptr || threads < 2 || blocks < 2 ? 1 : int(blocks < threads ? blocks : threads);
}

template <class T = void> T *pointer(uintptr_t address) { return reinterpret_cast<T *>(address); }

void run(bool wide, bool inverse, int threads, uint32_t seed, int64_t rows, int features, const Numbers &integers,
         const Reals &reals, const Numbers &tensors, uintptr_t x, uintptr_t y, uintptr_t log_det, uintptr_t saved) {
    if (rows <= 0) return;
    Program program(wide, features, Reader(integers, reals, tensors));
    Call &call = program.call;
    call.inverse = inverse;
    call.seed = seed;
    call.rows = rows;
    call.x = pointer(x);
    call.y = pointer(y);
    call.log_det = pointer(log_det);
    call.saved = pointer(saved);
    const int n = workers(threads, rows);
    char *memory = scratch(n * call.scratch);
    nb::gil_scoped_release release;
    (wide ? in_use->table.run_f64 : in_use->table.run_f32)(call, memory, n, parallel_for);
}

void back(bool wide, bool inverse, int threads, uint32_t seed, int64_t rows, int features, const Numbers &integers,
          const Reals &reals, const Numbers &tensors, const Numbers &gradients, uintptr_t g_y, uintptr_t g_log_det,
          uintptr_t saved, uintptr_t g_x) {
    Program program(wide, features, Reader(integers, reals, tensors, &gradients));
    for (const StageSpec &s : program.stages)
        require(s.kind == StageKind::permute || s.inverted == inverse, "no gradient for inverted stages");
    Call &call = program.call;
    call.inverse = inverse;
    call.seed = seed;
    call.rows = rows;
    call.x = pointer(g_y);
    call.g_log_det = pointer(g_log_det);
    call.saved = pointer(saved);
    call.y = pointer(g_x);
    const int n = rows > 0 ? workers(threads, rows) : 1;
    char *memory = scratch(n * (call.scratch + call.sums * program.number_size + 64));
    nb::gil_scoped_release release;
    (wide ? in_use->table.back_f64 : in_use->table.back_f32)(call, memory, n, parallel_for);
}

void scalar(bool wide, bool inverse, int threads, int kind, int bins, int ends, double low, double high, double reach,
            int64_t count, int64_t inner, int64_t outer_stride, int64_t row_stride, int64_t param_stride, int64_t g_param_stride,
            uintptr_t x, uintptr_t params, uintptr_t y, uintptr_t log_slope, uintptr_t g_y, uintptr_t g_log_slope,
            uintptr_t g_x, uintptr_t g_params) {
    ScalarCall call{};
    call.family = family_of({kind, bins, ends, low, high, reach});
    if (count <= 0) return;
    require(inner > 0 && x && params, "no values or no parameters");
    require(g_params ? g_y && g_log_slope && g_x : y && log_slope, "a tensor is missing");
    call.inverse = inverse;
    call.backward = g_params != 0;
    call.count = count;
    call.inner = inner;
    call.outer_stride = outer_stride;
    call.row_stride = row_stride;
    call.param_stride = param_stride;
    call.g_param_stride = g_param_stride;
    call.x = pointer(x);
    call.params = pointer(params);
    call.y = pointer(y);
    call.log_slope = pointer(log_slope);
    call.g_y = pointer(g_y);
    call.g_log_slope = pointer(g_log_slope);
    call.g_x = pointer(g_x);
    call.g_params = pointer(g_params);
    const int n = workers(threads, count / 4);
    nb::gil_scoped_release release;
    (wide ? in_use->table.scalar_f64 : in_use->table.scalar_f32)(call, n, parallel_for);
}

void conv(bool wide, int threads, int64_t images, int height, int width, int inputs, int hidden, int outputs,
          int64_t pixel_stride, uintptr_t x, uintptr_t w1, uintptr_t b1, uintptr_t w2, uintptr_t b2, uintptr_t w3,
          uintptr_t b3, uintptr_t y, uintptr_t g_y, uintptr_t g_x, uintptr_t g_w1, uintptr_t g_b1, uintptr_t g_w2,
          uintptr_t g_b2, uintptr_t g_w3, uintptr_t g_b3) {
    for (const int64_t size : {images, int64_t(height), int64_t(width), int64_t(inputs), int64_t(hidden),
                               int64_t(outputs), pixel_stride})
        require(size > 0 && size < (int64_t(1) << 40), "sizes are positive");
    require(x && w1 && b1 && w2 && b2 && w3 && b3, "a tensor is missing");
    require(g_y ? g_w1 && g_b1 && g_w2 && g_b2 && g_w3 && g_b3 : y != 0, "a tensor is missing");
    ConvCall call{};
    call.images = images;
    call.height = height;
    call.width = width;
    call.in = inputs;
    call.hidden = hidden;
    call.out = outputs;
    call.stride = pixel_stride;
    call.x = pointer(x);
    call.w1 = pointer(w1);
    call.b1 = pointer(b1);
    call.w2 = pointer(w2);
    call.b2 = pointer(b2);
    call.w3 = pointer(w3);
    call.b3 = pointer(b3);
    call.y = pointer(y);
    call.g_y = pointer(g_y);
    call.g_x = pointer(g_x);
    call.g_w1 = pointer(g_w1);
    call.g_b1 = pointer(g_b1);
    call.g_w2 = pointer(g_w2);
    call.g_b2 = pointer(g_b2);
    call.g_w3 = pointer(g_w3);
    call.g_b3 = pointer(g_b3);
    // no more workers than rows of pixels, so that each has some
    const int64_t lines = images * height;
    const int most = workers(threads, images * height * width), n = lines < most ? int(lines) : most;
    const int64_t bytes = (wide ? in_use->table.conv_memory_f64 : in_use->table.conv_memory_f32)(call, n);
    char *memory = scratch(n * bytes);
    nb::gil_scoped_release release;
    (wide ? in_use->table.conv_f64 : in_use->table.conv_f32)(call, memory, n, parallel_for);
}

// wire.hpp as compiled: each enum's names, each limit, and each record's whole numbers, reals and tensors.
nb::dict wire_table() {
    nb::dict codes, limits, records, table;
#define DIFFEO_CODES(name) codes[#name] = name##_names
    DIFFEO_CODES(StageKind);
    DIFFEO_CODES(FamilyKind);
    DIFFEO_CODES(Ends);
    DIFFEO_CODES(Activation);
#define DIFFEO_LIMIT(name) limits[#name] = name
    DIFFEO_LIMIT(ROWS);
    DIFFEO_LIMIT(MAX_LAYERS);
    DIFFEO_LIMIT(MAX_BINS);
    DIFFEO_LIMIT(MAX_COLUMNS);
    DIFFEO_LIMIT(MAX_STEPS);
    DIFFEO_LIMIT(MAX_ITERATIONS);
#define DIFFEO_RECORD(name)                                                                                        \
    records[#name] = nb::make_tuple(wire::name::order[0], wire::name::order[1], wire::name::order[2])
    DIFFEO_RECORD(Program);
    DIFFEO_RECORD(Stage);
    DIFFEO_RECORD(Conditional);
    DIFFEO_RECORD(Permute);
    DIFFEO_RECORD(Normalize);
    DIFFEO_RECORD(LU);
    DIFFEO_RECORD(Residual);
    DIFFEO_RECORD(Transport);
    DIFFEO_RECORD(SmoothNet);
    DIFFEO_RECORD(Dense);
    DIFFEO_RECORD(Scalar);
    table["codes"] = codes;
    table["limits"] = limits;
    table["records"] = records;
    return table;
}

} // namespace
} // namespace diffeo

NB_MODULE(_native, m) {
    m.attr("ABI") = 7;
    m.def("instruction_sets", &diffeo::instruction_sets, "Compiled in and supported by this processor, best first.");
    m.def("use", &diffeo::use, nb::arg("name"));
    m.def("set_parallel_for", &diffeo::set_parallel_for, nb::arg("address"));
    m.def("run", &diffeo::run, "A chain of stages, either way.");
    m.def("back", &diffeo::back, "Its gradient.");
    // Tensors are addresses. With g_params it is the gradient.
    m.def("scalar", &diffeo::scalar, "A family on its own, or its gradient.", nb::kw_only(), "wide"_a, "inverse"_a,
          "threads"_a, "kind"_a, "bins"_a, "ends"_a, "low"_a, "high"_a, "reach"_a, "count"_a, "inner"_a, "outer_stride"_a,
          "row_stride"_a, "param_stride"_a, "g_param_stride"_a, "x"_a, "params"_a, "y"_a, "log_slope"_a, "g_y"_a,
          "g_log_slope"_a, "g_x"_a, "g_params"_a);
    // With g_y it is the gradient, in which g_x may be 0.
    m.def("conv", &diffeo::conv, "Three convolutions of images, or their gradient.", nb::kw_only(), "wide"_a,
          "threads"_a, "images"_a, "height"_a, "width"_a, "inputs"_a, "hidden"_a, "outputs"_a, "pixel_stride"_a,
          "x"_a, "w1"_a, "b1"_a, "w2"_a, "b2"_a, "w3"_a, "b3"_a, "y"_a = 0, "g_y"_a = 0, "g_x"_a = 0, "g_w1"_a = 0,
          "g_b1"_a = 0, "g_w2"_a = 0, "g_b2"_a = 0, "g_w3"_a = 0, "g_b3"_a = 0);
    m.def("wire", &diffeo::wire_table, "The table that functional/wire.py is the twin of.");
}
