// Causal attention, whatever its arithmetic: where heads lie, who works on which panels, and the rotation.
#pragma once

#include <algorithm>
#include <cmath>

#include "call.h"
#include "few.h"
#include "parallel.h"

namespace TIER {

constexpr int SQUARE = PANEL * PANEL;  // numbers of a piece: 32 tokens of 32 channels, or 32 keys of 32 queries
constexpr int64_t ROWS_AHEAD = 8;      // fetched in advance
constexpr int64_t LEAST_ITEMS = 16;    // into which a call is cut, whoever works on them
constexpr int64_t LEAST_PANELS = 8;    // of a part, so that its keys are worth packing

// The panels of queries first..last of all heads that share the keys of a group.
struct Part {
    int64_t sequence, group, first, last;
};

// Channels c and half + c of a row are a pair, turned by the angles of their own places; BACK by as much the other way,
// each share of a gradient at the angle by which its channel went.
template <bool BACK>
INLINE void turn_pairs(float* row, const float* cosine, const float* sine, int64_t half) {
    int64_t i = 0;
    for (; i + VL <= half; i += VL) {
        const V a = load(row + i), b = load(row + half + i);
        const V own = load(sine + i), other = load(sine + half + i);
        store(row + i, BACK ? a * load(cosine + i) + b * other : a * load(cosine + i) - b * own);
        store(row + half + i, BACK ? b * load(cosine + half + i) - a * own : b * load(cosine + half + i) + a * other);
    }
    for (; i < half; i++) {
        const float a = row[i], b = row[half + i];
        row[i] = BACK ? a * cosine[i] + b * sine[half + i] : a * cosine[i] - b * sine[i];
        row[half + i] = BACK ? b * cosine[half + i] - a * sine[i] : b * cosine[half + i] + a * sine[half + i];
    }
}

template <class S>
INLINE void widen_channels(const S* from, int64_t n, float* to) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) store(to + i, widen_vector(from + i));
    for (; i < n; i++) to[i] = widen(from[i]);
}

template <class S>
INLINE void narrow_channels(const float* from, int64_t n, S* to) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 mask = first(int(std::min<int64_t>(16, n - i)));
        narrow16(_mm512_maskz_loadu_ps(mask, from + i), to + i, mask);
    }
#else
    narrow_row(from, to, n);
#endif
}

// Tensors are [sequence][token][head][channel].
class Heads {
public:
    explicit Heads(const CausalCall& call)
        : c(call), channels(call.head_dim), pieces((call.head_dim + PANEL - 1) / PANEL),
          panels((call.length + PANEL - 1) / PANEL), sharing(call.heads / call.kv_heads),
          scale(float(1.0 / std::sqrt(double(call.head_dim)))), groups_(call.batch * call.kv_heads) {
        // by the shape alone: the number of threads must not change a sum.
        const int64_t wanted = (LEAST_ITEMS + groups_ - 1) / groups_;
        parts = std::clamp<int64_t>(panels / LEAST_PANELS, 1, wanted);
    }

    int64_t items() const { return groups_ * parts; }
    // Those with most keys come first.
    Part part(int64_t item) const {
        const int64_t group = item % groups_, i = parts - 1 - item / groups_;
        return {group / c.kv_heads, group % c.kv_heads, edge(i), edge(i + 1)};
    }
    // The item that works on part i of a group.
    int64_t item(int64_t group, int64_t i) const { return (parts - 1 - i) * groups_ + group; }
    // First panel of part i: parts cost the same, and late panels have more keys.
    int64_t edge(int64_t i) const { return int64_t(double(panels) * std::sqrt(double(i) / double(parts)) + 0.5); }

    int lanes(int64_t panel) const { return int(std::min<int64_t>(PANEL, c.length - panel * PANEL)); }
    // Numbers of a panel with all its channels.
    int64_t panel_numbers() const { return pieces * SQUARE; }
    int64_t row_of(int64_t sequence, int64_t panel, int lane) const {
        return sequence * c.length + panel * PANEL + lane;
    }
    // Lane 0 of a panel in a tensor of [sequence][head][token].
    int64_t place(int64_t sequence, int64_t head, int64_t panel) const {
        return (sequence * c.heads + head) * c.length + panel * PANEL;
    }

    // A panel of one head as [token][channel], turned to its positions or as it is; zero where there is nothing.
    template <class S>
    void stage(const void* tensor, int64_t heads, int64_t sequence, int64_t head, int64_t panel, bool turns,
               float* to) const {
        const int64_t padded = pieces * PANEL, half = channels / 2;
        const int count = lanes(panel);
        if (count < PANEL || channels < padded) std::memset(to, 0, panel_numbers() * sizeof(float));
        for (int i = 0; i < count; i++, to += padded) {
            const int64_t row = row_of(sequence, panel, i);
            const S* from = static_cast<const S*>(tensor) + (row * heads + head) * channels;
            // other heads lie between the rows.
            for (int64_t k = 0; k < channels; k += 64 / int64_t(sizeof(S)))
                __builtin_prefetch(from + ROWS_AHEAD * heads * channels + k);
            widen_channels(from, channels, to);
            if (turns && c.cosine != nullptr)
                turn_pairs<false>(to, c.cosine + row * channels, c.sine + row * channels, half);
        }
    }

    // The gradient of row `lane`, which is spoilt, turned back and stored.
    template <class S>
    void finish(float* row, float factor, void* tensor, int64_t heads, int64_t sequence, int64_t head, int64_t panel,
                int lane, bool turns) const {
        const int64_t at = row_of(sequence, panel, lane), half = channels / 2;
        for (int64_t i = 0; i < pieces * PANEL; i += VL) store(row + i, load(row + i) * factor);
        if (turns && c.cosine != nullptr)
            turn_pairs<true>(row, c.cosine + at * channels, c.sine + at * channels, half);
        narrow_channels(row, channels, static_cast<S*>(tensor) + (at * heads + head) * channels);
    }

    const CausalCall& c;
    const int64_t channels, pieces, panels, sharing;
    const float scale;
    int64_t parts;

private:
    const int64_t groups_;
};

}  // namespace TIER
