// Reads a chain of stages as Python describes it, and checks it: nothing behind here checks a size again.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "stage_spec.hpp"

namespace diffeo {

inline void require(bool condition, const char *what) {
    if (!condition) throw nanobind::value_error(what);
}

using Numbers = std::vector<int64_t>;
using Reals = std::vector<double>;

// Takes records off the wire, one after the other.
class Reader {
  public:
    // gradients: an address for each tensor; null: none is wanted.
    Reader(const Numbers &integers, const Reals &reals, const Numbers &tensors, const Numbers *gradients = nullptr)
        : integers_(integers), reals_(reals), tensors_(tensors), gradients_(gradients) {
        require(!gradients || gradients->size() == tensors.size(), "one gradient address for each tensor");
    }
    template <class Record> Record take() {
        Record record;
        record.read(*this);
        return record;
    }
    void done() const {
        require(integer_ == integers_.size() && real_ == reals_.size() && tensor_ == tensors_.size(),
                "too many numbers");
    }
    // For the records, with the fields in their order.
    template <class... Fields> void integers(Fields &...fields) { ((fields = next(integers_, integer_)), ...); }
    template <class... Fields> void reals(Fields &...fields) { ((fields = next(reals_, real_)), ...); }
    template <class... Fields> void tensors(Fields &...fields) { ((fields = tensor()), ...); }

  private:
    const Numbers &integers_;
    const Reals &reals_;
    const Numbers &tensors_, *gradients_;
    size_t integer_ = 0, real_ = 0, tensor_ = 0;

    template <class T> static T next(const std::vector<T> &numbers, size_t &at) {
        require(at < numbers.size(), "too few numbers");
        return numbers[at++];
    }
    wire::Tensor tensor() {
        const size_t at = tensor_;
        const int64_t data = next(tensors_, tensor_), gradient = gradients_ ? (*gradients_)[at] : 0;
        return {reinterpret_cast<void *>(data), reinterpret_cast<void *>(gradient)};
    }
};

inline FamilySpec family_of(const wire::Scalar &w) {
    const FamilySpec f{FamilyKind(w.kind), int(w.bins), Ends(w.ends), w.low, w.high, w.reach};
    require(f.kind >= FamilyKind::additive && f.kind <= FamilyKind::spline, "unknown family");
    if (f.kind == FamilyKind::spline) {
        require(w.bins >= 1 && w.bins <= MAX_BINS, "too many bins, or none");
        require(f.ends >= Ends::fixed && f.ends <= Ends::joined, "unknown ends");
        require(f.reach == 0 || (f.reach > 0 && f.ends == Ends::fixed), "an affine map behind a spline of an interval");
    }
    return f;
}

inline int num_params(const FamilySpec &f) {
    if (f.kind == FamilyKind::spline)
        return 3 * f.bins + (f.ends == Ends::fixed ? -1 : f.ends == Ends::open ? 1 : 0) + (f.reach > 0 ? 2 : 0);
    return f.kind == FamilyKind::additive ? 1 : 2;
}

// A chain of stages, ready to be run, and the memory that takes.
struct Program {
    std::vector<StageSpec> stages;
    std::vector<std::vector<DenseSpec>> layers;
    std::vector<std::vector<int32_t>> ready;
    Call call{};
    int64_t number_size;

    Program(bool wide, int features, Reader reader) : number_size(wide ? 8 : 4), reader_(reader) {
        require(features > 0, "no features");
        call.features = features;
        const int64_t count = reader_.take<wire::Program>().num_stages;
        require(count > 0 && count <= 100000, "bad number of stages");
        stages.reserve(size_t(count));
        layers.reserve(size_t(count));
        ready.reserve(size_t(count));
        for (int64_t i = 0; i < count; i++) stage();
        reader_.done();
        call.stages = stages.data();
        call.num_stages = int(count);
        call.sums = sums_;
        call.scratch = take(call.features) + take(1) + most_;
    }

