// A few tokens: weights pass through once, at the speed of memory.
#pragma once

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

// value[r][t] = <weight row r, token t> for R rows and up to FEW tokens.
template <class S, int R>
static inline void dot_rows(const S* const* weight, const float* tokens, int64_t stride, int count, int64_t n,
                            float (*value)[FEW]) {
    for (int t = 0; t < count; t++) {
        const float* x = tokens + t * stride;
        V sum[R] = {};
        int64_t k = 0;
        for (; k + VL <= n; k += VL) {
            const V part = load(x + k);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sum[r] += widen_vector(weight[r] + k) * part;
        }
        for (int r = 0; r < R; r++) {
            float total = 0;
            for (int64_t rest = k; rest < n; rest++) total += widen(weight[r][rest]) * x[rest];
            for (int i = 0; i < VL; i++) total += sum[r][i];
            value[r][t] = total;
        }
    }
}

template <class S>
static inline void dot_some(int rows, const S* const* weight, const float* tokens, int64_t stride, int count, int64_t n,
                            float (*value)[FEW]) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) dot_rows<S, 4>(weight + r, tokens, stride, count, n, value + r);
    for (; r < rows; r++) dot_rows<S, 1>(weight + r, tokens, stride, count, n, value + r);
}

}  // namespace TIER
