// What the layers of all engines share: where rows lie, the way for a few tokens, and the order of the work.
//
// `Own` is the layer of one engine. It says how blocks are multiplied; here is said when, and by whom. Outputs and
// what is kept are of S, tokens and weights of X.
#pragma once

#include <algorithm>
#include <utility>

#include "activation.h"
#include "blocks.h"
#include "call.h"
#include "few.h"
#include "parallel.h"

namespace TIER {

constexpr int64_t PLACED_FLOATS = 2 * 1024 * 1024;  // of the panels of a backward pass, in the last-level cache
constexpr int64_t COMBINED = 32;                    // tokens of an item that adds up rows

// The work of a backward pass as one queue: the blocks of an expert, and one expert later the columns of its weight
// gradients, while its panels are still in the cache. Items are taken in order, so what one waits for is under way.
struct Queue {
    struct Item {
        int64_t block, column;  // a block, or where it is -1 a column of the expert's gradient
        int expert;
        bool is_up;
    };
    std::vector<Item> items;
    std::vector<std::atomic<int>> open, unread;  // of each expert: blocks not done, gradient items not done

    Queue(const std::vector<Block>& blocks, int experts, int64_t up_columns, int64_t down_columns, int64_t step)
        : open(experts), unread(experts) {
        size_t b = 0;
        for (int e = 0; e <= experts; e++) {
            for (; b < blocks.size() && blocks[b].expert == e; b++) {
                items.push_back({int64_t(b), 0, e, false});
                open[e].fetch_add(1);
            }
            if (e == 0) continue;
            const size_t before = items.size();
            for (int64_t n = 0; n < up_columns; n += step) items.push_back({-1, n, e - 1, true});
            for (int64_t n = 0; n < down_columns; n += step) items.push_back({-1, n, e - 1, false});
            unread[e - 1] = int(items.size() - before);
        }
    }

    static void wait_for(const std::atomic<int>& left) {
        while (left.load(std::memory_order_acquire) > 0) std::this_thread::yield();
    }
};

template <class S, class X, class Own>
class CommonLayer {
public:
    bool forward();
    bool backward();

protected:
    CommonLayer(const MoECall& call, int64_t cached_features)
        : c(call), D(call.width), F(call.hidden_width), N(call.offsets[call.experts]),
          blocks_(call.offsets, call.experts, cached_features) {}

    const X* x_row(int64_t row) const { return static_cast<const X*>(c.x) + int64_t(c.rows[row]) * c.x_stride; }
    const S* grad_row(int64_t row) const { return static_cast<const S*>(c.grad) + int64_t(c.rows[row]) * c.grad_stride; }
    const X* up_row(int e, int64_t f) const { return static_cast<const X*>(c.gate_up) + (e * 2 * F + f) * D; }
    const X* down_row(int e, int64_t d) const { return static_cast<const X*>(c.down) + (e * D + d) * F; }

    void up_few(const Block& b, int64_t f0, int64_t f1, float* x, float* a, S* hidden) const;
    void down_few(const Block& b, int64_t d0, int64_t d1, const float* a, float* y) const;

