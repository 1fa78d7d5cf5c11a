// Vectors of the instruction set a file is compiled for, and the few functions the maps need on them.
//
// Everything in namespace DIFFEO_ISA is compiled once per instruction set; the compiler's own vector types
// carry it, so the same lines serve AVX-512, AVX2, NEON and plain code.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <cmath>

#define ALWAYS inline __attribute__((always_inline))
#define ALWAYS_LAMBDA __attribute__((always_inline))

namespace diffeo::DIFFEO_ISA {

#if defined(__AVX512F__)
constexpr int BYTES = 64, TILE_ROWS = 6, TILE_VECTORS = 4;
#elif defined(__AVX2__)
constexpr int BYTES = 32, TILE_ROWS = 6, TILE_VECTORS = 2;
#else
constexpr int BYTES = 16, TILE_ROWS = 4, TILE_VECTORS = 2;
#endif

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float V __attribute__((vector_size(BYTES)));
    typedef float U __attribute__((vector_size(BYTES), aligned(4)));
    typedef int32_t I __attribute__((vector_size(BYTES)));
};
template <> struct Lanes<double> {
    typedef double V __attribute__((vector_size(BYTES)));
    typedef double U __attribute__((vector_size(BYTES), aligned(8)));
    typedef int64_t I __attribute__((vector_size(BYTES)));
};
template <class T> using Vec = typename Lanes<T>::V;
template <class T> using Int = typename Lanes<T>::I;
template <class T> constexpr int LANES = BYTES / int(sizeof(T));

template <class T> ALWAYS Vec<T> splat(T a) { return a - Vec<T>{}; }
template <class T> ALWAYS Vec<T> load(const T *p) { return *reinterpret_cast<const typename Lanes<T>::U *>(p); }
template <class T> ALWAYS void store(T *p, Vec<T> v) { *reinterpret_cast<typename Lanes<T>::U *>(p) = v; }

template <class V> ALWAYS V min(V a, V b) { return b < a ? b : a; }
template <class V> ALWAYS V max(V a, V b) { return b > a ? b : a; }
template <class V> ALWAYS V abs(V a) { return a < 0 ? -a : a; }

// How far sums of products are taken at their word; NaN stays. functional/far.py has it in PyTorch.
template <class T> constexpr T FAR = sizeof(T) == 8 ? T(0x1p512) : T(0x1p64);
template <class T> ALWAYS Vec<T> within(Vec<T> v) { return max(min(v, splat<T>(FAR<T>)), splat<T>(-FAR<T>)); }

template <class T> ALWAYS T sum(Vec<T> v) {
    T total = 0;
    for (int i = 0; i < LANES<T>; i++) total += v[i];
    return total;
}

