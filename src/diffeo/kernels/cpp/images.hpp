// A net of three convolutions over images, 3 x 3, 1 x 1 and 3 x 3 pixels with ReLU between, and its gradient.
//
// Pixels are the rows of blocks. The first layer is a product with each pixel's nine neighbors; the last one
// gives each pixel's part in its nine neighbors' sums, which are added where they belong. Of the forward pass
// nothing is kept: backward makes the hidden layers again.
#pragma once

#include "calls.hpp"

namespace diffeo::DIFFEO_ISA {

constexpr int TAPS = 9;
constexpr int64_t GROUP_PIXELS = 1024; // so many stay in the cache

template <class T> struct ConvNet {
    const ConvCall &call;
    Memory memory;
    T *col, *h1, *h2, *last, *g_col, *g_h1, *g_h2, *at, *inside;
    T *of_in, *of_out, *g_in; // planes, [channel][pixel], `apart`: x, y or its gradient, the gradient of x
    int64_t apart, start;     // `start`: the first pixel of the group that planes show
    int vectors, rows;

    // longest: how many pixels planes hold, what is next to them apart.
    ConvNet(const ConvCall &call, Memory memory, int64_t longest) : call(call), memory(memory) {
        col = block(call.in * TAPS);
        h1 = block(call.hidden);
        h2 = block(call.hidden);
        last = block(call.out * TAPS);
        inside = block(TAPS);
        apart = longest + 2 * (int64_t(call.width) + 1) + ROWS; // the last block may end beyond
        of_in = this->memory.template take<T>(call.in * apart);
        of_out = this->memory.template take<T>(call.out * apart);
        if (!call.g_y) return;
        g_col = block(call.in * TAPS);
        g_h1 = block(call.hidden);
        g_h2 = block(call.hidden);
        at = block(most(pad(call.in * TAPS), pad(call.hidden)));
        g_in = this->memory.template take<T>(call.in * apart);
    }
    T *block(int features) { return memory.take<T>(int64_t(features) * ROWS); }
    static int pad(int n) { return (n + LANES<T> - 1) / LANES<T> * LANES<T>; }

    Weights<T> weights(const void *w, int in, int out) const {
        return {static_cast<const T *>(w), in, in, out, nullptr};
    }
    Weights<T> first() const { return weights(call.w1, call.in * TAPS, call.hidden); }
    Weights<T> middle() const { return weights(call.w2, call.hidden, call.hidden); }
    Weights<T> third() const { return weights(call.w3, call.hidden, call.out * TAPS); }

    // Which neighbors of the pixels begin .. begin + rows are inside their image, 1 or 0: [tap][row]. The neighbor
    // by tap (k, l) of (i, j) is (i + k - 1, j + l - 1); turned, by tap 8 - t, the pixel whose neighbor this is.
    void look(int64_t begin) const {
        const int H = call.height, W = call.width;
        int j = int(begin % W), i = int(begin / W % H);
        clear(inside, TAPS * ROWS);
        for (int r = 0; r < rows; r++) {
            for (int k = 0; k < 3; k++)
                for (int l = 0; l < 3; l++) {
                    const int y = i + k - 1, x = j + l - 1;
                    inside[(3 * k + l) * ROWS + r] = y >= 0 && y < H && x >= 0 && x < W;
                }
            if (++j == W) {
                j = 0;
                if (++i == H) i = 0;
            }
        }
    }
    // Where in a plane, which begins a line and a pixel before `start`, the neighbors by a tap stand.
    int64_t offset(int64_t begin, int tap) const {
        return begin - start + int64_t(tap / 3) * call.width + tap % 3;
    }
    // Calls f(pixel, its place in a plane) for those of pixels low .. high that planes show.
    template <class F> void seen(int64_t low, int64_t high, F &&f) const {
        const int64_t zero = start - call.width - 1, from = zero < low ? low : zero, end = zero + apart;
        for (int64_t q = from; q < (end > high ? high : end); q++) f(q, q - zero);
    }
    // Pixels' values, `stride` apart, to planes.
    void spread(const T *from, int64_t stride, int channels, T *planes) const {
        clear(planes, channels * apart);
        seen(0, call.images * call.height * call.width, [&](int64_t q, int64_t place) ALWAYS_LAMBDA {
            const T *p = from + q * stride;
            for (int c = 0; c < channels; c++) planes[c * apart + place] = p[c];
        });
    }
    // Planes to [channel][tap][row]; 0 outside the image.
    void gather(int64_t begin, bool turned, const T *planes, int channels, T *to) const {
        for (int c = 0; c < channels; c++)
            for (int t = 0; t < TAPS; t++) {
                const int tap = turned ? TAPS - 1 - t : t;
                const T *p = planes + c * apart + offset(begin, tap);
                for (int v = 0; v < vectors * LANES<T>; v += LANES<T>)
                    store(to + (c * TAPS + t) * ROWS + v,
                          load(inside + tap * ROWS + v) != 0 ? load(p + v) : Vec<T>{});
            }
    }
    // The other way: adds to planes.
    void scatter(int64_t begin, bool turned, const T *from, int channels, T *planes) const {
        for (int t = 0; t < TAPS; t++) { // channels inside: what was just stored is not loaded again at once
            const int tap = turned ? TAPS - 1 - t : t;
            for (int v = 0; v < vectors * LANES<T>; v += LANES<T>) {
                const Int<T> here = load(inside + tap * ROWS + v) != 0;
                for (int c = 0; c < channels; c++) {
                    T *p = planes + c * apart + offset(begin, tap) + v;
                    store(p, load(p) + (here ? load(from + (c * TAPS + t) * ROWS + v) : Vec<T>{}));
                }
            }
        }
    }

    void layer(const Weights<T> &W, const void *bias, const T *in, T *out) const {
        for (int o = 0; o < W.out; o++) {
            const Vec<T> b = splat<T>(static_cast<const T *>(bias)[o]);
            for (int v = 0; v < vectors; v++) store(out + o * ROWS + v * LANES<T>, b);
        }
        product<T>(W, 0, W.out, in, out, vectors);
        for (int o = 0; o < W.out; o++)
            for (int v = 0; v < vectors; v++) {
                T *p = out + o * ROWS + v * LANES<T>;
                const Vec<T> h = load(p);
                store(p, h < 0 ? Vec<T>{} : h); // NaN stays
            }
    }
    void hidden(int64_t begin, int n) {
        rows = n;
        vectors = (n + LANES<T> - 1) / LANES<T>;
        look(begin);
        gather(begin, false, of_in, call.in, col);
        layer(first(), call.b1, col, h1);
        layer(middle(), call.b2, h1, h2);
    }
    void run(int64_t begin, int n) {
        hidden(begin, n);
        clear(last, int64_t(call.out) * TAPS * ROWS);
        product<T>(third(), 0, call.out * TAPS, h2, last, vectors);
        scatter(begin, true, last, call.out, of_out);
    }

    // Where h is 0 so is g; adds the sums of its rows to the bias's gradient.
    void pass(const T *h, T *g, T *bias) const {
        for (int o = 0; o < call.hidden; o++) {
            Vec<T> total{};
            for (int v = 0; v < vectors; v++) {
                T *p = g + o * ROWS + v * LANES<T>;
                const Vec<T> value = load(h + o * ROWS + v * LANES<T>) <= 0 ? Vec<T>{} : load(p);
                store(p, value);
                total += value;
            }
            if (bias) bias[o] += sum<T>(total);
        }
    }
    void weigh(const Weights<T> &W, const T *g, const T *in, T *sums) const {
        to_row_major(in, W.in, at, pad(W.in));
        outer<T>(W, 0, W.out, g, at, pad(W.in), rows, sums);
    }
    // sums: of the weights' gradients, in the order of `sizes`; null for pixels that are another worker's.
    void back(int64_t begin, int n, T *sums) {
        hidden(begin, n);
        int64_t place[5];
        sizes(call, place);
        gather(begin, true, of_out, call.out, last);
        clear(g_h2, int64_t(call.hidden) * ROWS);
        transposed<T>(third(), 0, call.out * TAPS, last, g_h2, vectors);
        pass(h2, g_h2, sums ? sums + place[3] : nullptr);
        clear(g_h1, int64_t(call.hidden) * ROWS);
        transposed<T>(middle(), 0, call.hidden, g_h2, g_h1, vectors);
        pass(h1, g_h1, sums ? sums + place[2] : nullptr);
        if (sums) {
            weigh(third(), last, h2, sums + place[1]);
            weigh(middle(), g_h2, h1, sums + place[0]);
            weigh(first(), g_h1, col, sums);
            const T *g_y = static_cast<const T *>(call.g_y);
            T *bias = sums + place[4];
            for (int64_t pixel = begin; pixel < begin + n; pixel++)
                for (int o = 0; o < call.out; o++) bias[o] += g_y[pixel * call.out + o];
        }
        if (!call.g_x) return;
        clear(g_col, int64_t(call.in) * TAPS * ROWS);
        transposed<T>(first(), 0, call.hidden, g_h1, g_col, vectors);
        scatter(begin, false, g_col, call.in, g_in);
    }

    // All blocks of the pixels low .. high, a worker's own, and those up to `beyond` next to them, whose parts it
    // needs, but whose weights' gradients are another's.
    void group(int64_t low, int64_t high, int64_t beyond, T *sums) {
        const int64_t pixels = call.images * call.height * call.width;
        const int64_t from = low - beyond < 0 ? 0 : low - beyond;
        const int64_t to = high + beyond > pixels ? pixels : high + beyond;
        const bool backward = call.g_y;
        start = from;
        spread(static_cast<const T *>(call.x), call.stride, call.in, of_in);
        if (backward) spread(static_cast<const T *>(call.g_y), call.out, call.out, of_out);
        T *made = backward ? g_in : of_out;
        const int channels = backward ? call.in : call.out;
        clear(made, channels * apart);
        blocks(from, low, nullptr);
        blocks(low, high, sums);
        blocks(high, to, nullptr);
        T *out = static_cast<T *>(backward ? call.g_x : call.y);
        if (!out) return;
        const T *bias = backward ? nullptr : static_cast<const T *>(call.b3);
        seen(low, high, [&](int64_t q, int64_t place) ALWAYS_LAMBDA {
            for (int c = 0; c < channels; c++)
                out[q * channels + c] = made[c * apart + place] + (bias ? bias[c] : T(0));
        });
    }
    void blocks(int64_t begin, int64_t end, T *sums) {
        for (; begin < end; begin += ROWS) {
            const int n = end - begin < ROWS ? int(end - begin) : ROWS;
            if (call.g_y) back(begin, n, sums);
            else run(begin, n);
        }
    }

    // Where the gradients of w2, w3, b1, b2 and b3 begin in a worker's sums, w1's at 0; gives their number.
    static int64_t sizes(const ConvCall &call, int64_t *place) {
        place[0] = int64_t(call.hidden) * pad(call.in * TAPS);
        place[1] = place[0] + int64_t(call.hidden) * pad(call.hidden);
        place[2] = place[1] + int64_t(call.out) * TAPS * pad(call.hidden);
        place[3] = place[2] + call.hidden;
        place[4] = place[3] + call.hidden;
        return place[4] + call.out;
    }
};

// Pixels are worked on in groups: some images, or, with fewer images than workers, some of their lines.
struct Groups {
    int64_t unit, units, size, beyond; // pixels of a unit, how many, units of a group, pixels next to a cut

