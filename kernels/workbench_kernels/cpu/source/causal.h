// Causal attention and its gradients, a panel of 32 queries at a time, over the arithmetic that `Math` brings.
//
// Queries are lanes, as tokens are in every product here: scores are [key][query], and a softmax goes down the rows.
// Backward makes the weights again from the highest score and the sum that forward kept. Gradients of keys and values
// are summed by one worker, panel after panel; where a group is cut into parts, these are added in their order.
#pragma once

#include "heads.h"

namespace TIER {

constexpr int64_t CHUNK = 8;  // panels of keys whose scores are held at once

// Scores of keys that a query of the same panel may not look at: lane i sees keys up to i.
INLINE void hide_future(float* scores) {
    for (int key = 1; key < PANEL; key++)
        for (int lane = 0; lane < key; lane++) scores[key * PANEL + lane] = -INFINITY;
}

// Raises `top` to the highest of a panel of scores. A NaN is passed over: its weight will be NaN.
INLINE void raise(const float* scores, float* top) {
    constexpr int SOME = 4;
    for (int v = 0; v < PANEL; v += VL) {
        V highest[SOME];
        for (int i = 0; i < SOME; i++) highest[i] = load(top + v);
        for (int key = 0; key < PANEL; key += SOME)
            for (int i = 0; i < SOME; i++) {
                const V score = load(scores + (key + i) * PANEL + v);
                highest[i] = score > highest[i] ? score : highest[i];
            }
        for (int i = 1; i < SOME; i++) highest[0] = highest[i] > highest[0] ? highest[i] : highest[0];
        store(top + v, highest[0]);
    }
}

template <class Math>
class Causal {
    using S = typename Math::Stored;
    using Number = typename Math::Number;

public:
    explicit Causal(const CausalCall& call) : c(call), h_(call) {}

    bool forward() {
        std::vector<Scratch> scratch(c.threads);
        if (!workbench::arena().lay_out([&](auto take) { lay_out(take, scratch, false); })) return false;
        workbench::for_items(c.threads, h_.items(), [&](int worker, int64_t item) {
            const typename Math::Unit unit;
            forward_part(h_.part(item), scratch[worker]);
        });
        return true;
    }

    bool backward() {
        std::vector<Scratch> scratch(c.threads);
        const int64_t own = 2 * h_.panels * h_.panel_numbers(), batches = h_.items() / h_.parts;
        float* sums = nullptr;
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            sums = take(own * (h_.parts == 1 ? c.threads : h_.items()));
            lay_out(take, scratch, true);
        });
        if (!is_ready) return false;
        workbench::for_items(c.threads, h_.items(), [&](int worker, int64_t item) {
            const typename Math::Unit unit;
            float* mine = sums + own * (h_.parts == 1 ? worker : item);
            backward_part(h_.part(item), mine, scratch[worker]);
            for (int64_t key = 0; key < h_.panels && h_.parts == 1; key++)
                finish_keys(item, key, scratch[worker], [mine](int64_t) { return mine; });
        });
        if (h_.parts == 1) return true;
        workbench::for_items(c.threads, batches * h_.panels, [&](int worker, int64_t i) {
            const int64_t group = i / h_.panels;
            finish_keys(group, i % h_.panels, scratch[worker],
                        [&](int64_t part) { return sums + own * h_.item(group, part); });
        });
        return true;
    }

