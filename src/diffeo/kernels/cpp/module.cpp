// The Python module diffeo.kernels._native: reads calls, checks them, and hands them to the instruction set in
// use. Tensors come as addresses; functional/native.py has checked their dtype, device, shape and layout.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.hpp"

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

void require(bool condition, const char *what) {
    if (!condition) throw nb::value_error(what);
}

using Numbers = std::vector<int64_t>;
using Reals = std::vector<double>;

// A chain of stages as Python describes it: sizes and kinds, reals, addresses of tensors and of gradients.
struct Program {
    std::vector<StageSpec> stages;
    std::vector<std::vector<DenseSpec>> layers;
    std::vector<std::vector<int32_t>> ready;
    Call call{};
    int64_t number_size;

    Program(bool wide, int features, const Numbers &ints, const Reals &reals, const Numbers &tensors,
            const Numbers &gradients)
        : number_size(wide ? 8 : 4), ints_(ints), reals_(reals), tensors_(tensors), gradients_(gradients) {
        require(features > 0 && !ints.empty(), "no features or no stages");
        call.features = features;
        const int64_t count = integer();
        require(count > 0 && count <= 100000, "bad number of stages");
        stages.reserve(size_t(count));
        layers.reserve(size_t(count));
        ready.reserve(size_t(count));
        for (int64_t i = 0; i < count; i++) stage();
        require(int_ == ints.size() && real_ == reals.size() && tensor_ == tensors.size(), "too many numbers");
        call.stages = stages.data();
        call.num_stages = int(count);
        call.sums = sums_;
        call.scratch = take(call.features) + take(1) + most_;
    }

  private:
    const Numbers &ints_;
    const Reals &reals_;
    const Numbers &tensors_, &gradients_;
    size_t int_ = 0, real_ = 0, tensor_ = 0;
    int64_t sums_ = 0, most_ = 0;

    int64_t integer() {
        require(int_ < ints_.size(), "too few integers");
        return ints_[int_++];
    }
    double real() {
        require(real_ < reals_.size(), "too few reals");
        return reals_[real_++];
    }
    // The next tensor, and where its gradient goes (null: nowhere).
    const void *tensor(void **gradient = nullptr) {
        require(tensor_ < tensors_.size(), "too few tensors");
        if (gradient)
            *gradient = gradients_.empty() ? nullptr : reinterpret_cast<void *>(gradients_.at(tensor_));
        return reinterpret_cast<const void *>(tensors_[tensor_++]);
    }
    int64_t take(int64_t features) const { return features * ROWS * number_size + 64; }
    int64_t sums(int64_t numbers) {
        const int64_t at = sums_;
        sums_ += numbers;
        return at;
    }
    void indices(const int32_t *index, int n) const {
        for (int i = 0; i < n; i++) require(index[i] >= 0 && index[i] < call.features, "index out of range");
    }

    void stage() {
        StageSpec s{};
        s.kind = StageKind(integer());
        s.inverted = integer() != 0;
        const int D = call.features;
        layers.emplace_back();
        ready.emplace_back();
        int64_t need = take(D);
        switch (s.kind) {
        case StageKind::conditional: need = conditional(s); break;
        case StageKind::permute:
            s.seen = static_cast<const int32_t *>(tensor());
            indices(s.seen, D);
            break;
        case StageKind::normalize:
            s.a = tensor(&s.g_a);
            s.b = tensor(&s.g_b);
            s.sums = sums(2 * D);
            break;
        case StageKind::lu:
            s.a = tensor(&s.g_a);
            s.b = tensor(&s.g_b);
            s.c = tensor(&s.g_c);
            s.bound = real();
            s.sums = sums(int64_t(D) * D + 2 * D);
            break;
        default: require(false, "unknown stage");
        }
        s.number = int(stages.size());
        s.kept = s.kind == StageKind::permute ? -1 : call.num_kept++;
        most_ = need > most_ ? need : most_;
        stages.push_back(s);
    }