  private:
    Reader reader_;
    int64_t sums_ = 0, most_ = 0;

    // Bytes that Memory::take gives for so many columns.
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
        const auto head = reader_.take<wire::Stage>();
        StageSpec s{};
        s.kind = StageKind(head.kind);
        s.inverted = head.inverted != 0;
        s.number = int(stages.size());
        s.kept = s.kind == StageKind::permute ? -1 : call.num_kept++;
        layers.emplace_back();
        ready.emplace_back();
        int64_t need = 0;
        switch (s.kind) {
        case StageKind::conditional: need = conditional(s.conditional = {}); break;
        case StageKind::permute: need = permute(s.permute = {}); break;
        case StageKind::normalize: need = normalize(s.normalize = {}); break;
        case StageKind::lu: need = lu(s.lu = {}); break;
        case StageKind::residual: need = residual(s.residual = {}); break;
        case StageKind::transport: need = transport(s.transport = {}); break;
        default: require(false, "unknown stage");
        }
        most_ = std::max(most_, need);
        stages.push_back(s);
    }

    // Each kind: fills its part of the stage and gives the bytes a worker needs for it, either way.

    int64_t permute(PermuteSpec &s) {
        s.permutation = static_cast<const int32_t *>(reader_.take<wire::Permute>().permutation.data);
        indices(s.permutation, call.features);
        return take(call.features);
    }

    int64_t normalize(NormalizeSpec &s) {
        const auto w = reader_.take<wire::Normalize>();
        s = {w.loc.data, w.log_scale.data, w.loc.gradient, w.log_scale.gradient, sums(2 * call.features)};
        return take(call.features);
    }

    int64_t lu(LUSpec &s) {
        const auto w = reader_.take<wire::LU>();
        const int64_t D = call.features;
        s = {w.weight.data,     w.log_diagonal.data,     w.bias.data,
             w.weight.gradient, w.log_diagonal.gradient, w.bias.gradient, w.bound, sums(D * D + 2 * D)};
        return 2 * take(D) + take(D + 16) + take(D * (D + 16) / ROWS + 1);
    }

    int64_t conditional(ConditionalSpec &s) {
        const auto w = reader_.take<wire::Conditional>();
        s.autoregressive = w.autoregressive != 0;
        s.num_seen = int(w.num_seen);
        s.num_changed = int(w.num_changed);
        s.seen = static_cast<const int32_t *>(w.seen.data);
        s.changed = static_cast<const int32_t *>(w.changed.data);
        indices(s.seen, s.num_seen);
        indices(s.changed, s.num_changed);
        s.family = family_of(reader_.take<wire::Scalar>());
        const int params = num_params(s.family);
        require(w.num_layers >= 1, "no layers");
        s.net = net(w.num_layers, s.num_seen);
        const auto &own = layers.back();
        require(own.back().out == s.num_changed * params, "the last layer does not give the parameters");
        int64_t need = 2 * take(s.num_seen), widest = 0, pad = 0;
        for (size_t l = 0; l < own.size(); l++) {
            if (l + 1 < own.size()) need += 3 * take(own[l].out);
            widest = std::max(widest, int64_t(own[l].in));
            pad = std::max(pad, int64_t(own[l].pad));
        }
        if (s.autoregressive) steps(s, own);
        return need + 2 * take(std::max(params, GROUP)) + take(widest) + take(pad);
    }

    int64_t residual(ResidualSpec &s) {
        const auto w = reader_.take<wire::Residual>();
        s.with_x = w.with_x != 0;
        s.iterations = int(w.iterations);
        s.goal = w.goal;
        require(w.iterations >= 1 && w.iterations <= MAX_ITERATIONS, "too many iterations, or none");
        return smooth_net(s.net) + (3 + call.features) * take(call.features);
    }

