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

void run(bool wide, bool inverse, int threads, uint32_t seed, int64_t rows, int features, const Numbers &ints, const Reals &reals,
         const Numbers &tensors, uintptr_t x, uintptr_t y, uintptr_t log_det, uintptr_t saved) {
    if (rows <= 0) return;
    Program program(wide, features, ints, reals, tensors, {});
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

void back(bool wide, bool inverse, int threads, uint32_t seed, int64_t rows, int features, const Numbers &ints, const Reals &reals,
          const Numbers &tensors, const Numbers &gradients, uintptr_t g_y, uintptr_t g_log_det, uintptr_t saved,
          uintptr_t g_x) {
    require(gradients.size() == tensors.size(), "one gradient address for each tensor");
    Program program(wide, features, ints, reals, tensors, gradients);
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

// Strides of params: (outer, row, parameter), in numbers; see ScalarCall.
void scalar(bool wide, bool inverse, bool backward, int threads, const Numbers &family, const Reals &reals,
            const Numbers &sizes, const Numbers &tensors) {
    require(family.size() == 3 && reals.size() == 2 && sizes.size() == 6 && tensors.size() == 8, "bad call");
    ScalarCall call{};
    call.family = {FamilyKind(family[0]), int(family[1]), Ends(family[2]), reals[0], reals[1]};
    Program::num_params(call.family);
    call.inverse = inverse;
    call.backward = backward;
    call.count = sizes[0];
    call.inner = sizes[1];
    call.outer_stride = sizes[2];
    call.row_stride = sizes[3];
    call.param_stride = sizes[4];
    call.g_param_stride = sizes[5];
    if (call.count <= 0) return;
    require(call.inner > 0, "bad call");
    call.x = pointer(uintptr_t(tensors[0]));
    call.params = pointer(uintptr_t(tensors[1]));
    call.g_y = pointer(uintptr_t(tensors[2]));
    call.g_log_slope = pointer(uintptr_t(tensors[3]));
    call.y = pointer(uintptr_t(tensors[4]));
    call.log_slope = pointer(uintptr_t(tensors[5]));
    call.g_x = pointer(uintptr_t(tensors[6]));
    call.g_params = pointer(uintptr_t(tensors[7]));
    const int n = workers(threads, call.count / 4);
    nb::gil_scoped_release release;
    (wide ? in_use->table.scalar_f64 : in_use->table.scalar_f32)(call, n, parallel_for);
}

// tensors: x, w1, b1, w2, b2, w3, b3, y, or for the gradient x, w1, ..., b3, g_y, g_x (or 0), g_w1, ..., g_b3.
void conv(bool wide, bool backward, int threads, const Numbers &sizes, const Numbers &tensors) {
    require(sizes.size() == 7 && tensors.size() == (backward ? 15 : 8), "bad call");
    for (const int64_t size : sizes) require(size > 0 && size < (int64_t(1) << 40), "sizes are positive");
    ConvCall call{};
    call.images = sizes[0];
    call.height = int(sizes[1]);
    call.width = int(sizes[2]);
    call.in = int(sizes[3]);
    call.hidden = int(sizes[4]);
    call.out = int(sizes[5]);
    call.stride = sizes[6];
    const void **given[] = {&call.x, &call.w1, &call.b1, &call.w2, &call.b2, &call.w3, &call.b3, &call.g_y};
    void **made[] = {&call.g_x, &call.g_w1, &call.g_b1, &call.g_w2, &call.g_b2, &call.g_w3, &call.g_b3};
    for (int i = 0; i < (backward ? 8 : 7); i++) *given[i] = pointer(uintptr_t(tensors[size_t(i)]));
    if (!backward) call.y = pointer(uintptr_t(tensors[7]));
    for (int i = 0; backward && i < 7; i++) *made[i] = pointer(uintptr_t(tensors[size_t(8 + i)]));
    // no more workers than rows of pixels, so that each has some
    const int64_t lines = call.images * call.height;
    const int most = workers(threads, call.images * call.height * call.width), n = lines < most ? int(lines) : most;
    const int64_t bytes = (wide ? in_use->table.conv_memory_f64 : in_use->table.conv_memory_f32)(call, n);
    char *memory = scratch(n * bytes);
    nb::gil_scoped_release release;
    (wide ? in_use->table.conv_f64 : in_use->table.conv_f32)(call, memory, n, parallel_for);
}

} // namespace
} // namespace diffeo

NB_MODULE(_native, m) {
    m.attr("ABI") = 4;
    m.attr("ROWS") = diffeo::ROWS;
    m.def("instruction_sets", &diffeo::instruction_sets, "Compiled in and supported by this processor, best first.");
    m.def("use", &diffeo::use, nb::arg("name"));
    m.def("set_parallel_for", &diffeo::set_parallel_for, nb::arg("address"));
    m.def("run", &diffeo::run, "A chain of stages, either way.");
    m.def("back", &diffeo::back, "Its gradient.");
    m.def("scalar", &diffeo::scalar, "A family on its own, or its gradient.");
    m.def("conv", &diffeo::conv, "Three convolutions of images, or their gradient.");
}
