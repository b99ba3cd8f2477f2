// A few tokens: weights pass through once, at the speed of memory.
#pragma once

#include <algorithm>

#include "activation.h"
#include "storage.h"

namespace TIER {

constexpr int FEW = 4;  // rows of an expert up to which weights are streamed, not tiled

template <class S>
INLINE V widen_vector(const S* from) {
#if defined(__AVX512F__)
    return reinterpret_cast<V>(widen16(from, 0xffff));
#else
    V result;
    for (int i = 0; i < VL; i++) result[i] = widen(from[i]);
    return result;
#endif
}

// value[r][t] = <weight row r, token t> for R rows and up to FEW tokens. `ahead` elements further, unless it is 0, lies what
// is read next: the processor follows one row by itself, and not eight.
template <class S, int R>
static inline void dot_rows(const S* const* weight, const float* tokens, int64_t stride, int count, int64_t n,
                            int64_t ahead, float (*value)[FEW]) {
    for (int t = 0; t < count; t++) {
        const float* x = tokens + t * stride;
        V sum[R] = {};
        int64_t k = 0;
        for (; k + VL <= n; k += VL) {
            const V part = load(x + k);
            const bool is_line = ahead != 0 && t == 0 && k * int64_t(sizeof(S)) % 64 == 0;
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                if (is_line) __builtin_prefetch(weight[r] + ahead + k);
                sum[r] += widen_vector(weight[r] + k) * part;
            }
        }
        float whole[R];
        if constexpr (R == 8) totals(sum, whole);
        else
            for (int r = 0; r < R; r++) whole[r] = total(sum[r]);
        for (int r = 0; r < R; r++) {
            float tail = 0;
            for (int64_t rest = k; rest < n; rest++) tail += widen(weight[r][rest]) * x[rest];
            value[r][t] = whole[r] + tail;
        }
    }
}

template <class S>
static inline void dot_some(int rows, const S* const* weight, const float* tokens, int64_t stride, int count, int64_t n,
                            int64_t ahead, float (*value)[FEW]) {
    int r = 0;
    for (; r + 8 <= rows; r += 8) dot_rows<S, 8>(weight + r, tokens, stride, count, n, ahead, value + r);
    for (; r + 4 <= rows; r += 4) dot_rows<S, 4>(weight + r, tokens, stride, count, n, 0, value + r);
    for (; r < rows; r++) dot_rows<S, 1>(weight + r, tokens, stride, count, n, 0, value + r);
}

// The gated inner features f0 to f1 of a few tokens; keep(f, t, gate, up) sees what they are made of.
template <class S, class Keep>
static inline void few_up(const S* gate_up, int64_t width, int64_t hidden, int64_t f0, int64_t f1, const float* x,
                          int count, int activation, float* a, Keep keep) {
    for (int64_t f = f0; f < f1; f += 4) {
        const int half = int(std::min<int64_t>(4, f1 - f));
        const S* rows[8];
        for (int i = 0; i < half; i++) {
            rows[i] = gate_up + (f + i) * width;
            rows[half + i] = gate_up + (hidden + f + i) * width;
        }
        float value[8][FEW];
        dot_some(2 * half, rows, x, width, count, width, 4 * width, value);
        for (int i = 0; i < half; i++)
            for (int t = 0; t < count; t++) {
                keep(f + i, t, value[i][t], value[half + i][t]);
                a[t * hidden + f + i] = gate_of(splat(value[i][t]), activation).value[0] * value[half + i][t];
            }
    }
}

// Rows `first` to `last` of a matrix times a few tokens: to(t, row, value).
template <class S, class To>
static inline void few_rows(const S* weight, int64_t inputs, int64_t first, int64_t last, const float* x, int count,
                            To to) {
    for (int64_t o = first; o < last; o += 8) {
        const int many = int(std::min<int64_t>(8, last - o));
        const S* rows[8];
        for (int i = 0; i < many; i++) rows[i] = weight + (o + i) * inputs;
        float value[8][FEW];
        dot_some(many, rows, x, inputs, count, inputs, 8 * inputs, value);
        for (int i = 0; i < many; i++)
            for (int t = 0; t < count; t++) to(t, o + i, value[i][t]);
    }
}

// The rows of one token, each times its share, in the order of its slots; rows[k] < 0 adds nothing.
template <class Share>
static inline void weighted_sum(int64_t slots, int64_t width, const int32_t* rows, const float* y, int64_t stride,
                                Share share, float* sum) {
    constexpr int SOME = 4;
    int64_t d = 0;
    for (; d + SOME * VL <= width; d += SOME * VL) {
        V part[SOME] = {};
        for (int64_t k = 0; k < slots; k++)
            for (int i = 0; i < SOME && rows[k] >= 0; i++)
                part[i] += splat(share(k)) * load(y + rows[k] * stride + d + i * VL);
        for (int i = 0; i < SOME; i++) store(sum + d + i * VL, part[i]);
    }
    for (; d < width; d++) {
        sum[d] = 0;
        for (int64_t k = 0; k < slots; k++)
            if (rows[k] >= 0) sum[d] += share(k) * y[rows[k] * stride + d];
    }
}

}  // namespace TIER
