// How numbers lie in tensors: float32, bfloat16, float16. Arithmetic is float32.
#pragma once

#include "vector.h"

namespace TIER {

struct BFloat16 { uint16_t bits; };
struct Float16 { uint16_t bits; };

INLINE float widen(float value) { return value; }

INLINE float widen(BFloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

INLINE void narrow(float value, float& to) { to = value; }

INLINE void narrow(float value, BFloat16& to) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // rounding could carry a NaN over to infinity.
    to.bits = (bits & 0x7fffffffu) > 0x7f800000u ? uint16_t((bits >> 16) | 0x40u) : uint16_t(rounded);
}

#if defined(__F16C__)
INLINE float widen(Float16 value) { return _cvtsh_ss(value.bits); }
INLINE void narrow(float value, Float16& to) { to.bits = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__FLT16_MANT_DIG__) || defined(__ARM_NEON)
#if defined(__ARM_NEON)
typedef __fp16 Half;  // the name that every compiler knows there
#else
typedef _Float16 Half;
#endif
INLINE float widen(Float16 value) {
    Half half;
    std::memcpy(&half, &value.bits, 2);
    return float(half);
}
INLINE void narrow(float value, Float16& to) {
    const Half half = Half(value);
    std::memcpy(&to.bits, &half, 2);
}
#else
#error "this compiler knows no half precision type"
#endif

INLINE void widen_row(const float* from, float* to, int64_t n) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) store(to + i, load(from + i));
    for (; i < n; i++) to[i] = from[i];
}

template <class S>
INLINE void widen_row(const S* __restrict from, float* __restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = widen(from[i]);
}

template <class S>
INLINE void narrow_row(const float* __restrict from, S* __restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++) narrow(from[i], to[i]);
}

#if defined(__AVX512F__)
INLINE __mmask16 first(int n) { return n >= 16 ? 0xffff : __mmask16((1u << (n < 0 ? 0 : n)) - 1u); }

INLINE __m512 widen16(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
INLINE __m512 widen16(const BFloat16* from, __mmask16 mask) {
    const __m256i bits = _mm256_maskz_loadu_epi16(mask, from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
INLINE __m512 widen16(const Float16* from, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
}

INLINE void narrow16(__m512 value, float* to, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, value); }
INLINE void narrow16(__m512 value, BFloat16* to, __mmask16 mask) {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i top = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet), 16);
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtepi32_epi16(top));
}
INLINE void narrow16(__m512 value, Float16* to, __mmask16 mask) {
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
#endif

// panel[k][lane] = row of that lane; lanes past `count` become zero.
template <class S>
static void rows_to_panel(const S* const* rows, int count, int64_t features, float* panel) {
#if defined(__AVX512F__)
    for (int half = 0; half < PANEL; half += 16) {
        if (half >= count) {
            for (int64_t k = 0; k < features; k++) _mm512_storeu_ps(panel + k * PANEL + half, _mm512_setzero_ps());
            continue;
        }
        for (int64_t k = 0; k < features; k += 16) {
            const int width = int(features - k < 16 ? features - k : 16);
            __m512 in[16], out[16];
            for (int r = 0; r < 16; r++)
                in[r] = half + r < count ? widen16(rows[half + r] + k, first(width)) : _mm512_setzero_ps();
            transpose_block(in, out);
            for (int c = 0; c < width; c++) _mm512_storeu_ps(panel + (k + c) * PANEL + half, out[c]);
        }
    }
#else
    for (int64_t k = 0; k < features; k += 16) {
        const int64_t end = k + 16 < features ? k + 16 : features;
        for (int lane = 0; lane < PANEL; lane++)
            for (int64_t c = k; c < end; c++) panel[c * PANEL + lane] = lane < count ? widen(rows[lane][c]) : 0.0f;
    }
#endif
}

// rows[lane][k] = panel[k][lane] for `features` features; to[lane] points at feature 0.
template <class S>
static void panel_to_rows(const float* panel, int count, int features, S* const* to) {
#if defined(__AVX512F__)
    for (int half = 0; half < count; half += 16)
        for (int k = 0; k < features; k += 16) {
            const int width = features - k < 16 ? features - k : 16;
            __m512 in[16], out[16];
            for (int c = 0; c < 16; c++)
                in[c] = c < width ? _mm512_loadu_ps(panel + (k + c) * PANEL + half) : _mm512_setzero_ps();
            transpose_block(in, out);
            const int lanes = count - half < 16 ? count - half : 16;
            for (int r = 0; r < lanes; r++) narrow16(out[r], to[half + r] + k, first(width));
        }
#else
    for (int lane = 0; lane < count; lane++)
        for (int k = 0; k < features; k++) narrow(panel[k * PANEL + lane], to[lane][k]);
#endif
}

// The lanes of one feature, stored without the empty ones: how pre-activations are kept. They are read again only in
// backward, so whole lines go past the cache.
template <class S>
INLINE void store_lanes(const float* from, S* to, int count) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4)
        if (count == PANEL && reinterpret_cast<uintptr_t>(to) % 64 == 0) {
            _mm512_stream_ps(to, _mm512_loadu_ps(from));
            _mm512_stream_ps(to + 16, _mm512_loadu_ps(from + 16));
            return;
        }
    narrow16(_mm512_loadu_ps(from), to, first(count));
    if (count > 16) narrow16(_mm512_loadu_ps(from + 16), to + 16, first(count - 16));
#else
    for (int lane = 0; lane < count; lane++) narrow(from[lane], to[lane]);
#endif
}

template <class S>
INLINE void load_lanes(const S* from, float* to, int count) {
#if defined(__AVX512F__)
    _mm512_storeu_ps(to, widen16(from, first(count)));
    _mm512_storeu_ps(to + 16, count > 16 ? widen16(from + 16, first(count - 16)) : _mm512_setzero_ps());
#else
    for (int lane = 0; lane < PANEL; lane++) to[lane] = lane < count ? widen(from[lane]) : 0.0f;
#endif
}

}  // namespace TIER
