// From logits to the K experts of every token, and back. Forward 32 tokens lie side by side: an expert finds its
// place in the sorted lists of all of them at once. Backward goes row by row and makes the scores again from the logits.
#pragma once

#include <algorithm>
#include <limits>

#include "call.h"
#include "parallel.h"
#include "rows.h"

namespace TIER {

template <class S>
class TopKGate {
public:
    explicit TopKGate(const TopKCall& call) : c(call), E(call.experts), K(call.slots), workers_(std::max(1, call.threads)) {}

    bool forward() {
        float *panels = nullptr, *keys = nullptr, *ids = nullptr;
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            panels = take(workers_ * E * PANEL);
            keys = take(workers_ * K * PANEL);
            ids = take(workers_ * K * PANEL);
        });
        if (!is_ready) return false;
        workbench::for_items(workers_, (c.rows + PANEL - 1) / PANEL, [&](int worker, int64_t item) {
            float* const panel = panels + worker * E * PANEL;
            int32_t* const key = reinterpret_cast<int32_t*>(keys) + worker * K * PANEL;
            int32_t* const id = reinterpret_cast<int32_t*>(ids) + worker * K * PANEL;
            const int64_t first = item * PANEL;
            const int count = int(std::min<int64_t>(PANEL, c.rows - first));
            const S* rows[PANEL];
            for (int i = 0; i < count; i++) rows[i] = static_cast<const S*>(c.logits) + (first + i) * E;
            rows_to_panel(rows, count, E, panel);
            for (int lane = 0; lane < PANEL; lane += VL) {
                // without a bias the logits decide, whose order the scores have but for what rounding makes equal.
                if (c.bias == nullptr) choose(panel + lane, key + lane, id + lane);
                score(panel + lane, first + lane, count - lane);
                if (c.bias != nullptr) choose(panel + lane, key + lane, id + lane);
            }
            for (int i = 0; i < count; i++) weigh(panel + i, id + i, first + i);
        });
        return true;
    }

    bool backward() {
        const int64_t padded = (K + VL - 1) / VL * VL;
        float* scores = nullptr;
        if (!workbench::arena().lay_out([&](auto take) { scores = take(workers_ * padded); })) return false;
        workbench::for_items(workers_, (c.rows + PANEL - 1) / PANEL, [&](int worker, int64_t item) {
            for (int64_t r = item * PANEL; r < std::min(c.rows, (item + 1) * PANEL); r++)
                learn(r, scores + worker * padded);
        });
        return true;
    }