    int64_t conditional(StageSpec &s) {
        s.autoregressive = integer() != 0;
        s.num_seen = int(integer());
        s.num_changed = int(integer());
        s.seen = static_cast<const int32_t *>(tensor());
        s.changed = static_cast<const int32_t *>(tensor());
        indices(s.seen, s.num_seen);
        indices(s.changed, s.num_changed);
        FamilySpec &f = s.family;
        f.kind = FamilyKind(integer());
        f.bins = int(integer());
        f.ends = Ends(integer());
        f.low = real();
        f.high = real();
        const int params = num_params(f);
        const int64_t count = integer();
        require(count >= 1 && count <= 64, "1 to 64 layers");
        auto &own = layers.back();
        own.reserve(size_t(count));
        int64_t need = take(s.num_seen), back = 0, widest = 0, pad = 0;
        for (int64_t l = 0; l < count; l++) {
            DenseSpec d{};
            d.in = int(integer());
            d.out = int(integer());
            d.ld = integer();
            d.relu = integer() != 0;
            d.add = int(integer());
            d.drop = real();
            require(d.drop == 0 || (d.drop > 0 && d.drop < 1 && d.relu && l > 0), "bad dropout");
            d.weight = tensor(&d.g_weight);
            d.bias = tensor(&d.g_bias);
            d.extra = tensor(&d.g_extra);
            d.limits = static_cast<const int32_t *>(tensor());
            require(d.in >= 0 && d.out > 0 && d.ld >= d.in, "bad sizes");
            require(d.in == (l ? own.back().out : s.num_seen), "a layer does not fit the one before it");
            require(d.add < l && (d.add < 0 || own[size_t(d.add)].out == d.out), "bad residual");
            for (int o = 0; d.limits && o < d.out; o++)
                require(d.limits[o] <= d.in && d.limits[o] >= (o ? d.limits[o - 1] : 0), "no staircase");
            d.pad = (d.in + 15) / 16 * 16;
            d.sums = sums(int64_t(d.out) * d.pad + d.out);
            if (l + 1 < count) need += 2 * take(d.out), back += take(d.out);
            widest = d.in > widest ? d.in : widest;
            pad = d.pad > pad ? d.pad : pad;
            own.push_back(d);
        }
        require(own.back().out == s.num_changed * params, "the last layer does not give the parameters");
        if (s.autoregressive) steps(s, own);
        s.layers = own.data();
        s.num_layers = int(count);
        const int64_t wide = params > GROUP ? params : GROUP;
        return need + 2 * take(wide) + back + take(widest) + take(s.num_seen) + take(pad);
    }

    // The step at which each hidden unit can be computed: when the last input it sees can.
    void steps(StageSpec &s, const std::vector<DenseSpec> &own) {
        require(s.num_seen == call.features && s.num_changed == call.features, "autoregressive over all columns");
        auto &all = ready.back();
        std::vector<size_t> begin;
        for (size_t l = 0; l < own.size(); l++) {
            const DenseSpec &d = own[l];
            begin.push_back(all.size());
            for (int o = 0; o < d.out; o++) {
                const int limit = d.limits ? d.limits[o] : d.in;
                int32_t step = l == 0 || limit == 0 ? limit : all[begin[l - 1] + size_t(limit) - 1];
                if (d.add >= 0) step = std::max(step, all[begin[size_t(d.add)] + size_t(o)]);
                all.push_back(step);
                const bool last = l + 1 == own.size();
                require(!last || step <= o / (d.out / s.num_changed), "a column's parameters see the column");
            }
        }
        s.ready = all.data();
    }

  public:
    static int num_params(const FamilySpec &f) {
        require(f.kind != FamilyKind::spline || (f.bins >= 1 && f.bins <= 64), "1 to 64 bins");
        switch (f.kind) {
        case FamilyKind::additive: return 1;
        case FamilyKind::affine: return 2;
        case FamilyKind::spline: return 3 * f.bins + (f.ends == Ends::fixed ? -1 : f.ends == Ends::open ? 1 : 0);
        }
        throw nb::value_error("unknown family");
    }
};

int workers(int threads, int64_t rows) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    return parallel_for == nullptr || threads < 2 ? 1 : int(blocks < threads ? blocks : threads);
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

} // namespace
} // namespace diffeo

NB_MODULE(_native, m) {
    m.attr("ABI") = 2;
    m.attr("ROWS") = diffeo::ROWS;
    m.def("instruction_sets", &diffeo::instruction_sets, "Compiled in and supported by this processor, best first.");
    m.def("use", &diffeo::use, nb::arg("name"));
    m.def("set_parallel_for", &diffeo::set_parallel_for, nb::arg("address"));
    m.def("run", &diffeo::run, "A chain of stages, either way.");
    m.def("back", &diffeo::back, "Its gradient.");
    m.def("scalar", &diffeo::scalar, "A family on its own, or its gradient.");
}