    Groups(const ConvCall &call, int workers) {
        const int64_t image = int64_t(call.height) * call.width;
        const bool whole = call.images >= workers;
        unit = whole ? image : call.width;
        units = call.images * image / unit;
        // a cut costs work: of an image it is dealt to workers only once
        size = !whole ? (units + workers - 1) / workers : unit < GROUP_PIXELS ? GROUP_PIXELS / unit : 1;
        beyond = whole ? 0 : call.width;
    }
    int64_t longest() const { return unit * size + 2 * beyond; }
};

// Bytes of one worker's memory.
template <class T> int64_t conv_memory(const ConvCall &call, int workers) {
    int64_t features = int64_t(call.in + call.out + 1) * TAPS + 2 * call.hidden, place[5];
    const int64_t apart = Groups(call, workers).longest() + 2 * (int64_t(call.width) + 1) + ROWS + 16;
    int64_t numbers = (call.in + call.out) * apart + 256;
    if (call.g_y) {
        features += call.in * TAPS + 2 * call.hidden + call.in * TAPS + call.hidden + 2 * LANES<T>;
        numbers += ConvNet<T>::sizes(call, place) + call.in * apart;
    }
    return ((features * ROWS + numbers) * int64_t(sizeof(T)) / 4096 + 2) * 4096;
}

template <class T> void conv(const ConvCall &call, char *scratch, int workers, ParallelFor parallel_for) {
    const Groups groups(call, workers);
    const int64_t bytes = conv_memory<T>(call, workers);
    int64_t place[5];
    const int64_t numbers = ConvNet<T>::sizes(call, place);
    each_worker(workers, parallel_for, [&](int worker) {
        char *own = scratch + worker * bytes;
        T *sums = call.g_y ? reinterpret_cast<T *>(own) : nullptr;
        if (sums) clear(sums, numbers);
        ConvNet<T> net(call, {own + (sums ? (numbers * int64_t(sizeof(T)) + 63) / 64 * 64 : 0)}, groups.longest());
        const int64_t end = groups.units * (worker + 1) / workers;
        for (int64_t u = groups.units * worker / workers; u < end; u += groups.size)
            net.group(u * groups.unit, (u + groups.size < end ? u + groups.size : end) * groups.unit, groups.beyond,
                      sums);
    });
    if (!call.g_y) return;
    const T *all = reinterpret_cast<const T *>(scratch);
    const int64_t distance = bytes / int64_t(sizeof(T));
    const int wide = call.in * TAPS, h = call.hidden;
    gather<T>(all, distance, workers, 0, h, wide, ConvNet<T>::pad(wide), nullptr, call.g_w1);
    gather<T>(all, distance, workers, place[0], h, h, ConvNet<T>::pad(h), nullptr, call.g_w2);
    gather<T>(all, distance, workers, place[1], call.out * TAPS, h, ConvNet<T>::pad(h), nullptr, call.g_w3);
    gather<T>(all, distance, workers, place[2], 1, h, h, nullptr, call.g_b1);
    gather<T>(all, distance, workers, place[3], 1, h, h, nullptr, call.g_b2);
    gather<T>(all, distance, workers, place[4], 1, call.out, call.out, nullptr, call.g_b3);
}

} // namespace diffeo::DIFFEO_ISA
