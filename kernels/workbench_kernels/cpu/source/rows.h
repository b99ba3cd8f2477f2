// Work on one row at a time, at the speed of memory: root-mean-square norm and cross-entropy.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "call.h"
#include "few.h"
#include "parallel.h"

namespace TIER {

constexpr int64_t ROWS_OF_ITEM = 32;

template <class S>
INLINE V widen_some(const S* from, int n) {
    V result{};
    for (int i = 0; i < n; i++) result[i] = widen(from[i]);
    return result;
}

INLINE void narrow_vector(V value, float* to) { store(to, value); }
template <class S>
INLINE void narrow_vector(V value, S* to) {
#if defined(__AVX512F__)
    narrow16(reinterpret_cast<__m512>(value), to, 0xffff);
#else
    for (int i = 0; i < VL; i++) narrow(value[i], to[i]);
#endif
}

template <class S, class G>
INLINE void scale_by(const S* x, float scale, const G* gain, int64_t n, S* out) {
    int64_t d = 0;
    for (; d + VL <= n; d += VL) narrow_vector(widen_vector(x + d) * scale * widen_vector(gain + d), out + d);
    for (; d < n; d++) narrow(widen(x[d]) * scale * widen(gain[d]), out[d]);
}

template <class S>
bool norm_forward(const NormCall& c) {
    const int64_t D = c.width, whole = D / VL * VL;
    workbench::for_items(c.threads, (c.rows + ROWS_OF_ITEM - 1) / ROWS_OF_ITEM, [&](int, int64_t item) {
        for (int64_t r = item * ROWS_OF_ITEM; r < std::min(c.rows, (item + 1) * ROWS_OF_ITEM); r++) {
            const S* x = static_cast<const S*>(c.x) + r * D;
            S* out = static_cast<S*>(c.out) + r * D;
            V squares[2] = {};
            int64_t d = 0;
            for (; d < whole; d += VL) {
                const V part = widen_vector(x + d);
                squares[d / VL % 2] += part * part;
            }
            const V rest = widen_some(x + whole, int(D - whole));
            const float mean = total(squares[0] + squares[1] + rest * rest) / float(D);
            const float scale = 1.0f / std::sqrt(mean + c.epsilon);
            if (c.scale != nullptr) c.scale[r] = scale;
            if (c.narrow_gain == nullptr) scale_by(x, scale, c.gain, D, out);
            else scale_by(x, scale, static_cast<const S*>(c.narrow_gain), D, out);
        }
    });
    return true;
}

template <class S>
bool norm_backward(const NormCall& c) {
    const int64_t D = c.width, items = (c.rows + ROWS_OF_ITEM - 1) / ROWS_OF_ITEM;
    // sums of items, added up in their order: the gradient does not depend on the threads.
    float* sums = nullptr;
    if (!workbench::arena().lay_out([&](auto take) { sums = take(items * D); })) return false;
    workbench::for_items(c.threads, items, [&](int, int64_t item) {
        float* own = sums + item * D;
        std::memset(own, 0, D * sizeof(float));
        for (int64_t r = item * ROWS_OF_ITEM; r < std::min(c.rows, (item + 1) * ROWS_OF_ITEM); r++) {
            const S *x = static_cast<const S*>(c.x) + r * D, *g = static_cast<const S*>(c.grad) + r * D;
            const float scale = c.scale[r];
            float product = 0;
            V products{};
            int64_t d = 0;
            for (; d + VL <= D; d += VL) {
                const V part = widen_vector(x + d), grad = widen_vector(g + d);
                store(own + d, load(own + d) + grad * part * scale);
                products += grad * part * load(c.gain + d);
            }
            for (; d < D; d++) {
                own[d] += widen(g[d]) * widen(x[d]) * scale;
                product += widen(g[d]) * widen(x[d]) * c.gain[d];
            }
            product += total(products);
            if (c.dx == nullptr) continue;
            S* dx = static_cast<S*>(c.dx) + r * D;
            const float pull = product * scale * scale / float(D);
            for (d = 0; d + VL <= D; d += VL)
                narrow_vector(scale * (widen_vector(g + d) * load(c.gain + d) - widen_vector(x + d) * pull), dx + d);
            for (; d < D; d++) narrow(scale * (widen(g[d]) * c.gain[d] - widen(x[d]) * pull), dx[d]);
        }
    });
    if (c.dgain == nullptr) return true;
    std::memset(c.dgain, 0, D * sizeof(float));
    for (int64_t item = 0; item < items; item++)
        for (int64_t d = 0; d < D; d++) c.dgain[d] += sums[item * D + d];
    return true;
}

template <class S>
bool entropy_forward(const EntropyCall& c) {
    const int64_t whole = c.classes / VL * VL;
    const float lowest = -std::numeric_limits<float>::infinity();
    workbench::for_items(c.threads, c.rows, [&](int, int64_t r) {
        const S* x = static_cast<const S*>(c.logits) + r * c.classes;
        V highest = splat(0.0f) + lowest, sum{};
        for (int64_t i = 0; i < whole; i += VL) {
            const V part = widen_vector(x + i);
            // written so that a NaN stays.
            highest = part <= highest ? highest : part;
        }
        float top = lowest, rest = 0;
        for (int i = 0; i < VL; i++) top = highest[i] <= top ? top : highest[i];
        for (int64_t i = whole; i < c.classes; i++) top = widen(x[i]) <= top ? top : widen(x[i]);
        for (int64_t i = 0; i < whole; i += VL) sum += exponential(widen_vector(x + i) - top);
        for (int64_t i = whole; i < c.classes; i++) rest += std::exp(widen(x[i]) - top);
        const float log_sum = top + std::log(total(sum) + rest);
        const int64_t target = c.target[r];
        const bool is_scored = target >= 0 && target < c.classes;
        c.log_sum[r] = log_sum;
        c.loss[r] = is_scored ? log_sum - widen(x[target]) : std::numeric_limits<float>::quiet_NaN();
    });
    return true;
}

template <class S>
bool entropy_backward(const EntropyCall& c) {
    workbench::for_items(c.threads, c.rows, [&](int, int64_t r) {
        const S* x = static_cast<const S*>(c.logits) + r * c.classes;
        S* dx = static_cast<S*>(c.dlogits) + r * c.classes;
        const int64_t target = c.target[r];
        if (target < 0 || target >= c.classes) {
            std::memset(static_cast<void*>(dx), 0, c.classes * sizeof(S));
            return;
        }
        const float grad = c.grad[r], log_sum = c.log_sum[r];
        int64_t i = 0;
        for (; i + VL <= c.classes; i += VL) narrow_vector(exponential(widen_vector(x + i) - log_sum) * grad, dx + i);
        for (; i < c.classes; i++) narrow(std::exp(widen(x[i]) - log_sum) * grad, dx[i]);
        narrow((std::exp(widen(x[target]) - log_sum) - 1.0f) * grad, dx[target]);
    });
    return true;
}

}  // namespace TIER