private:
    enum Score { SOFTMAX = 0, SIGMOID = 1 };
    static constexpr float TINY = 1e-20f;  // what DeepSeek's code adds to the sum of weights

    INLINE VI get(const int32_t* from) {
        VI own;
        std::memcpy(&own, from, sizeof own);
        return own;
    }
    INLINE void put(int32_t* to, VI own) { std::memcpy(to, &own, sizeof own); }

    // e^x for x <= 0, and 0 where it is too small for a normal number.
    INLINE V share(V x) {
        const V low = splat(-87.0f), zero{};
        const V power = exponential(x);
        return x < low ? zero : power;
    }

    // Integers in the order of the numbers: NaN before all, both zeros equal.
    INLINE VI sortable(V x) {
        const VI bits = reinterpret_cast<VI>(x + 0.0f), most = VI{} + std::numeric_limits<int32_t>::max();
        const VI ordered = bits ^ ((bits >> 31) & most);
        return x == x ? ordered : most;
    }

    // The best of one register of tokens, best first, lower indices before higher where they are equal.
    void choose(const float* panel, int32_t* keys, int32_t* ids) const {
        for (int64_t k = 0; k < K; k++) put(keys + k * PANEL, VI{} + std::numeric_limits<int32_t>::min());
        for (int64_t e = 0; e < E; e++) {
            const V score = load(panel + e * PANEL);
            const VI key = sortable(c.bias == nullptr ? score : score + c.bias[e]), id = VI{} + int32_t(e);
            // from the end, so that who makes room goes where nobody looks any more; a place is empty until its turn.
            int64_t k = std::min(K, e + 1) - 1;
            VI own = get(keys + k * PANEL), owner = get(ids + k * PANEL), is_better = key > own;
            for (; k > 0; k--) {
                const VI other = get(keys + (k - 1) * PANEL), keeper = get(ids + (k - 1) * PANEL);
                const VI is_best = key > other;
                put(keys + k * PANEL, is_better ? is_best ? other : key : own);
                put(ids + k * PANEL, is_better ? is_best ? keeper : id : owner);
                own = other, owner = keeper, is_better = is_best;
            }
            put(keys, is_better ? key : own);
            put(ids, is_better ? id : owner);
        }
    }

    // Logits become scores; the highest of each token and one over the sum are kept for backward.
    void score(float* panel, int64_t first, int count) const {
        if (c.score == SIGMOID) {
            for (int64_t e = 0; e < E; e++) store(panel + e * PANEL, sigmoid(load(panel + e * PANEL)));
            return;
        }
        V most = load(panel), sum{};
        for (int64_t e = 1; e < E; e++) {
            const V own = load(panel + e * PANEL);
            // written so that a NaN stays.
            most = own <= most ? most : own;
        }
        for (int64_t e = 0; e < E; e++) {
            const V own = share(load(panel + e * PANEL) - most);
            sum += own;
            store(panel + e * PANEL, own);
        }
        const V scale = 1.0f / sum;
        for (int64_t e = 0; e < E; e++) store(panel + e * PANEL, load(panel + e * PANEL) * scale);
        if (c.shift == nullptr) return;
        for (int i = 0; i < std::min(VL, count); i++) {
            c.shift[2 * (first + i)] = most[i];
            c.shift[2 * (first + i) + 1] = scale[i];
        }
    }

    void weigh(const float* scores, const int32_t* ids, int64_t row) const {
        float* const weight = c.weight + row * K;
        int64_t* const expert = c.expert + row * K;
        float sum = 0;
        for (int64_t k = 0; k < K; k++) {
            expert[k] = ids[k * PANEL];
            sum += weight[k] = scores[expert[k] * PANEL];
        }
        for (int64_t k = 0; k < K; k++) weight[k] = (c.normalizes ? weight[k] / (sum + TINY) : weight[k]) * c.scale;
    }

    // The scores of what one token has chosen, whole registers of them.
    void look_up(const S* x, const int64_t* expert, const float* shift, float* scores) const {
        for (int64_t k = 0; k < K; k += VL) {
            V own{};
            for (int64_t i = 0; i < std::min<int64_t>(VL, K - k); i++) own[i] = widen(x[expert[k + i]]);
            store(scores + k, c.score == SIGMOID ? sigmoid(own) : share(own - shift[0]) * shift[1]);
        }
    }

    void learn(int64_t row, float* scores) const {
        const S* const x = static_cast<const S*>(c.logits) + row * E;
        S* const dx = static_cast<S*>(c.dlogits) + row * E;
        const int64_t* const expert = c.expert + row * K;
        const float *const grad = c.grad + row * K, *const shift = c.score == SIGMOID ? nullptr : c.shift + 2 * row;
        look_up(x, expert, shift, scores);
        float total = TINY, inner = 0, pull = 0;
        for (int64_t k = 0; k < K; k++) {
            total += scores[k];
            inner += grad[k] * scores[k];
        }
        // what a score gains is its gradient, less the share of the sum that it is divided by.
        const float less = c.normalizes ? inner / total : 0.0f, scale = c.normalizes ? c.scale / total : c.scale;
        if (c.score == SIGMOID) {
            std::memset(static_cast<void*>(dx), 0, E * sizeof(S));
            for (int64_t k = 0; k < K; k++)
                narrow((grad[k] - less) * scale * scores[k] * (1.0f - scores[k]), dx[expert[k]]);
            return;
        }
        for (int64_t k = 0; k < K; k++) pull += (grad[k] - less) * scale * scores[k];
        spread(x, shift, -pull, dx);
        for (int64_t k = 0; k < K; k++) narrow(scores[k] * ((grad[k] - less) * scale - pull), dx[expert[k]]);
    }

    // Every expert gives its share of what the chosen ones gain.
    void spread(const S* x, const float* shift, float pull, S* dx) const {
        const int64_t whole = E / VL * VL;
        const float top = shift[0], scale = shift[1] * pull;
        for (int64_t e = 0; e < whole; e += VL) narrow_vector(share(widen_vector(x + e) - top) * scale, dx + e);
        const V rest = share(widen_some(x + whole, int(E - whole)) - top) * scale;
        for (int64_t e = whole; e < E; e++) narrow(rest[e - whole], dx[e]);
    }

    const TopKCall& c;
    const int64_t E, K;
    const int workers_;
};

}  // namespace TIER
