// The choice of one token: logits of all experts, their scores, the best of them and their weights.
#pragma once

#include <cmath>
#include <limits>

#include "call.h"
#include "few.h"
#include "parallel.h"

namespace TIER {

template <class S>
class Choice {
public:
    explicit Choice(const ChoiceCall& call)
        : c(call), E(call.experts), K(call.slots), P((E + VL - 1) / VL * VL), weight_(call.numbers),
          prob_(weight_ + K), logit_(prob_ + E), rank_(logit_ + E) {}

    bool run() {
        float* x = nullptr;
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            x = take(c.width);
            score_ = take(P);
            order_ = take(P);
        });
        if (!is_ready) return false;
        widen_row(static_cast<const S*>(c.x), x, c.width);
        const auto keep = [this](int, int64_t e, float value) { logit_[e] = value; };
        if (c.has_wide_gate) few_rows(static_cast<const float*>(c.gate), c.width, 0, E, x, 1, keep);
        else few_rows(static_cast<const S*>(c.gate), c.width, 0, E, x, 1, keep);
        score();
        choose();
        weigh();
        return true;
    }

private:
    enum Score { SOFTMAX = 0, SOFTMAX_CHOSEN = 1, SIGMOID = 2 };

    static bool is_better(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

    // to[i] = exp(from[i] - most) of `count` numbers, in whole registers; and their sum.
    static float exponentials(const float* from, int64_t count, float most, float* to) {
        float sum = 0;
        for (int64_t i = 0; i < count; i += VL) {
            V part = splat(-std::numeric_limits<float>::infinity());
            for (int64_t lane = 0; lane < VL && i + lane < count; lane++) part[lane] = from[i + lane];
            part = exponential(part - most);
            for (int64_t lane = 0; lane < VL && i + lane < count; lane++) sum += to[i + lane] = part[lane];
        }
        return sum;
    }

    static float greatest(const float* from, int64_t count) {
        float most = from[0];
        for (int64_t i = 1; i < count; i++) most = is_better(from[i], most) ? from[i] : most;
        return most;
    }

    // The scores that weigh, and what they are as shares of all experts.
    void score() {
        float sum = 0;
        if (c.score == SIGMOID)
            for (int64_t e = 0; e < E; e++) sum += score_[e] = sigmoid(splat(logit_[e]))[0];
        else sum = exponentials(logit_, E, greatest(logit_, E), score_);
        for (int64_t e = 0; e < E; e++) {
            prob_[e] = score_[e] / sum;
            if (c.score != SIGMOID) score_[e] = prob_[e];
        }
    }

    // The best, best first, lower indices before higher where they are equal. Softmax keeps the order of its logits.
    void choose() {
        for (int64_t e = 0; e < E; e++) {
            order_[e] = c.score == SIGMOID ? score_[e] : logit_[e];
            if (c.selection_bias != nullptr) order_[e] += c.selection_bias[e];
            if (c.bias != nullptr) order_[e] += c.bias[e];
        }
        for (int64_t k = 0; k < K; k++) {
            int64_t best = -1;
            for (int64_t e = 0; e < E; e++)
                if (!is_chosen(e, k) && (best < 0 || is_better(order_[e], order_[best]))) best = e;
            c.expert[k] = best;
            rank_[k] = order_[best];
        }
    }

    bool is_chosen(int64_t e, int64_t before) const {
        for (int64_t k = 0; k < before; k++)
            if (c.expert[k] == e) return true;
        return false;
    }

    // A banned expert, chosen only where nothing else is left, weighs nothing.
    void weigh() {
        const float nothing = -std::numeric_limits<float>::infinity();
        const auto is_banned = [&](int64_t k) { return c.bias != nullptr && !(rank_[k] > nothing); };
        for (int64_t k = 0; k < K; k++) {
            weight_[k] = c.score == SOFTMAX_CHOSEN ? logit_[c.expert[k]] : score_[c.expert[k]];
            if (is_banned(k)) weight_[k] = c.score == SOFTMAX_CHOSEN ? nothing : 0.0f;
        }
        float sum = 0;
        if (c.score == SOFTMAX_CHOSEN) {
            const float most = greatest(weight_, K);
            sum = most == nothing ? 0.0f : exponentials(weight_, K, most, weight_);
            for (int64_t k = 0; k < K; k++) weight_[k] = is_banned(k) ? 0.0f : weight_[k] / sum;
        } else if (c.renormalises) {
            for (int64_t k = 0; k < K; k++) sum += weight_[k];
            // where all are banned the sum is 0.
            sum = std::isnan(sum) ? sum : std::max(sum, std::numeric_limits<float>::min());
            for (int64_t k = 0; k < K; k++) weight_[k] /= sum;
        }
        for (int64_t k = 0; k < K; k++) weight_[k] *= c.scale;
    }

    const ChoiceCall& c;
    const int64_t E, K, P;
    float *const weight_, *const prob_, *const logit_, *const rank_;
    float *score_ = nullptr, *order_ = nullptr;
};

}  // namespace TIER