ALWAYS Vec<float> sqrt(Vec<float> v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#else
    for (int i = 0; i < LANES<float>; i++) v[i] = std::sqrt(v[i]);
    return v;
#endif
}
ALWAYS Vec<double> sqrt(Vec<double> v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_pd(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_pd(v);
#else
    for (int i = 0; i < LANES<double>; i++) v[i] = std::sqrt(v[i]);
    return v;
#endif
}

template <class T> struct Bits;
template <> struct Bits<float> {
    static constexpr int mantissa = 23, bias = 127;
    static constexpr float shifter = 12582912.0f; // 1.5 * 2^23: adding it rounds to the nearest integer
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float lowest = -87.0f, highest = 88.0f;
};
template <> struct Bits<double> {
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double shifter = 6755399441055744.0;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr double lowest = -708.0, highest = 709.0;
};

// e^x for x up to `highest`; below `lowest` a value near the smallest normal number. NaN stays NaN.
template <class T> ALWAYS Vec<T> exp(Vec<T> x) {
    using B = Bits<T>;
    x = x < B::lowest ? splat<T>(B::lowest) : x;
    x = x > B::highest ? splat<T>(B::highest) : x;
    const Vec<T> shifted = x * T(1.44269504088896340736) + B::shifter;
    const Vec<T> n = shifted - B::shifter;
    const Vec<T> r = (x - n * B::ln2_high) - n * B::ln2_low;
    // The series of e^r, |r| <= ln 2 / 2: its first dropped term is below half an ulp.
    Vec<T> p;
    if constexpr (std::is_same_v<T, float>) {
        p = r * T(1.0 / 5040) + T(1.0 / 720);
    } else {
        p = r * T(1.0 / 6227020800) + T(1.0 / 479001600);
        p = p * r + T(1.0 / 39916800);
        p = p * r + T(1.0 / 3628800);
        p = p * r + T(1.0 / 362880);
        p = p * r + T(1.0 / 40320);
        p = p * r + T(1.0 / 5040);
        p = p * r + T(1.0 / 720);
    }
    p = p * r + T(1.0 / 120);
    p = p * r + T(1.0 / 24);
    p = p * r + T(1.0 / 6);
    p = p * r + T(0.5);
    p = p * (r * r) + r + T(1);
    Int<T> bits = reinterpret_cast<Int<T>>(shifted) << B::mantissa;
    return reinterpret_cast<Vec<T>>(reinterpret_cast<Int<T>>(p) + bits);
}

// log x for normal x >= 0; NaN stays NaN, 0 gives -inf, a negative number NaN, infinity itself.
template <class T> ALWAYS Vec<T> log(Vec<T> x) {
    using B = Bits<T>;
    const Int<T> half_root = reinterpret_cast<Int<T>>(splat<T>(T(0.70710678118654752440)));
    const Int<T> bits = reinterpret_cast<Int<T>>(x);
    const Int<T> exponent = (bits - half_root) >> B::mantissa; // arithmetic: m in [1 / sqrt 2, sqrt 2)
    const Vec<T> m = reinterpret_cast<Vec<T>>(bits - (exponent << B::mantissa));
    const Vec<T> e = __builtin_convertvector(exponent, Vec<T>);
    // log m = f - f^2/2 + s (f^2/2 + R(s^2)), s = f / (2 + f): the odd series of 2 atanh s.
    const Vec<T> f = m - T(1), s = f / (f + T(2)), z = s * s, half = T(0.5) * f * f;
    Vec<T> r;
    if constexpr (std::is_same_v<T, float>) {
        r = z * T(2.0 / 9) + T(2.0 / 7);
    } else {
        r = z * T(2.0 / 23) + T(2.0 / 21);
        r = r * z + T(2.0 / 19);
        r = r * z + T(2.0 / 17);
        r = r * z + T(2.0 / 15);
        r = r * z + T(2.0 / 13);
        r = r * z + T(2.0 / 11);
        r = r * z + T(2.0 / 9);
        r = r * z + T(2.0 / 7);
    }
    r = r * z + T(2.0 / 5);
    r = r * z + T(2.0 / 3);
    r = r * z;
    const Vec<T> y = e * B::ln2_high - ((half - (s * (half + r) + e * B::ln2_low)) - f);
    const Vec<T> special = x == 0 ? splat<T>(-std::numeric_limits<T>::infinity())
                                  : (x < 0 ? splat<T>(std::numeric_limits<T>::quiet_NaN()) : x);
    return (x > 0) & (x < std::numeric_limits<T>::infinity()) ? y : special;
}

template <class T> ALWAYS Vec<T> sigmoid(Vec<T> x) { return T(1) / (T(1) + exp<T>(-x)); }

// log(1 + e^x), exact to round-off on both sides: 2 atanh s with s = e / (2 + e), at most 1/3.
template <class T> ALWAYS Vec<T> softplus(Vec<T> x) {
    const Vec<T> e = exp<T>(-abs(x)), s = e / (e + T(2)), z = s * s;
    constexpr int TERMS = std::is_same_v<T, float> ? 7 : 16;
    Vec<T> r = splat<T>(T(2.0 / (2 * TERMS + 1)));
#pragma GCC unroll 16
    for (int k = TERMS - 1; k >= 0; k--) r = r * z + T(2.0 / (2 * k + 1));
    return max(x, Vec<T>{}) + s * r;
}

// Sine and cosine: multiples of a right angle taken off in three parts, then the two series up to half of one.
template <class T> ALWAYS void sine_cosine(Vec<T> x, Vec<T> &sine, Vec<T> &cosine) {
    constexpr bool wide = std::is_same_v<T, double>;
    constexpr T far = wide ? T(1e6) : T(3e4); // beyond it the products with the parts would round
    constexpr T high = wide ? T(1.57079632673412561417) : T(1.5703125);
    constexpr T middle = wide ? T(6.07710050630396597660e-11) : T(4.837512969970703125e-4);
    constexpr T low = wide ? T(2.02226624879595063154e-21) : T(7.54978995489188e-8);
    const Vec<T> shifted = x * T(0.63661977236758134308) + Bits<T>::shifter;
    const Vec<T> n = shifted - Bits<T>::shifter;
    const Vec<T> r = ((x - n * high) - n * middle) - n * low, z = r * r;
    constexpr int TERMS = wide ? 8 : 5;
    Vec<T> s{}, c{};
    double factor_s[TERMS], factor_c[TERMS]; // (-1)^k / (2k + 1)!, (-1)^k / (2k)!
    double f = 1;
#pragma GCC unroll 8
    for (int k = 0; k < TERMS; k++) {
        factor_c[k] = f;
        f /= 2 * k + 1;
        factor_s[k] = f;
        f /= -(2 * k + 2);
    }
#pragma GCC unroll 8
    for (int k = TERMS - 1; k >= 0; k--) {
        s = s * z + T(factor_s[k]);
        c = c * z + T(factor_c[k]);
    }
    c = c + T(f) * (wide ? z * z * z * z * z * z * z * z : z * z * z * z * z); // one term more than the sine
    s = s * r;
    const Int<T> q = reinterpret_cast<Int<T>>(shifted);
    const Vec<T> a = (q & 1) != 0 ? c : s, b = (q & 1) != 0 ? s : c;
    sine = (q & 2) != 0 ? -a : a;
    cosine = ((q + 1) & 2) != 0 ? -b : b;
    bool all_near = true;
    const Int<T> near = abs(x) < far;
    for (int i = 0; i < LANES<T>; i++) all_near = all_near && near[i];
    if (!all_near)
        for (int i = 0; i < LANES<T>; i++)
            if (!near[i]) {
                sine[i] = std::sin(x[i]);
                cosine[i] = std::cos(x[i]);
            }
}

// N x N in place: log2 N perfect shuffles of rows i and i + N/2.
template <class T> ALWAYS void transpose(Vec<T> (&a)[LANES<T>]) {
    constexpr int N = LANES<T>;
#if defined(__clang__)
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) {
            const T t = a[i][j];
            a[i][j] = a[j][i];
            a[j][i] = t;
        }
#else
    Int<T> low, high;
    for (int i = 0; i < N; i++) {
        low[i] = i / 2 + (i % 2) * N;
        high[i] = N / 2 + i / 2 + (i % 2) * N;
    }
    Vec<T> b[N];
    for (int stage = 1; stage < N; stage *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < N / 2; i++) {
            b[2 * i] = __builtin_shuffle(a[i], a[i + N / 2], low);
            b[2 * i + 1] = __builtin_shuffle(a[i], a[i + N / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) a[i] = b[i];
    }
#endif
}

} // namespace diffeo::DIFFEO_ISA
