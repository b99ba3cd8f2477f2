// One vector type for every instruction set, from the compiler's own vector extension.
//
// A panel holds 32 tokens side by side: element [k][lane] is feature k of the panel's token `lane`. Every product
// broadcasts one weight and multiplies it with a panel row, so weights are read where they lie.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

// A register passed through memory costs more than the arithmetic of these functions.
#define INLINE static inline __attribute__((always_inline))

namespace TIER {

constexpr int PANEL = 32;

// VL: floats of one register. MR x LANES: the accumulators that fit into the register file beside a panel row.
#if defined(__AVX512F__)
constexpr int VL = 16, MR = 14, LANES = 32;
#elif defined(__AVX2__)
constexpr int VL = 8, MR = 6, LANES = 16;
#elif defined(__ARM_NEON)
constexpr int VL = 4, MR = 6, LANES = 16;
#else
constexpr int VL = 4, MR = 6, LANES = 8;
#endif

typedef float V __attribute__((vector_size(VL * 4)));
typedef int32_t VI __attribute__((vector_size(VL * 4)));
typedef float VU __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE V load(const float* from) { return *reinterpret_cast<const VU*>(from); }
INLINE void store(float* to, V value) { *reinterpret_cast<VU*>(to) = value; }
INLINE V splat(float value) { return value - V{}; }

// The sum of all lanes, halves first: a chain of additions would take as long as the product of a short row.
INLINE float total(V sum) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(reinterpret_cast<__m512>(sum));
#else
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum[i] += sum[i + half];
    return sum[0];
#endif
}

// The sums of eight registers, each with the bits of `total`: turned over together they take a third of the steps.
INLINE void totals(const V (&sum)[8], float (&to)[8]) {
#if defined(__AVX512F__)
    __m512 half[4], quarter[2];
    for (int i = 0; i < 4; i++) {
        const __m512 a = reinterpret_cast<__m512>(sum[2 * i]), b = reinterpret_cast<__m512>(sum[2 * i + 1]);
        half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int i = 0; i < 2; i++) {
        const __m512 a = half[2 * i], b = half[2 * i + 1];
        quarter[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    // lane i of four has registers i and 4 + i.
    const __m512 low = _mm512_shuffle_ps(quarter[0], quarter[1], 0x44), high = _mm512_shuffle_ps(quarter[0], quarter[1], 0xee);
    const __m512 pairs = _mm512_add_ps(low, high);
    const V all = reinterpret_cast<V>(_mm512_add_ps(pairs, _mm512_shuffle_ps(pairs, pairs, 0xb1)));
    for (int i = 0; i < 8; i++) to[i] = all[i % 4 * 4 + i / 4 * 2];
#else
    for (int i = 0; i < 8; i++) to[i] = total(sum[i]);
#endif
}

// e^x within 1.5 ulp on [-87, 88]; beyond it saturates, so that no sigmoid becomes NaN.
INLINE V exponential(V x) {
    const V low = splat(-87.0f), high = splat(88.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    // adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const V shift = splat(12582912.0f);
    V n = (x * 1.44269504088896341f + shift);
    VI exponent = reinterpret_cast<VI>(n) << 23;
    n = n - shift;
    V r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    V p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return reinterpret_cast<V>(reinterpret_cast<VI>(p) + exponent);
}

// 1 / x within 1 ulp, without the long division of wide registers.
INLINE V reciprocal(V x) {
#if defined(__AVX512F__)
    const V guess = reinterpret_cast<V>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
    return guess + guess * (1.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

#if defined(BFLOAT16_ONLY)
// Within 2e-4, a tenth of what rounding to bfloat16 does, in half the instructions.
INLINE V sigmoid(V x) {
    const __m512 shift = _mm512_set1_ps(12582912.0f), most = _mm512_set1_ps(126.0f);
    // the power of two, its size held down so that nothing becomes infinite; a NaN comes back with the caller's product.
    const __m512 power = _mm512_range_ps(reinterpret_cast<__m512>(x * -1.44269504f), most, 2);
    const __m512 whole = _mm512_sub_ps(_mm512_add_ps(power, shift), shift), rest = _mm512_sub_ps(power, whole);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.05517166f), rest, _mm512_set1_ps(0.24261112f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.69326099f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.99992807f));
    return reinterpret_cast<V>(_mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(p, whole), _mm512_set1_ps(1.0f))));
}
#else
INLINE V sigmoid(V x) { return reciprocal(1.0f + exponential(-x)); }
#endif

// erf as a quotient of polynomials in x^2, within 4e-7 everywhere.
INLINE V error_function(V x) {
    const V low = splat(-4.0f), high = splat(4.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    const V s = x * x;
    V p = splat(-2.72614225801306e-10f);
    p = p * s + 2.77068142495902e-08f;
    p = p * s + -2.10102402082508e-06f;
    p = p * s + -5.69250639462346e-05f;
    p = p * s + -7.34990630326855e-04f;
    p = p * s + -2.95459980854025e-03f;
    p = p * s + -1.60960333262415e-02f;
    V q = splat(-1.45660718464996e-05f);
    q = q * s + -2.13374055278905e-04f;
    q = q * s + -1.68282697438203e-03f;
    q = q * s + -7.37332916720468e-03f;
    q = q * s + -1.42647390514189e-02f;
    return x * p / q;
}

// dst[c * PANEL + r] = src[r][c] for 16 rows and 16 columns.
#if defined(__AVX512F__)
INLINE void transpose_block(const __m512 (&in)[16], __m512 (&out)[16]) {
    __m512 a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_ps(in[2 * i], in[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(in[2 * i], in[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        const __m512d p0 = _mm512_castps_pd(a[4 * i]), p1 = _mm512_castps_pd(a[4 * i + 1]);
        const __m512d p2 = _mm512_castps_pd(a[4 * i + 2]), p3 = _mm512_castps_pd(a[4 * i + 3]);
        b[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p0, p2));
        b[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p0, p2));
        b[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(p1, p3));
        b[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(p1, p3));
    }
    for (int i = 0; i < 4; i++) {
        const __m512 low = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88), high = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xdd);
        const __m512 low2 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88);
        const __m512 high2 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xdd);
        out[i] = _mm512_shuffle_f32x4(low, low2, 0x88);
        out[8 + i] = _mm512_shuffle_f32x4(low, low2, 0xdd);
        out[4 + i] = _mm512_shuffle_f32x4(high, high2, 0x88);
        out[12 + i] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
}
#endif

}  // namespace TIER
