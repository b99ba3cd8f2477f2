// How operands in bfloat16 lie: pairs of bfloat16 in 32-bit words.
//
// A piece is what one step of a product reads of one operand: two tiles, 2 KB. As operand A a tile is [16 outputs][32
// inputs], as operand B [16 pairs of inputs][16 columns][2]. Both come from rows by turning or interleaving words.
#pragma once

#include <algorithm>

#include "storage.h"

namespace TIER {

constexpr int STEP = 32;                 // inputs of one step
constexpr int AHEAD = 4;                 // steps fetched in advance
constexpr int TILE = 512, PIECE = 1024;  // bfloat16 numbers of a tile, and of two

static inline int64_t steps_of(int64_t inputs) { return (inputs + STEP - 1) / STEP; }

INLINE __mmask32 first32(int n) { return n >= 32 ? 0xffffffffu : __mmask32((uint32_t(1) << (n < 0 ? 0 : n)) - 1u); }

INLINE __m512 widen_low(__m512i both) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16));
}
INLINE __m512 widen_high(__m512i both) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16));
}

// Which numbers of two rows of 32 the result takes: element i is number at[i], those of the second row from 32 on.
struct Selection {
    alignas(64) int16_t at[32];
    constexpr Selection(int even, int odd, int step) : at() {
        for (int i = 0; i < 16; i++) {
            at[2 * i] = int16_t(even + i * step);
            at[2 * i + 1] = int16_t(odd + i * step);
        }
    }
    inline __attribute__((always_inline)) __m512i of(__m512i first, __m512i second) const {
        return _mm512_permutex2var_epi16(first, _mm512_load_si512(at), second);
    }
};
inline constexpr Selection FIRST_HALVES{0, 32, 1}, SECOND_HALVES{16, 48, 1};  // side by side, as pairs
inline constexpr Selection EVEN{0, 2, 4}, ODD{1, 3, 4};                       // of the pairs
inline constexpr Selection PAIRED{0, 16, 1};                                  // both halves of one row, as pairs

// The first 16 numbers of the result are `low`, the others `high`.
INLINE __m512i narrow_both(__m512 low, __m512 high) {
#if defined(__AVX512BF16__)
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
#else
    const auto rounded = [](__m512 value) {
        const __m512i bits = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        return _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), quiet);
    };
    return ODD.of(rounded(low), rounded(high));
#endif
}

// Up to 32 numbers of a row, rounded where they are wider.
INLINE __m512i line_of(const BFloat16* from, __mmask32 mask) { return _mm512_maskz_loadu_epi16(mask, from); }
INLINE __m512i line_of(const float* from, __mmask32 mask) {
    return narrow_both(_mm512_maskz_loadu_ps(__mmask16(mask), from), _mm512_maskz_loadu_ps(__mmask16(mask >> 16), from + 16));
}

// Words of which `a` is the first number and `b` the second.
INLINE __m512i pairs_of(__m512 a, __m512 b) {
    return _mm512_permutexvar_epi16(_mm512_load_si512(PAIRED.at), narrow_both(a, b));
}

// out[k][i] = word k of row i, for four words of 16 rows. Lanes are put in place while they are loaded, which the
// shuffle port does not see.
template <class Row>
INLINE void turn_four(Row row, __m512i (&out)[4]) {
    const auto lane = [&row](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row(i))); };
    __m512i z[4];
    for (int j = 0; j < 4; j++) {
        z[j] = _mm512_castsi128_si512(lane(j));
        z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x00f0, lane(4 + j));
        z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x0f00, lane(8 + j));
        z[j] = _mm512_mask_broadcast_i32x4(z[j], 0xf000, lane(12 + j));
    }
    const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
    const __m512i d = _mm512_unpacklo_epi32(z[2], z[3]), e = _mm512_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm512_unpacklo_epi64(a, d);
    out[1] = _mm512_unpackhi_epi64(a, d);
    out[2] = _mm512_unpacklo_epi64(b, e);
    out[3] = _mm512_unpackhi_epi64(b, e);
}

// A tile turned over, word by word: to[k][i] = word k of row(i).
template <class Row>
static inline void turn_tile(Row row, BFloat16* to) {
    for (int k = 0; k < 16; k += 4) {
        __m512i out[4];
        turn_four([&](int i) { return row(i) + 2 * k; }, out);
        for (int i = 0; i < 4; i++) _mm512_storeu_si512(to + (k + i) * 32, out[i]);
    }
}

// Tokens as operand B: pieces of [half of the tokens][16 pairs of features][16 tokens][2], zero where there is nothing.
template <class S>
static inline void rows_to_pieces(const S* const* rows, int count, int64_t features, BFloat16* to) {
    constexpr bool is_narrow = sizeof(S) == sizeof(BFloat16);
    alignas(64) BFloat16 staged[16][STEP];
    for (int64_t s = 0; s < steps_of(features); s++)
        for (int half = 0; half < 2; half++, to += TILE) {
            const int lanes = std::clamp(count - 16 * half, 0, 16), width = int(std::min<int64_t>(STEP, features - s * STEP));
            const S* const* from = rows + 16 * half;
            if (lanes == 0) {
                std::memset(to, 0, TILE * sizeof(BFloat16));
                continue;
            }
            // gathered rows lie apart, and the hardware follows only a few of them.
            for (int i = 0; i < lanes; i++) __builtin_prefetch(from[i] + (s + AHEAD) * STEP);
            if constexpr (is_narrow)
                if (lanes == 16 && width == STEP) {
                    turn_tile([&](int i) { return from[i] + s * STEP; }, to);
                    continue;
                }
            for (int i = 0; i < 16; i++)
                _mm512_store_si512(staged[i], i < lanes ? line_of(from[i] + s * STEP, first32(width)) : _mm512_setzero_si512());
            turn_tile([&](int i) { return staged[i]; }, to);
        }
}

// A piece of tokens as operand B becomes one as operand A: [32 features][32 tokens].
static inline void piece_to_features(const BFloat16* from, BFloat16* to) {
    for (int q = 0; q < 16; q++) {
        const __m512i left = _mm512_loadu_si512(from + q * 32), right = _mm512_loadu_si512(from + TILE + q * 32);
        _mm512_storeu_si512(to + 2 * q * 32, EVEN.of(left, right));
        _mm512_storeu_si512(to + (2 * q + 1) * 32, ODD.of(left, right));
    }
}

// Up to 32 rows, `columns` numbers of each, as operand B whose inputs are the rows: [half of the columns][16 pairs of
// rows][16 columns][2].
template <class Row>
static inline void rows_to_pairs(Row row, int count, int columns, BFloat16* to) {
    const __mmask32 mask = first32(columns);
    for (int q = 0; q < 16; q++) {
        const __m512i zero = _mm512_setzero_si512();
        const __m512i a = 2 * q < count ? line_of(row(2 * q), mask) : zero;
        const __m512i b = 2 * q + 1 < count ? line_of(row(2 * q + 1), mask) : zero;
        _mm512_storeu_si512(to + q * 32, FIRST_HALVES.of(a, b));
        _mm512_storeu_si512(to + TILE + q * 32, SECOND_HALVES.of(a, b));
    }
}

// Both tiles of a piece turned over: operand A becomes operand B of the same numbers, or B becomes A.
static inline void turn_piece(const BFloat16* from, BFloat16* to) {
    for (int half = 0; half < 2; half++)
        turn_tile([&](int i) { return from + half * TILE + i * 32; }, to + half * TILE);
}

}  // namespace TIER
