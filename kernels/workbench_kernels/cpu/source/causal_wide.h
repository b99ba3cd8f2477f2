// Causal attention in float32, and of narrower numbers that are widened on the way.
#pragma once

#include "causal.h"

namespace TIER {

#if defined(__AVX512F__)
constexpr int SUMMED_ROWS = 8;
#else
constexpr int SUMMED_ROWS = 4;
#endif

// Sums start anew after as many steps: the error of one long sum grows with its length.
constexpr int64_t SUMMED_DEPTH = 64;

// c[m][lane] (+)= sum over k of left(m, k) * right[k][lane], for SUMMED_ROWS rows, ROW and STEP numbers apart.
template <int ROW, int STEP>
static inline void product_rows(const float* left, const float* right, int64_t depth, float* c, bool continues) {
    constexpr int NV = LANES / VL;
    V sum[SUMMED_ROWS][NV];
#pragma GCC unroll 8
    for (int m = 0; m < SUMMED_ROWS; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sum[m][v] = V{};
    for (int64_t k = 0; k < depth; k++, left += STEP, right += PANEL) {
        V x[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) x[v] = load(right + v * VL);
#pragma GCC unroll 8
        for (int m = 0; m < SUMMED_ROWS; m++) {
            const V factor = splat(left[m * ROW]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) sum[m][v] += factor * x[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < SUMMED_ROWS; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            float* to = c + m * PANEL + v * VL;
            store(to, continues ? load(to) + sum[m][v] : sum[m][v]);
        }
}

// e^x for a weight, exactly zero where nothing would be seen of it.
INLINE V weight_of(V x) { return x < splat(-87.0f) ? V{} : exponential(x); }

// `left` sides are [k][32 outputs], `right` sides [k][32 lanes].
template <class S>
struct Wide {
    using Stored = S;
    using Number = float;
    struct Unit {};
    static constexpr bool IS_ONE_FORM = true;

    static void tokens_left(const float* staged, const Heads& h, float* to) {
        const float* rows[PANEL];
        for (int i = 0; i < PANEL; i++) rows[i] = staged + i * h.pieces * PANEL;
        rows_to_panel(rows, PANEL, h.channels, to);
    }
    static void tokens_right(const float* staged, const Heads& h, float* to) { tokens_left(staged, h, to); }
    static void channels_left(const float* staged, const Heads& h, float* to) {
        lay_down(staged, h, to, h.panels * SQUARE);
    }
    static void channels_right(const float* staged, const Heads& h, float* to) { lay_down(staged, h, to, SQUARE); }

    static void product(const float* left, const float* right, int64_t depth, int outputs, int lanes, float* sums,
                        bool continues) {
        for (int m = 0; m < outputs; m += SUMMED_ROWS)
            for (int lane = 0; lane < lanes; lane += LANES)
                for (int64_t k = 0; k < depth; k += SUMMED_DEPTH)
                    product_rows<1, PANEL>(left + k * PANEL + m, right + k * PANEL + lane,
                                           std::min(SUMMED_DEPTH, depth - k), sums + m * PANEL + lane,
                                           continues || k > 0);
    }
    // sums[key][channel] from rows of keys: the sum goes over queries.
    static void outer(const float* left, const float* right, int lanes, float* sums, bool continues) {
        for (int m = 0; m < PANEL; m += SUMMED_ROWS)
            for (int lane = 0; lane < lanes; lane += LANES)
                product_rows<PANEL, 1>(left + m * PANEL, right + lane, PANEL, sums + m * PANEL + lane, continues);
    }

    static void weigh(const float* scores, int64_t keys, const float* top, float scale, bool continues, float* weights,
                      float* total) {
        for (int v = 0; v < PANEL; v += VL) {
            const V highest = load(top + v);
            V sum = continues ? load(total + v) : V{};
            for (int64_t first = 0; first < keys; first += PANEL) {
                V some{};
                for (int64_t key = first; key < first + PANEL; key++) {
                    const V weight = weight_of((load(scores + key * PANEL + v) - highest) * scale);
                    store(weights + key * PANEL + v, weight);
                    some += weight;
                }
                sum += some;
            }
            store(total + v, sum);
        }
    }

    static void prepare(const float*, const float*, float, float*) {}
    static void slopes(const float* scores, const float* toward, const float* top, const float* share,
                       const float* delta, float scale, bool is_diagonal, float* weights, float* slopes, float*) {
        for (int v = 0; v < PANEL; v += VL) {
            const V highest = load(top + v), part = load(share + v), pull = load(delta + v);
            V lane{};
            for (int i = 0; i < VL; i++) lane[i] = float(v + i);
            for (int key = 0; key < PANEL; key++) {
                V weight = weight_of((load(scores + key * PANEL + v) - highest) * scale) * part;
                if (is_diagonal) weight = lane < splat(float(key)) ? V{} : weight;
                store(weights + key * PANEL + v, weight);
                store(slopes + key * PANEL + v, weight * (load(toward + key * PANEL + v) - pull));
            }
        }
    }

private:
    static void lay_down(const float* staged, const Heads& h, float* to, int64_t stride) {
        for (int64_t piece = 0; piece < h.pieces; piece++)
            for (int i = 0; i < PANEL; i++)
                for (int k = 0; k < PANEL; k += VL)
                    store(to + piece * stride + i * PANEL + k, load(staged + (i * h.pieces + piece) * PANEL + k));
    }
};

}  // namespace TIER