    const MoECall& c;
    const int64_t D, F, N;
    const Blocks blocks_;
    // backward: panels of an expert live in one of a few places, taken in turn, so that they stay in the cache.
    int64_t places_ = 1, place_panels_ = 0;
    int64_t place(int e) const { return e % places_ * place_panels_; }
    // by row: gradient of the gathered tokens, weight, gradient of the weight.
    float *dtoken_ = nullptr, *share_ = nullptr, *dshare_ = nullptr;

private:
    Own& own() { return static_cast<Own&>(*this); }
    template <class T>
    void combine(int64_t token, const float* y, const float* weight, T* out, float* sum) const;
    void combine_gradients(int64_t token, float* sum) const;
    template <class Scratch>
    void forward_blocks(const std::vector<Scratch>& scratch, int64_t parts, float* y, float* a);
};

template <class S, class X, class Own>
void CommonLayer<S, X, Own>::up_few(const Block& b, int64_t f0, int64_t f1, float* x, float* a, S* hidden) const {
    for (int t = 0; t < b.count; t++) widen_row(x_row(b.row + t), x + t * D, D);
    S* const kept = hidden == nullptr ? nullptr : hidden + b.row * 2 * F;
    few_up(up_row(b.expert, 0), D, F, f0, f1, x, b.count, c.activation, a, [&](int64_t f, int t, float gate, float up) {
        if (kept == nullptr) return;
        narrow(gate, kept[f * b.count + t]);
        narrow(up, kept[(F + f) * b.count + t]);
    });
}

template <class S, class X, class Own>
void CommonLayer<S, X, Own>::down_few(const Block& b, int64_t d0, int64_t d1, const float* a, float* y) const {
    few_rows(down_row(b.expert, 0), F, d0, d1, a, b.count,
             [&](int t, int64_t d, float value) { y[(b.row + t) * D + d] = value; });
}

template <class S, class X, class Own>
template <class T>
void CommonLayer<S, X, Own>::combine(int64_t token, const float* y, const float* weight, T* out, float* sum) const {
    const auto share = [&](int64_t k) { return weight == nullptr ? 1.0f : weight[token * c.slots + k]; };
    weighted_sum(c.slots, D, c.row_of + token * c.slots, y, D, share, sum);
    if (out != nullptr) narrow_row(sum, out, D);
}

template <class S, class X, class Own>
void CommonLayer<S, X, Own>::combine_gradients(int64_t token, float* sum) const {
    if (c.dx != nullptr) combine(token, dtoken_, nullptr, static_cast<X*>(c.dx) + token * D, sum);
    for (int64_t k = 0; k < c.slots && c.dweight != nullptr; k++) {
        const int32_t row = c.row_of[token * c.slots + k];
        c.dweight[token * c.slots + k] = row < 0 ? 0.0f : dshare_[row];
    }
}

template <class S, class X, class Own>
template <class Scratch>
void CommonLayer<S, X, Own>::forward_blocks(const std::vector<Scratch>& scratch, int64_t parts, float* y, float* a) {
    const std::vector<Block>& blocks = blocks_.all;
    const int64_t many = int64_t(blocks.size()), panel = own().activated_floats();
    S* hidden = static_cast<S*>(c.hidden);
    if (parts == 1) {
        workbench::for_items(c.threads, many, [&](int worker, int64_t i) {
            const Scratch& s = scratch[worker];
            own().up(blocks[i], 0, F, s, s.a, hidden);
            own().down(blocks[i], 0, D, s, s.a, y);
        });
        return;
    }
    const auto part = [parts](int64_t i, int64_t n) {
        const int64_t size = ((n + parts - 1) / parts + 15) / 16 * 16;
        return std::pair{std::min(n, i * size), std::min(n, (i + 1) * size)};
    };
    workbench::for_items(c.threads, many * parts, [&](int worker, int64_t i) {
        const Block& b = blocks[i / parts];
        const auto [f0, f1] = part(i % parts, F);
        own().up(b, f0, f1, scratch[worker], a + b.panel * panel, hidden);
    });
    workbench::for_items(c.threads, many * parts, [&](int worker, int64_t i) {
        const Block& b = blocks[i / parts];
        const auto [d0, d1] = part(i % parts, D);
        own().down(b, d0, d1, scratch[worker], a + b.panel * panel, y);
    });
}

template <class S, class X, class Own>
bool CommonLayer<S, X, Own>::forward() {
    const int64_t many = int64_t(blocks_.all.size());
    // few blocks are cut across the hidden width too, so that no core stands idle.
    int64_t parts = many == 0 || many >= 3 * c.threads ? 1 : (3 * c.threads + many - 1) / many;
    parts = std::max<int64_t>(1, std::min(parts, std::min(D, F) / 64));
    float *y = nullptr, *a = nullptr;
    std::vector<typename Own::Scratch> scratch(c.threads);
    const bool is_ready = workbench::arena().lay_out([&](auto take) {
        y = take(N * D);
        a = take(parts > 1 ? blocks_.panels() * own().activated_floats() : 0);
        for (auto& s : scratch) s = own().take_scratch(take);
    });
    if (!is_ready) return false;
    forward_blocks(scratch, parts, y, a);
    workbench::for_items(c.threads, (c.tokens + COMBINED - 1) / COMBINED, [&](int worker, int64_t i) {
        for (int64_t t = i * COMBINED; t < std::min(c.tokens, (i + 1) * COMBINED); t++) {
            S* const out = c.sums == nullptr ? static_cast<S*>(c.out) + t * c.out_stride : nullptr;
            combine(t, y, c.weight, out, c.sums == nullptr ? scratch[worker].wide : c.sums + t * D);
        }
    });
    return true;
}

template <class S, class X, class Own>
bool CommonLayer<S, X, Own>::backward() {
    const int64_t made_again = c.hidden == nullptr ? N * 2 * F : 0;
    for (int64_t e = 0; e < c.experts; e++) place_panels_ = std::max(place_panels_, blocks_.panels(e));
    const int64_t fit = PLACED_FLOATS / std::max<int64_t>(1, place_panels_ * own().placed_floats());
    places_ = std::max<int64_t>(3, std::min(fit, c.experts));
    std::vector<typename Own::Scratch> scratch(c.threads);
    S* again = nullptr;
    const bool is_ready = workbench::arena().lay_out([&](auto take) {
        own().take_placed(take, places_ * place_panels_);
        dtoken_ = take(c.dx == nullptr ? 0 : N * D);
        share_ = take(N);
        dshare_ = take(N);
        again = reinterpret_cast<S*>(take(made_again));
        for (auto& s : scratch) s = own().take_scratch(take);
    });
    if (!is_ready) return false;
    const S* hidden = c.hidden == nullptr ? again : static_cast<const S*>(c.hidden);
    for (int64_t slot = 0; slot < c.tokens * c.slots; slot++)
        if (c.row_of[slot] >= 0) share_[c.row_of[slot]] = c.weight[slot];

    Queue queue(blocks_.all, int(c.experts), c.dgate_up == nullptr ? 0 : D, c.ddown == nullptr ? 0 : F,
                Own::GRADIENT_COLUMNS);
    workbench::for_items(c.threads, int64_t(queue.items.size()), [&](int worker, int64_t i) {
        const Queue::Item& item = queue.items[i];
        const auto& s = scratch[worker];
        if (item.block < 0) {
            Queue::wait_for(queue.open[item.expert]);
            own().gradient_of(item.expert, item.is_up, item.column, s);
            queue.unread[item.expert].fetch_sub(1, std::memory_order_release);
            return;
        }
        if (item.expert >= places_) {
            Queue::wait_for(queue.open[item.expert - places_]);
            Queue::wait_for(queue.unread[item.expert - places_]);
        }
        const Block& block = blocks_.all[item.block];
        if (made_again > 0) own().up(block, 0, F, s, s.a, again);
        own().inner_gradient(block, s, hidden);
        if (c.dx != nullptr) own().row_gradient(block, s);
        queue.open[item.expert].fetch_sub(1, std::memory_order_release);
    });
    workbench::for_items(c.threads, (c.tokens + COMBINED - 1) / COMBINED, [&](int worker, int64_t i) {
        for (int64_t t = i * COMBINED; t < std::min(c.tokens, (i + 1) * COMBINED); t++)
            combine_gradients(t, scratch[worker].wide);
    });
    return true;
}

}  // namespace TIER