private:
    // Keys and values of a group as the left side of products: of tokens, or of channels `across` them. A panel of
    // queries or of gradients as their right side.
    struct Scratch {
        Number *key, *key_across, *value, *value_across;
        Number *query, *query_across, *grad, *grad_across;
        Number *weights, *slopes, *slopes_across;
        float *scores, *toward, *mix, *staged;
    };
    struct Lanes {
        alignas(64) float top[PANEL], total[PANEL], delta[PANEL];
    };

    template <class Take>
    void lay_out(Take take, std::vector<Scratch>& scratch, bool learns) const {
        const auto numbers = [&](int64_t n) {
            return reinterpret_cast<Number*>(take(n * sizeof(Number) / sizeof(float)));
        };
        const int64_t all = h_.panels * h_.panel_numbers(), one = h_.panel_numbers();
        for (Scratch& s : scratch) {
            s.key = numbers(all), s.value = numbers(learns ? all : 0);
            s.key_across = numbers(learns ? all : 0), s.value_across = numbers(learns ? 0 : all);
            s.query = numbers(one), s.query_across = numbers(one);
            s.grad = numbers(one), s.grad_across = numbers(one);
            s.weights = numbers(learns ? SQUARE : CHUNK * SQUARE);
            s.slopes = numbers(SQUARE), s.slopes_across = numbers(CHUNK * SQUARE);
            s.scores = take(learns ? SQUARE : CHUNK * SQUARE), s.toward = take(SQUARE);
            s.mix = take(one), s.staged = take(one);
        }
    }

    int rows(int64_t piece) const { return int(std::min<int64_t>(PANEL, h_.channels - piece * PANEL)); }

    void forward_part(const Part& part, const Scratch& s) const {
        for (int64_t key = 0; key < part.last; key++) {
            h_.stage<S>(c.key, c.kv_heads, part.sequence, part.group, key, true, s.staged);
            Math::tokens_left(s.staged, h_, s.key + key * h_.panel_numbers());
            h_.stage<S>(c.value, c.kv_heads, part.sequence, part.group, key, false, s.staged);
            Math::channels_left(s.staged, h_, s.value_across + key * SQUARE);
        }
        for (int64_t i = 0; i < h_.sharing; i++)
            for (int64_t panel = part.first; panel < part.last; panel++)
                forward_panel(part, part.group * h_.sharing + i, panel, s);
    }

    void forward_panel(const Part& part, int64_t head, int64_t panel, const Scratch& s) const {
        Lanes own;
        std::fill_n(own.top, PANEL, -INFINITY);
        h_.stage<S>(c.query, c.heads, part.sequence, head, panel, true, s.staged);
        Math::tokens_right(s.staged, h_, s.query);
        for (int64_t first = 0; first <= panel; first += CHUNK) {
            const int64_t some = std::min(CHUNK, panel + 1 - first);
            alignas(64) float before[PANEL];
            std::copy_n(own.top, PANEL, before);
            for (int64_t i = 0; i < some; i++) {
                float* scores = s.scores + i * SQUARE;
                const Number* key = s.key + (first + i) * h_.panel_numbers();
                Math::product(key, s.query, h_.channels, PANEL, PANEL, scores, false);
                if (first + i == panel) hide_future(scores);
                raise(scores, own.top);
            }
            if (first > 0) rescale(before, s.mix, own);
            Math::weigh(s.scores, some * PANEL, own.top, h_.scale, first > 0, s.weights, own.total);
            for (int64_t piece = 0; piece < h_.pieces; piece++)
                Math::product(s.value_across + (piece * h_.panels + first) * SQUARE, s.weights, some * PANEL,
                              rows(piece), PANEL, s.mix + piece * SQUARE, first > 0);
        }
        store_panel(part, head, panel, own, s);
    }

    // What was summed below another highest score.
    void rescale(const float* before, float* mix, Lanes& own) const {
        alignas(64) float factor[PANEL];
        for (int v = 0; v < PANEL; v += VL) {
            const V by = exponential((load(before + v) - load(own.top + v)) * h_.scale);
            store(factor + v, by);
            store(own.total + v, load(own.total + v) * by);
        }
        for (int64_t channel = 0; channel < h_.channels; channel++)
            for (int v = 0; v < PANEL; v += VL)
                store(mix + channel * PANEL + v, load(mix + channel * PANEL + v) * load(factor + v));
    }

    void store_panel(const Part& part, int64_t head, int64_t panel, const Lanes& own, const Scratch& s) const {
        const int count = h_.lanes(panel);
        alignas(64) float share[PANEL];
        for (int i = 0; i < PANEL; i++) share[i] = 1.0f / own.total[i];
        for (int64_t channel = 0; channel < h_.channels; channel++)
            for (int v = 0; v < PANEL; v += VL)
                store(s.mix + channel * PANEL + v, load(s.mix + channel * PANEL + v) * load(share + v));
        S* to[PANEL];
        for (int i = 0; i < count; i++)
            to[i] = static_cast<S*>(c.out) + (h_.row_of(part.sequence, panel, i) * c.heads + head) * h_.channels;
        panel_to_rows(s.mix, count, int(h_.channels), to);
        if (c.top == nullptr) return;
        const int64_t at = h_.place(part.sequence, head, panel);
        std::copy_n(own.top, count, c.top + at);
        std::copy_n(share, count, c.share + at);
    }

    void backward_part(const Part& part, float* sums, const Scratch& s) const {
        for (int64_t key = 0; key < part.last; key++) {
            h_.stage<S>(c.key, c.kv_heads, part.sequence, part.group, key, true, s.staged);
            Math::tokens_left(s.staged, h_, s.key + key * h_.panel_numbers());
            Math::channels_left(s.staged, h_, s.key_across + key * SQUARE);
            h_.stage<S>(c.value, c.kv_heads, part.sequence, part.group, key, false, s.staged);
            Math::tokens_left(s.staged, h_, s.value + key * h_.panel_numbers());
        }
        for (int64_t i = 0; i < h_.sharing; i++)
            for (int64_t panel = part.first; panel < part.last; panel++)
                backward_panel(part, i, panel, sums, s);
    }

    void backward_panel(const Part& part, int64_t i, int64_t panel, float* sums, const Scratch& s) const {
        const int64_t head = part.group * h_.sharing + i, one = h_.panel_numbers();
        Lanes own;
        read_panel(part, head, panel, own, s);
        for (int64_t first = 0; first <= panel; first += CHUNK) {
            const int64_t some = std::min(CHUNK, panel + 1 - first);
            for (int64_t key = first; key < first + some; key++) {
                Number* across = s.slopes_across + (key - first) * SQUARE;
                Number* slopes = Math::IS_ONE_FORM ? across : s.slopes;
                Math::product(s.key + key * one, s.query, h_.channels, PANEL, PANEL, s.scores, false);
                Math::product(s.value + key * one, s.grad, h_.channels, PANEL, PANEL, s.toward, false);
                Math::slopes(s.scores, s.toward, own.top, own.total, own.delta, h_.scale, key == panel, s.weights,
                             slopes, across);
                // the first to come here begins the sums.
                const bool goes_on = i > 0 || panel > std::max(key, part.first);
                float *of_keys = sums + key * one, *of_values = of_keys + h_.panels * one;
                for (int64_t piece = 0; piece < h_.pieces; piece++) {
                    const int64_t at = piece * SQUARE;
                    const int wide = rows(piece);
                    if (c.dvalue != nullptr) Math::outer(s.weights, s.grad_across + at, wide, of_values + at, goes_on);
                    if (c.dkey != nullptr) Math::outer(slopes, s.query_across + at, wide, of_keys + at, goes_on);
                }
            }
            for (int64_t piece = 0; piece < h_.pieces && c.dquery != nullptr; piece++)
                Math::product(s.key_across + (piece * h_.panels + first) * SQUARE, s.slopes_across, some * PANEL,
                              rows(piece), PANEL, s.mix + piece * SQUARE, first > 0);
        }
        if (c.dquery == nullptr) return;
        float* to[PANEL];
        for (int lane = 0; lane < h_.lanes(panel); lane++) to[lane] = s.staged + lane * h_.pieces * PANEL;
        panel_to_rows(s.mix, h_.lanes(panel), int(h_.channels), to);
        for (int lane = 0; lane < h_.lanes(panel); lane++)
            h_.finish<S>(to[lane], h_.scale, c.dquery, c.heads, part.sequence, head, panel, lane, true);
    }

    // Queries and gradients of a panel in all their forms, and what forward kept. Lanes without a token get weights
    // that meet only zeros.
    void read_panel(const Part& part, int64_t head, int64_t panel, Lanes& own, const Scratch& s) const {
        const int count = h_.lanes(panel);
        const int64_t at = h_.place(part.sequence, head, panel);
        h_.stage<S>(c.query, c.heads, part.sequence, head, panel, true, s.staged);
        Math::tokens_right(s.staged, h_, s.query);
        Math::channels_right(s.staged, h_, s.query_across);
        h_.stage<S>(c.grad, c.heads, part.sequence, head, panel, false, s.staged);
        Math::tokens_right(s.staged, h_, s.grad);
        Math::channels_right(s.staged, h_, s.grad_across);
        for (int lane = 0; lane < PANEL; lane++) {
            own.top[lane] = lane < count ? c.top[at + lane] : 0.0f;
            own.total[lane] = lane < count ? c.share[at + lane] : 1.0f;
            own.delta[lane] = 0.0f;
            if (lane >= count) continue;
            const int64_t row = h_.row_of(part.sequence, panel, lane) * c.heads + head;
            const S* out = static_cast<const S*>(c.out) + row * h_.channels;
            const float* grad = s.staged + lane * h_.pieces * PANEL;
            V sum{};
            int64_t k = 0;
            for (; k + VL <= h_.channels; k += VL) sum += load(grad + k) * widen_vector(out + k);
            float rest = 0.0f;
            for (; k < h_.channels; k++) rest += grad[k] * widen(out[k]);
            own.delta[lane] = total(sum) + rest;
        }
        Math::prepare(own.top, own.total, h_.scale, own.top);
    }

    // Gradients of a panel of keys and of its values, from the sums of all parts that saw it.
    template <class Sums>
    void finish_keys(int64_t group, int64_t panel, const Scratch& s, Sums sums) const {
        const int64_t one = h_.panel_numbers(), sequence = group / c.kv_heads, head = group % c.kv_heads;
        for (int is_value = 0; is_value < 2; is_value++) {
            void* tensor = is_value ? c.dvalue : c.dkey;
            for (int lane = 0; lane < h_.lanes(panel) && tensor != nullptr; lane++) {
                std::memset(s.staged, 0, h_.pieces * PANEL * sizeof(float));
                for (int64_t part = 0; part < h_.parts; part++) {
                    if (h_.edge(part + 1) <= panel) continue;
                    const float* from = sums(part) + (is_value * h_.panels + panel) * one + lane * PANEL;
                    for (int64_t piece = 0; piece < h_.pieces; piece++)
                        for (int i = 0; i < PANEL; i += VL)
                            store(s.staged + piece * PANEL + i,
                                  load(s.staged + piece * PANEL + i) + load(from + piece * SQUARE + i));
                }
                h_.finish<S>(s.staged, is_value ? 1.0f : h_.scale, tensor, c.kv_heads, sequence, head, panel, lane,
                             !is_value);
            }
        }
    }

    const CausalCall& c;
    const Heads h_;
};

}  // namespace TIER
