// The experts of one token, and any matrix times a few tokens: weights pass through once, at the speed of memory.
#pragma once

#include "call.h"
#include "few.h"
#include "parallel.h"
#include "team.h"

namespace TIER {

constexpr int64_t ITEM_BYTES = 32 * 1024;  // of weights: long enough to be worth taking, short enough to share evenly

// Rows of so many bytes that make an item, in steps of a register tile.
INLINE int64_t rows_of_item(int64_t bytes, int64_t step) {
    return std::max<int64_t>(step, ITEM_BYTES / std::max<int64_t>(1, bytes) / step * step);
}

template <class S>
bool token_linear(const LinearCall& c, workbench::Session& team) {
    float* x = nullptr;
    if (!workbench::arena().lay_out([&](auto take) { x = take(c.tokens * c.inputs); })) return false;
    widen_row(static_cast<const S*>(c.x), x, c.tokens * c.inputs);
    const int64_t step = rows_of_item(c.inputs * int64_t(sizeof(S)), 8);
    S* const out = static_cast<S*>(c.out);
    team.for_items((c.outputs + step - 1) / step, [&](int, int64_t item) {
        few_rows(static_cast<const S*>(c.weight), c.inputs, item * step, std::min(c.outputs, (item + 1) * step), x,
                 int(c.tokens), [&](int t, int64_t o, float value) { narrow(value, out[t * c.outputs + o]); });
    });
    return true;
}

// The arithmetic is that of CommonLayer for a single row, sum for sum: both ways give the same bits.
template <class S>
class TokenExperts {
public:
    explicit TokenExperts(const ExpertsCall& call) : c(call), D(call.width), F(call.hidden_width) {}

    bool run(workbench::Session& team) {
        float *x = nullptr, *a = nullptr, *y = nullptr, *sum = nullptr, *rows = nullptr;
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            x = take(D);
            a = take(c.slots * F);
            y = take(c.outputs == nullptr ? c.slots * D : 0);
            sum = take(D);
            rows = take(c.slots);
        });
        if (!is_ready) return false;
        if (c.outputs != nullptr) y = c.outputs;
        const auto is_asked = [&](int64_t k) { return c.expert[k] >= 0 && c.expert[k] < c.experts; };
        widen_row(static_cast<const S*>(c.x), x, D);
        const auto each = [&](int64_t count, int64_t step, auto part) {
            const int64_t parts = (count + step - 1) / step;
            team.for_items(c.slots * parts, [&](int, int64_t item) {
                const int64_t k = item / parts, first = item % parts * step;
                if (is_asked(k)) part(k, first, std::min(count, first + step));
            });
        };
        each(F, rows_of_item(2 * D * int64_t(sizeof(S)), 4), [&](int64_t k, int64_t first, int64_t last) {
            const S* gate_up = static_cast<const S*>(c.gate_up) + c.expert[k] * 2 * F * D;
            few_up(gate_up, D, F, first, last, x, 1, SILU, a + k * F, [](int64_t, int, float, float) {});
        });
        each(D, rows_of_item(F * int64_t(sizeof(S)), 8), [&](int64_t k, int64_t first, int64_t last) {
            const S* down = static_cast<const S*>(c.down) + c.expert[k] * D * F;
            few_rows(down, F, first, last, a + k * F, 1, [&](int, int64_t d, float value) { y[k * D + d] = value; });
        });
        if (c.is_part) return true;
        // where a slot's output lies; -1 for an expert that there is not.
        int32_t* const row_of = reinterpret_cast<int32_t*>(rows);
        for (int64_t k = 0; k < c.slots; k++)
            row_of[k] = is_asked(k) || (c.expert[k] == -2 && c.outputs != nullptr) ? int32_t(k) : -1;
        weighted_sum(c.slots, D, row_of, y, D, [&](int64_t k) { return c.weight[k]; }, sum);
        leave(sum);
        return true;
    }

private:
    void leave(const float* sum) const {
        S* const out = static_cast<S*>(c.out);
        const S* const residual = static_cast<const S*>(c.residual);
        narrow_row(sum, out, D);
        // rounded before it is added, as a sum of two tensors is.
        for (int64_t d = 0; residual != nullptr && d < D; d++) narrow(widen(residual[d]) + widen(out[d]), out[d]);
    }

    const ExpertsCall& c;
    const int64_t D, F;
};

}  // namespace TIER
