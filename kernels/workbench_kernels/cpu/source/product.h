// Products of whole blocks, from the register tiles.
#pragma once

#include "blocks.h"
#include "tile.h"

namespace TIER {

constexpr int GROUP = 8;             // weight tiles that share a visit of the panels
constexpr int GRADIENT_PANELS = 64;  // of one sweep over tokens for a weight gradient

constexpr int64_t WEIGHT_FLOATS = MR * ROW_STRIDE > DEPTH * MINOR ? MR * ROW_STRIDE : DEPTH * MINOR;
static inline int64_t tile_floats(int panels) { return int64_t(panels) * GROUP * MR * PANEL; }
static inline int64_t gradient_floats(int64_t features) { return (GRADIENT_PANELS * PANEL + features + MR) * PANEL; }

// Scratch of a product: the copied weights, and one tile for each panel.
struct Scratch {
    float *weights, *tile, *x, *a, *wide;
};

// Weights as tiles of MR outputs: output n is a row (weight[n * stride + k]) or a column (weight[k * stride + n]).
template <Order ORDER, class S>
struct Tiles {
    static constexpr Order order = ORDER;
    const S* weight;
    int64_t stride, n0, n1;

    int64_t count() const { return (n1 - n0 + MR - 1) / MR; }
    int64_t first(int64_t t) const { return n0 + t * MR; }
    int rows(int64_t t) const { return int(std::min<int64_t>(MR, n1 - first(t))); }

    void copy(int64_t t, int64_t k, int depth, float* to) const {
        if constexpr (ORDER == Order::rows) {
            const S* row[MR];
            for (int i = 0; i < rows(t); i++) row[i] = weight + (first(t) + i) * stride;
            copy_rows(row, rows(t), k, depth, to);
        } else {
            copy_columns(weight + first(t), stride, rows(t), k, depth, to);
        }
    }

    Coming coming(int64_t t, int64_t k, int depth, int part, int parts) const {
        const S* from = weight + (ORDER == Order::rows ? first(t) * stride + k : k * stride + first(t));
        return Coming::of(ORDER, from, stride * sizeof(S), rows(t), depth, part, parts);
    }
};

// Gate rows f and up rows f side by side in one tile, so that an epilogue sees both.
template <class S>
struct PairedTiles {
    static constexpr Order order = Order::rows;
    const S *gate, *up;
    int64_t stride, f0, f1;

    int64_t count() const { return (f1 - f0 + MR / 2 - 1) / (MR / 2); }
    int64_t first(int64_t t) const { return f0 + t * (MR / 2); }
    int half(int64_t t) const { return int(std::min<int64_t>(MR / 2, f1 - first(t))); }
    int rows(int64_t t) const { return 2 * half(t); }

    void copy(int64_t t, int64_t k, int depth, float* to) const {
        const S* row[MR];
        for (int i = 0; i < half(t); i++) {
            row[i] = gate + (first(t) + i) * stride;
            row[half(t) + i] = up + (first(t) + i) * stride;
        }
        copy_rows(row, rows(t), k, depth, to);
    }

    Coming coming(int64_t t, int64_t k, int depth, int part, int parts) const {
        const S* from = (2 * part < parts ? gate : up) + first(t) * stride + k;
        const int some = (parts + 1) / 2;
        return Coming::of(Order::rows, from, stride * sizeof(S), half(t), depth, part % some, some);
    }
};

// Every output of every token of a block: sum over k of weight(n, k) * panels[k]; `then(t, p, tile)` gets tile t of
// panel p. A few tiles pass over one depth of all panels before the next depth: panels come near once for all of them.
template <class Source, class Then>
void multiply_block(const Block& b, const Source& source, int64_t inputs, const float* panels, bool fills_lanes,
                    const Scratch& s, Then then) {
    const int64_t tiles = source.count();
    const int parts = b.panels();
    // panels of small depth stay near by themselves, and an epilogue is best served warm.
    const int64_t group = inputs <= 2 * DEPTH ? 1 : GROUP;
    for (int64_t t0 = 0; t0 < tiles; t0 += group) {
        const int some = int(std::min(group, tiles - t0));
        for (int64_t k = 0; k < inputs; k += DEPTH) {
            const int depth = int(std::min<int64_t>(DEPTH, inputs - k));
            for (int g = 0; g < some; g++) {
                source.copy(t0 + g, k, depth, s.weights);
                const bool is_last = g + 1 == some, goes_on = k + DEPTH < inputs;
                const int64_t t_next = !is_last ? t0 + g + 1 : goes_on ? t0 : t0 + some;
                const int64_t k_next = is_last ? (goes_on ? k + DEPTH : 0) : k;
                for (int p = 0; p < parts; p++)
                    multiply<Source::order>(source.rows(t0 + g), s.weights, panels + (p * inputs + k) * PANEL, depth,
                                            fills_lanes ? PANEL : b.lanes(p), s.tile + (g * parts + p) * MR * PANEL,
                                            k > 0, source.coming(t_next < tiles ? t_next : t0, k_next, depth, p, parts));
            }
        }
        for (int g = 0; g < some; g++)
            for (int p = 0; p < parts; p++) then(t0 + g, p, s.tile + (g * parts + p) * MR * PANEL);
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
