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

void scalar(bool wide, bool inverse, int threads, const Numbers &integers, const Reals &reals,
            const Numbers &tensors) {
    Reader reader(integers, reals, tensors);
    ScalarCall call{};
    call.family = family_of(reader.take<wire::Scalar>());
    const auto w = reader.take<wire::ScalarCall>();
    reader.done();
    call.inverse = inverse;
    call.backward = w.g_params.data;
    call.count = w.num_values;
    call.inner = w.inner;
    call.outer_stride = w.outer_stride;
    call.row_stride = w.row_stride;
    call.param_stride = w.param_stride;
    call.g_param_stride = w.g_param_stride;
    call.x = w.x.data;
    call.params = w.params.data;
    call.g_y = w.g_y.data;
    call.g_log_slope = w.g_log_slope.data;
    call.y = w.y.data;
    call.log_slope = w.log_slope.data;
    call.g_x = w.g_x.data;
    call.g_params = w.g_params.data;
    if (call.count <= 0) return;
    require(call.inner > 0, "bad sizes");
    require(call.x && call.params, "no values or no parameters");
    require(call.backward ? call.g_y && call.g_log_slope && call.g_x : call.y && call.log_slope, "a tensor is missing");
    const int n = workers(threads, call.count / 4);
    nb::gil_scoped_release release;
    (wide ? in_use->table.scalar_f64 : in_use->table.scalar_f32)(call, n, parallel_for);
}

void conv(bool wide, int threads, const Numbers &integers, const Numbers &tensors) {
    const Reals none;
    Reader reader(integers, none, tensors);
    const auto w = reader.take<wire::ConvCall>();
    reader.done();
    for (const int64_t size : integers) require(size > 0 && size < (int64_t(1) << 40), "sizes are positive");
    for (const wire::Tensor &given : {w.x, w.w1, w.b1, w.w2, w.b2, w.w3, w.b3}) require(given.data, "no weights");
    ConvCall call{};
    call.images = w.images;
    call.height = int(w.height);
    call.width = int(w.width);
    call.in = int(w.inputs);
    call.hidden = int(w.hidden);
    call.out = int(w.outputs);
    call.stride = w.pixel_stride;
    call.x = w.x.data;
    call.w1 = w.w1.data;
    call.b1 = w.b1.data;
    call.w2 = w.w2.data;
    call.b2 = w.b2.data;
    call.w3 = w.w3.data;
    call.b3 = w.b3.data;
    call.y = w.y.data;
    call.g_y = w.g_y.data;
    call.g_x = w.g_x.data;
    call.g_w1 = w.g_w1.data;
    call.g_b1 = w.g_b1.data;
    call.g_w2 = w.g_w2.data;
    call.g_b2 = w.g_b2.data;
    call.g_w3 = w.g_w3.data;
    call.g_b3 = w.g_b3.data;
    require(call.g_y ? call.g_w1 && call.g_b1 && call.g_w2 && call.g_b2 && call.g_w3 && call.g_b3 : call.y != nullptr,
            "a tensor is missing");
    // no more workers than rows of pixels, so that each has some
    const int64_t lines = call.images * call.height;
    const int most = workers(threads, call.images * call.height * call.width), n = lines < most ? int(lines) : most;
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
    DIFFEO_RECORD(ScalarCall);
    DIFFEO_RECORD(ConvCall);
    table["codes"] = codes;
    table["limits"] = limits;
    table["records"] = records;
    return table;
}

} // namespace
} // namespace diffeo

NB_MODULE(_native, m) {
    m.attr("ABI") = 5;
    m.def("instruction_sets", &diffeo::instruction_sets, "Compiled in and supported by this processor, best first.");
    m.def("use", &diffeo::use, nb::arg("name"));
    m.def("set_parallel_for", &diffeo::set_parallel_for, nb::arg("address"));
    m.def("run", &diffeo::run, "A chain of stages, either way.");
    m.def("back", &diffeo::back, "Its gradient.");
    m.def("scalar", &diffeo::scalar, "A family on its own, or its gradient.");
    m.def("conv", &diffeo::conv, "Three convolutions of images, or their gradient.");
    m.def("wire", &diffeo::wire_table, "The table that functional/wire.py is the twin of.");
}
