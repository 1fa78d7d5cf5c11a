// Reads a chain of stages as Python describes it, and checks it: nothing behind here checks a size again.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "program.hpp"

namespace diffeo {

inline void require(bool condition, const char *what) {
    if (!condition) throw nanobind::value_error(what);
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
            need = take(D) + take(D + 16) + take((int64_t(D) * (D + 16)) / ROWS + 1);
            break;
        case StageKind::residual:
        case StageKind::transport: need = field(s); break;
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

    // A smooth net of all columns to all columns, with its Jacobian.
    int64_t field(StageSpec &s) {
        const bool transport = s.kind == StageKind::transport;
        const int64_t D = call.features;
        require(D <= MAX_TANGENTS, "too many columns");
        s.activation = Activation(integer());
        require(s.activation >= Activation::sine && s.activation <= Activation::silu, "unknown activation");
        s.traced = integer() != 0;
        s.steps = int(integer());
        s.span = real();
        s.reach = real();
        require(s.reach >= 0, "a negative reach");
        require(s.steps >= 1 && s.steps <= (transport ? 4096 : 1000000), "bad number of steps");
        const int64_t count = integer();
        require(count >= 2 && count <= 64, "2 to 64 layers");
        if (transport) s.a = tensor(&s.g_a);
        auto &own = layers.back();
        own.reserve(size_t(count));
        int64_t need = 0, widest = 0, pad = 0;
        for (int64_t l = 0; l < count; l++) {
            DenseSpec d{};
            d.in = int(integer());
            d.out = int(integer());
            d.ld = integer();
            d.add = -1;
            d.weight = tensor(&d.g_weight);
            d.bias = tensor(&d.g_bias);
            d.extra = tensor(&d.g_extra);
            require(l == 0 || !d.extra, "a context beyond the first layer");
            require(d.out > 0 && d.ld >= d.in && d.in == (l ? own.back().out : D), "bad sizes");
            d.pad = (d.in + 15) / 16 * 16;
            d.sums = sums(int64_t(d.out) * d.pad + d.out);
            need += (3 + 2 * D) * take(d.out);
            widest = std::max({widest, int64_t(d.in), int64_t(d.out)});
            pad = std::max(pad, int64_t(d.pad));
            own.push_back(d);
        }
        require(own.back().out == D, "the last layer does not give the columns");
        s.layers = own.data();
        s.num_layers = int(count);
        if (transport) s.sums = sums((3 * int64_t(s.steps) + 1) * own[0].out);
        need += 2 * (1 + D) * take(widest) + take(pad) + 2 * take(own[0].out) + (5 + 2 * D) * take(D);
        return need + (transport ? (4 * int64_t(s.steps) + 16) * take(D) : (3 + D) * take(D));
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
        throw nanobind::value_error("unknown family");
    }
};

} // namespace diffeo
