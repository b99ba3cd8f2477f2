// Products of whole blocks, from the register tiles.
#pragma once

#include "blocks.h"
#include "tile.h"

namespace TIER {

constexpr int GRADIENT_PANELS = 64;  // of one sweep over tokens for a weight gradient

constexpr int64_t WEIGHT_FLOATS = MR * ROW_STRIDE > DEPTH * MINOR ? MR * ROW_STRIDE : DEPTH * MINOR;
static inline int64_t tile_floats(int panels) { return int64_t(panels) * MR * PANEL; }
static inline int64_t gradient_floats(int64_t features) { return (GRADIENT_PANELS * PANEL + features + MR) * PANEL; }

// Scratch of a product: the copied weights, and one tile for each panel.
struct Scratch {
    float *weights, *tile, *x, *a, *wide;
};

// Outputs n0..n1 of every token of a block: sum over k of weight(n, k) * panels[k]. `then(n, m, p, tile)` gets outputs
// n..n+m of panel p. Order::rows reads weight[n * stride + k], Order::columns weight[k * stride + n].
template <Order ORDER, class S, class Then>
void multiply_block(const Block& b, const S* weight, int64_t stride, int64_t n0, int64_t n1, int64_t inputs,
                    const float* panels, bool fills_lanes, const Scratch& s, Then then) {
    for (int64_t n = n0; n < n1; n += MR) {
        const int m = int(std::min<int64_t>(MR, n1 - n));
        for (int64_t k = 0; k < inputs; k += DEPTH) {
            const int depth = int(std::min<int64_t>(DEPTH, inputs - k));
            const bool goes_on = k + DEPTH < inputs;
            const int64_t n_next = goes_on ? n : n + m, k_next = goes_on ? k + DEPTH : 0;
            const S* coming;
            if constexpr (ORDER == Order::rows) {
                const S* rows[MR];
                for (int i = 0; i < m; i++) rows[i] = weight + (n + i) * stride;
                copy_rows(rows, m, k, depth, s.weights);
                coming = weight + n_next * stride + k_next;
            } else {
                copy_columns(weight + n, stride, m, k, depth, s.weights);
                coming = weight + k_next * stride + n_next;
            }
            const int more = int(std::clamp<int64_t>(n1 - n_next, 0, MR));
            for (int p = 0; p < b.panels(); p++)
                multiply<ORDER>(m, s.weights, panels + (p * inputs + k) * PANEL, depth, fills_lanes ? PANEL : b.lanes(p),
                                s.tile + p * MR * PANEL, k > 0,
                                Coming::of(ORDER, coming, stride * sizeof(S), more, depth, p, b.panels()));
        }
        for (int p = 0; p < b.panels(); p++) then(n, m, p, s.tile + p * MR * PANEL);
    }
}

template <class S>
static inline void write_row(const float* from, S* to, int n, bool adds) {
    if (adds) {
        for (int i = 0; i < n; i++) narrow(widen(to[i]) + from[i], to[i]);
        return;
    }
#if defined(__AVX512F__)
    // the optimiser reads it much later: past the cache, without reading the lines first.
    if constexpr (sizeof(S) == 4)
        if (n == PANEL && reinterpret_cast<uintptr_t>(to) % 64 == 0) {
            _mm512_stream_ps(to, _mm512_loadu_ps(from));
            _mm512_stream_ps(to + 16, _mm512_loadu_ps(from + 16));
            return;
        }
#endif
    narrow_row(from, to, n);
}

// Up to 32 columns of a weight gradient: gradient[m][n] (+)= sum over tokens of left[m] * right[n]. `right(p, to)` lays
// down panel p as [token][32 columns], zero where there is no token or column.
template <class S, class Right>
void gradient_columns(const float* left, int64_t features, int64_t panels, Right right, S* gradient, int64_t stride,
                      int columns, bool adds, float* wide) {
    float *packed = wide, *sums = wide + GRADIENT_PANELS * PANEL * PANEL;
    for (int64_t p0 = 0; p0 < panels; p0 += GRADIENT_PANELS) {
        const int some = int(std::min<int64_t>(GRADIENT_PANELS, panels - p0));
        for (int p = 0; p < some; p++) right(p0 + p, packed + p * PANEL * PANEL);
        for (int64_t m = 0; m < features; m += MR)
            for (int p = 0; p < some; p += DEPTH / PANEL)
                accumulate(int(std::min<int64_t>(MR, features - m)), left + ((p0 + p) * features + m) * PANEL,
                           features * PANEL, std::min(DEPTH / PANEL, some - p), packed + p * PANEL * PANEL, columns,
                           sums + m * PANEL, p0 + p > 0);
    }
    for (int64_t m = 0; m < features; m++)
        if (panels > 0)
            write_row(sums + m * PANEL, gradient + m * stride, columns, adds);
        else if (!adds)
            std::memset(gradient + m * stride, 0, columns * sizeof(S));
}

// Rows of tensors, columns n0..n0+columns, as one panel of [token][32 columns].
template <class S>
static inline void rows_to_columns(const S* const* rows, int count, int64_t n0, int columns, float* to) {
    if (columns < PANEL || count < PANEL) std::memset(to, 0, PANEL * PANEL * sizeof(float));
    for (int t = 0; t < count; t++) widen_row(rows[t] + n0, to + t * PANEL, columns);
}

}  // namespace TIER
