// Causal attention in bfloat16, on the unit that was included before: tiles.h or pairs.h.
#pragma once

#include "causal.h"
#include "operand.h"

namespace TIER {

// Nothing is left to do beside a product.
struct Idle {
    void some(int) {}
    void finish() {}
};

// 2^x within 3e-6 relative; zero far below.
INLINE __m512 power_of_two(__m512 x) {
    // written so that a NaN stays.
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x);
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 rest = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.00957010191f), rest, _mm512_set1_ps(0.0559178603f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.240247448f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.693121815f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.999999261f));
    return _mm512_scalef_ps(p, whole);
}

// Two rows of 32 queries, of neighbouring keys, as they are narrowed.
struct TwoRows {
    __m512i even, odd;

    void as_left(BFloat16* to) const {
        _mm512_storeu_si512(to, even);
        _mm512_storeu_si512(to + STEP, odd);
    }
    // `to` is where the pair lies in the first half of a piece.
    void as_right(BFloat16* to) const {
        _mm512_storeu_si512(to, FIRST_HALVES.of(even, odd));
        _mm512_storeu_si512(to + TILE, SECOND_HALVES.of(even, odd));
    }
};

// `left` sides are pieces of operand A, `right` sides of operand B.
struct Narrow {
    using Stored = BFloat16;
    using Number = BFloat16;
    using Unit = TIER::Unit;
    static constexpr bool IS_ONE_FORM = false;
    static constexpr float LOG2_E = 1.44269504088896341f;

    static void tokens_left(const float* staged, const Heads& h, BFloat16* to) {
        for (int64_t piece = 0; piece < h.pieces; piece++, to += PIECE) narrow_piece(staged, h, piece, to);
    }
    static void tokens_right(const float* staged, const Heads& h, BFloat16* to) {
        alignas(64) BFloat16 rows[PIECE];
        for (int64_t piece = 0; piece < h.pieces; piece++, to += PIECE) {
            narrow_piece(staged, h, piece, rows);
            turn_piece(rows, to);
        }
    }
    static void channels_left(const float* staged, const Heads& h, BFloat16* to) {
        alignas(64) BFloat16 rows[PIECE], turned[PIECE];
        for (int64_t piece = 0; piece < h.pieces; piece++, to += h.panels * PIECE) {
            narrow_piece(staged, h, piece, rows);
            turn_piece(rows, turned);
            piece_to_features(turned, to);
        }
    }
    static void channels_right(const float* staged, const Heads& h, BFloat16* to) {
        alignas(64) BFloat16 rows[PIECE];
        for (int64_t piece = 0; piece < h.pieces; piece++, to += PIECE) {
            narrow_piece(staged, h, piece, rows);
            rows_to_pairs([&](int i) { return rows + i * STEP; }, PANEL, PANEL, to);
        }
    }

    static void product(const BFloat16* left, const BFloat16* right, int64_t depth, int outputs, int lanes, float* sums,
                        bool continues) {
        Idle idle;
        multiply(outputs > 16, lanes > 16, Operand::of_pieces(left), right, int(steps_of(depth)), sums, continues,
                 Coming{nullptr, nullptr, 0, 0}, idle);
    }
    static void outer(const BFloat16* left, const BFloat16* right, int lanes, float* sums, bool continues) {
        product(left, right, PANEL, PANEL, lanes, sums, continues);
    }

    static void weigh(const float* scores, int64_t keys, const float* top, float scale, bool continues,
                      BFloat16* weights, float* total) {
        const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
        const __m512 shift[2] = {_mm512_mul_ps(_mm512_loadu_ps(top), factor),
                                 _mm512_mul_ps(_mm512_loadu_ps(top + 16), factor)};
        __m512 sum[2][2] = {};
        for (int half = 0; half < 2 && continues; half++) sum[0][half] = _mm512_loadu_ps(total + 16 * half);
        for (int64_t key = 0; key < keys; key += 2) {
            __m512 weight[2][2];
#pragma GCC unroll 2
            for (int row = 0; row < 2; row++)
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    const __m512 score = _mm512_loadu_ps(scores + (key + row) * PANEL + 16 * half);
                    weight[row][half] = power_of_two(_mm512_fmsub_ps(score, factor, shift[half]));
                    sum[row][half] = _mm512_add_ps(sum[row][half], weight[row][half]);
                }
            const TwoRows rows{narrow_both(weight[0][0], weight[0][1]), narrow_both(weight[1][0], weight[1][1])};
            rows.as_right(weights + key / STEP * PIECE + key % STEP / 2 * STEP);
        }
        for (int half = 0; half < 2; half++)
            _mm512_storeu_ps(total + 16 * half, _mm512_add_ps(sum[0][half], sum[1][half]));
    }

    // A weight is 2 to the power of its score less `shift`.
    static void prepare(const float* top, const float* share, float scale, float* shift) {
        for (int i = 0; i < PANEL; i++) shift[i] = top[i] * scale * LOG2_E - std::log2(share[i]);
    }
    static void slopes(const float* scores, const float* toward, const float* lanes, const float*, const float* delta,
                       float scale, bool is_diagonal, BFloat16* weights, BFloat16* slopes, BFloat16* across) {
        const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
        const __m512 shift[2] = {_mm512_loadu_ps(lanes), _mm512_loadu_ps(lanes + 16)};
        const __m512 pull[2] = {_mm512_loadu_ps(delta), _mm512_loadu_ps(delta + 16)};
        for (int key = 0; key < PANEL; key += 2) {
            __m512 weight[2][2], slope[2][2];
#pragma GCC unroll 2
            for (int row = 0; row < 2; row++) {
                const uint32_t seen = is_diagonal ? 0xffffffffu << (key + row) : 0xffffffffu;
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    const int64_t at = (key + row) * PANEL + 16 * half;
                    const __m512 score = _mm512_loadu_ps(scores + at);
                    const __m512 power = power_of_two(_mm512_fmsub_ps(score, factor, shift[half]));
                    weight[row][half] = _mm512_maskz_mov_ps(__mmask16(seen >> 16 * half), power);
                    const __m512 gap = _mm512_sub_ps(_mm512_loadu_ps(toward + at), pull[half]);
                    slope[row][half] = _mm512_mul_ps(weight[row][half], gap);
                }
            }
            const TwoRows w{narrow_both(weight[0][0], weight[0][1]), narrow_both(weight[1][0], weight[1][1])};
            w.as_left(weights + key * STEP);
            const TwoRows s{narrow_both(slope[0][0], slope[0][1]), narrow_both(slope[1][0], slope[1][1])};
            s.as_left(slopes + key * STEP);
            s.as_right(across + key / 2 * STEP);
        }
    }

private:
    static void narrow_piece(const float* staged, const Heads& h, int64_t piece, BFloat16* to) {
        for (int i = 0; i < PANEL; i++) {
            const float* from = staged + (i * h.pieces + piece) * PANEL;
            _mm512_storeu_si512(to + i * STEP, narrow_both(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)));
        }
    }
};

}  // namespace TIER
