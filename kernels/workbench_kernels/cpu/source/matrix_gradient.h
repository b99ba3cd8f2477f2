// Gradients of weights in bfloat16: sums over the tokens of an expert, rounded once.
//
// The left operand lies in strips of 32 features, [strip][panel][32 features][32 tokens], so that what one tile of the
// gradient reads is contiguous however many panels there are.
#pragma once

#include "matrix_product.h"

namespace TIER {

constexpr int GRADIENT_GROUPS = 4;  // of 32 columns: how often a strip is used once it is near
constexpr int64_t GRADIENT_COLUMNS = GRADIENT_GROUPS * PANEL;  // of one item
constexpr int GRADIENT_PANELS = 64;                            // of one sweep over tokens
constexpr int64_t PAST_CACHE_BYTES = 32 << 20;                 // a gradient this large is not kept in the cache

// Floats of scratch: the right operand of a sweep, and the sums that go on in the next one.
static inline int64_t gradient_floats(int64_t strips, int64_t panels) {
    const int64_t swept = std::min<int64_t>(panels, GRADIENT_PANELS);
    return GRADIENT_GROUPS * (swept * PIECE / 2 + (panels > GRADIENT_PANELS ? strips : 1) * SUMS);
}

struct GradientRows {
    bool adds, streams;  // add to what is there; write past the cache
};

template <class W>
static inline void write_gradient(const float* from, W* to, int columns, const GradientRows& rows) {
    __m512 low = _mm512_loadu_ps(from), high = _mm512_loadu_ps(from + 16);
    const __mmask16 some = first(columns), others = first(columns - 16);
    if (rows.adds) {
        low = _mm512_add_ps(low, widen16(to, some));
        high = _mm512_add_ps(high, widen16(to + 16, others));
    }
    const bool streams = rows.streams && columns >= PANEL && reinterpret_cast<uintptr_t>(to) % 64 == 0;
    if constexpr (sizeof(W) == sizeof(float)) {
        if (streams) {
            _mm512_stream_ps(to, low);
            _mm512_stream_ps(to + 16, high);
            return;
        }
        narrow16(low, to, some);
        narrow16(high, to + 16, others);
    } else {
        const __m512i line = narrow_both(low, high);
        if (streams) _mm512_stream_si512(reinterpret_cast<__m512i*>(to), line);
        else _mm512_mask_storeu_epi16(to, first32(columns), line);
    }
}

// gradient[m][n] (+)= sum over tokens of left[m] * right[n], for the columns of one item. `right(group, p, to)` lays
// down 32 columns of panel p as operand B, zero where there is no token or column; `to(feature)` is where the first of
// the columns lies in that row of the gradient, null where the strip has no such feature.
template <class Right, class To>
void gradient_columns(const BFloat16* left, int64_t strips, int64_t panels, Right right, int columns, float* scratch,
                      const GradientRows& rows, To to) {
    const int groups = (columns + PANEL - 1) / PANEL;
    const auto write = [&](int64_t strip, int, int group, const float* sums, int unit) {
        for (int i = 4 * unit; i < 4 * unit + 4; i++)
            if (auto* row = to(strip * PANEL + i))
                write_gradient(sums + i * PANEL, row + group * PANEL, columns - group * PANEL, rows);
    };
    Behind behind(write);
    const int64_t swept = std::min<int64_t>(panels, GRADIENT_PANELS);
    BFloat16* const packed = reinterpret_cast<BFloat16*>(scratch);
    float* const sums = scratch + GRADIENT_GROUPS * swept * PIECE / 2;
    for (int64_t p0 = 0; p0 < panels; p0 += swept) {
        const int some = int(std::min(swept, panels - p0));
        for (int g = 0; g < groups; g++)
            for (int p = 0; p < some; p++) right(g, p0 + p, packed + (g * swept + p) * PIECE);
        for (int64_t strip = 0; strip < strips; strip++) {
            const BFloat16* from = left + (strip * panels + p0) * PIECE;
            const char* near = reinterpret_cast<const char*>(from + panels * PIECE);
            const Coming next{near, near + TILE * sizeof(BFloat16), 64, PIECE * sizeof(BFloat16), false};
            for (int g = 0; g < groups; g++) {
                float* own = sums + (panels > swept ? strip * GRADIENT_GROUPS + g : g) * SUMS;
                multiply(true, columns - g * PANEL > 16, Operand::of_pieces(from), packed + g * swept * PIECE, some, own,
                         p0 > 0, next.part(g, groups), behind);
                if (p0 + some == panels) behind.begin(strip, PANEL, g, own);
            }
        }
    }
    behind.finish();
    _mm_sfence();
}

// The gradient of an expert without tokens.
template <class To>
static inline void clear_columns(int64_t strips, int columns, bool adds, To to) {
    for (int64_t i = 0; i < strips * PANEL && !adds; i++)
        if (auto* row = to(i)) std::memset(row, 0, columns * sizeof *row);
}

}  // namespace TIER