    int64_t transport(TransportSpec &s) {
        const auto w = reader_.take<wire::Transport>();
        s.traced = w.traced != 0;
        s.steps = int(w.steps);
        s.span = w.span;
        require(w.steps >= 1 && w.steps <= MAX_STEPS, "too many steps, or none");
        s.biases = w.biases.data;
        s.g_biases = w.biases.gradient;
        const int64_t need = smooth_net(s.net);
        s.sums = sums((3 * w.steps + 1) * s.net.stack.layers[0].out);
        return need + (4 * w.steps + 16) * take(call.features);
    }

    // A net's layers, the first one's inputs given.
    NetSpec net(int64_t count, int inputs) {
        require(count <= MAX_LAYERS, "too many layers");
        auto &own = layers.back();
        own.reserve(size_t(count));
        for (int64_t l = 0; l < count; l++) {
            const auto w = reader_.take<wire::Dense>();
            DenseSpec d{};
            d.weight = w.weight.data;
            d.bias = w.bias.data;
            d.extra = w.extra.data;
            d.ld = w.row_stride;
            d.in = int(w.inputs);
            d.out = int(w.outputs);
            d.limits = static_cast<const int32_t *>(w.limits.data);
            d.reach = w.reach.data;
            d.relu = w.relu != 0;
            d.drop = w.drop;
            d.add = int(w.add);
            d.g_weight = w.weight.gradient;
            d.g_bias = w.bias.gradient;
            d.g_extra = w.extra.gradient;
            require(d.in >= 0 && d.out > 0 && d.ld >= d.in, "bad sizes");
            require(d.in == (l ? own.back().out : inputs), "a layer does not fit the one before it");
            require(!d.reach || l == 0, "a reach beyond the first layer");
            require(d.drop == 0 || (d.drop > 0 && d.drop < 1 && d.relu && l > 0), "bad dropout");
            require(d.add < l && (d.add < 0 || own[size_t(d.add)].out == d.out), "bad residual");
            for (int o = 0; d.limits && o < d.out; o++)
                require(d.limits[o] <= d.in && d.limits[o] >= (o ? d.limits[o - 1] : 0), "not a staircase");
            d.pad = (d.in + 15) / 16 * 16;
            d.sums = sums(int64_t(d.out) * d.pad + d.out);
            own.push_back(d);
        }
        return {own.data(), int(count)};
    }

    // A smooth net of all columns to all columns, with its Jacobian.
    int64_t smooth_net(SmoothNetSpec &s) {
        const auto w = reader_.take<wire::SmoothNet>();
        const int64_t D = call.features;
        s.activation = Activation(w.activation);
        s.reach = w.reach;
        require(D <= MAX_COLUMNS, "too many columns");
        require(s.activation >= Activation::sine && s.activation <= Activation::silu, "unknown activation");
        require(s.reach >= 0, "a negative reach");
        require(w.num_layers >= 2, "too few layers");
        s.stack = net(w.num_layers, int(D));
        const auto &own = layers.back();
        require(own.back().out == D, "the last layer does not give the columns");
        int64_t need = 0, widest = 0, pad = 0;
        for (size_t l = 0; l < own.size(); l++) {
            const DenseSpec &d = own[l];
            require(!d.relu && d.drop == 0 && d.add < 0 && !d.limits && !d.reach, "a smooth net's layers are plain");
            require(l == 0 || !d.extra, "a context beyond the first layer");
            need += (3 + 2 * D) * take(d.out);
            widest = std::max({widest, int64_t(d.in), int64_t(d.out)});
            pad = std::max(pad, int64_t(d.pad));
        }
        return need + 2 * (1 + D) * take(widest) + take(pad) + 2 * take(own[0].out) + (5 + 2 * D) * take(D);
    }

    // The step at which each hidden unit can be computed: when the last input it sees can.
    void steps(ConditionalSpec &s, const std::vector<DenseSpec> &own) {
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
};

} // namespace diffeo
