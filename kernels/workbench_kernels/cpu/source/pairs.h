// Pairs of bfloat16 on the vector registers: one step multiplies sixteen pairs and adds both products to sixteen sums.
//
// The operands are those of the matrix unit. Eight outputs of 32 tokens are summed at once, which is as fast as the
// arithmetic units go. Compiled without AVX512-BF16 the step is made of two of float32, so that it is tested anywhere.
#pragma once

#include "operand.h"

namespace TIER {

// Vector registers need nobody's leave.
struct Unit {};

// `a` holds the same pair sixteen times. The second numbers of the pairs are added first, as the processor does.
INLINE __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#else
    const __m512i high = _mm512_set1_epi32(int32_t(0xffff0000u));
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                          _mm512_castsi512_ps(_mm512_and_si512(b, high)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)),
                           sum);
#endif
}

// M outputs of 16 * NB tokens; `rows` are the first of M rows of one tile of operand A.
template <int M, int NB>
INLINE void multiply_rows(const BFloat16* rows, const Operand& a, const BFloat16* b, int steps, float* sums,
                                 bool continues, const Coming& coming) {
    __m512 sum[M][NB];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int n = 0; n < NB; n++) sum[m][n] = _mm512_setzero_ps();
    // every other row, the rows between at one distance from them all: addresses that fit into registers.
    const char* even[M / 2];
    int64_t stride = a.stride;
    asm("" : "+r"(stride));
#pragma GCC unroll 8
    for (int m = 0; m < M / 2; m++) {
        even[m] = reinterpret_cast<const char*>(rows) + 2 * m * stride;
        asm("" : "+r"(even[m]));
    }
    for (int s = 0; s < steps; s++, b += PIECE) {
        coming.fetch(s);
#pragma GCC unroll 16
        for (int k = 0; k < STEP / 2; k++) {
            __m512i column[NB];
#pragma GCC unroll 2
            for (int n = 0; n < NB; n++) column[n] = _mm512_loadu_si512(b + n * TILE + k * STEP);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                int32_t pair;
                std::memcpy(&pair, even[m / 2] + (m % 2 == 0 ? 0 : stride) + 4 * k, sizeof pair);
                const __m512i factor = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
                for (int n = 0; n < NB; n++) sum[m][n] = add_pairs(sum[m][n], factor, column[n]);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < M / 2; m++) even[m] += a.step * int64_t(sizeof(BFloat16));
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int n = 0; n < NB; n++) {
            float* to = sums + m * PANEL + 16 * n;
            _mm512_storeu_ps(to, continues ? _mm512_add_ps(_mm512_loadu_ps(to), sum[m][n]) : sum[m][n]);
        }
}

template <int M, int NB>
static inline void multiply_pairs(bool has_two_a, const Operand& a, const BFloat16* b, int steps, float* sums,
                                  bool continues, const Coming& coming) {
    const int64_t stride = a.stride / int64_t(sizeof(BFloat16));
    const int parts = (has_two_a ? 2 : 1) * 16 / M;
    for (int i = 0; i < parts; i++) {
        const BFloat16* rows = (i * M < 16 ? a.first : a.second) + i * M % 16 * stride;
        multiply_rows<M, NB>(rows, a, b, steps, sums + i * M * PANEL, continues, coming.shared(i, parts));
    }
}

// Sums of 32 or 16 outputs and 32 or 16 tokens, anew or further on.
template <class Side>
static inline void multiply(bool has_two_a, bool has_two_b, const Operand& a, const BFloat16* b, int steps, float* sums,
                            bool continues, const Coming& coming, Side& side) {
    // there is nothing that could work beside the vector registers.
    side.finish();
    if (has_two_b) return multiply_pairs<8, 2>(has_two_a, a, b, steps, sums, continues, coming);
    return multiply_pairs<16, 1>(has_two_a, a, b, steps, sums, continues, coming);
}

}  // namespace TIER
