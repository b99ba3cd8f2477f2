// Every group of rows times its own matrix, and its gradients.
#pragma once

#include "call.h"
#include "few.h"
#include "parallel.h"
#include "product.h"

namespace TIER {

template <class S>
class Grouped {
public:
    explicit Grouped(const GroupedCall& call)
        : c(call), I(call.inputs), O(call.outputs), blocks_(call.offsets, call.experts, DEPTH) {}

    bool forward() {
        std::vector<Scratch> scratch(c.threads);
        if (!workbench::arena().lay_out([&](auto take) { lay_out(take, scratch); })) return false;
        S* out = static_cast<S*>(c.out);
        workbench::for_items(c.threads, int64_t(blocks_.all.size()), [&](int worker, int64_t i) {
            const Block& b = blocks_.all[i];
            const Scratch& s = scratch[worker];
            pack(b, static_cast<const S*>(c.rows), I, s.x);
            if (c.is_turned) multiply_rows<Order::columns>(b, I, O, s.x, s, out);
            else multiply_rows<Order::rows>(b, I, O, s.x, s, out);
        });
        return true;
    }

    bool backward() {
        std::vector<Scratch> scratch(c.threads);
        float* left = nullptr;
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            left = take(blocks_.panels() * left_features() * PANEL + PANEL);
            lay_out(take, scratch);
        });
        if (!is_ready) return false;
        const S *grad = static_cast<const S*>(c.grad), *rows = static_cast<const S*>(c.rows);
        S *drows = static_cast<S*>(c.drows), *dweight = static_cast<S*>(c.dweight);
        workbench::for_items(c.threads, int64_t(blocks_.all.size()), [&](int worker, int64_t i) {
            const Block& b = blocks_.all[i];
            const Scratch& s = scratch[worker];
            float* panels = left + b.panel * left_features() * PANEL;
            pack(b, c.is_turned ? rows : grad, left_features(), panels);
            if (drows == nullptr) return;
            if (!c.is_turned) return multiply_rows<Order::columns>(b, O, I, panels, s, drows);
            pack(b, grad, O, s.x);
            multiply_rows<Order::rows>(b, O, I, s.x, s, drows);
        });
        if (dweight == nullptr) return true;
        const int64_t width = c.is_turned ? O : I, sweeps = (width + PANEL - 1) / PANEL;
        const S* across = c.is_turned ? grad : rows;
        workbench::for_items(c.threads, c.experts * sweeps, [&](int worker, int64_t i) {
            const int64_t e = i / sweeps, n0 = i % sweeps * PANEL;
            const int columns = int(std::min<int64_t>(PANEL, width - n0));
            const auto right = [&](int64_t p, float* to) {
                const int64_t row = c.offsets[e] + p * PANEL;
                const int lanes = int(std::min<int64_t>(PANEL, c.offsets[e + 1] - row));
                const S* from[PANEL];
                for (int t = 0; t < lanes; t++) from[t] = across + (row + t) * width;
                rows_to_columns(from, lanes, n0, columns, to);
            };
            gradient_columns(left + blocks_.first_panel[e] * left_features() * PANEL, left_features(), blocks_.panels(e),
                             right, dweight + e * O * I + n0, width, columns, false, scratch[worker].wide);
        });
        return true;
    }

private:
    const S* matrix(int64_t e) const { return static_cast<const S*>(c.weight) + e * O * I; }
    // Rows of a weight gradient.
    int64_t left_features() const { return c.is_turned ? I : O; }

    // From `inputs` to `outputs` features of the rows of a block; ORDER says how these outputs lie in the weights.
    template <Order ORDER>
    void multiply_rows(const Block& b, int64_t inputs, int64_t outputs, const float* panels, const Scratch& s, S* to) const {
        const Tiles<ORDER, S> tiles{matrix(b.expert), ORDER == Order::rows ? inputs : outputs, 0, outputs};
        multiply_block(b, tiles, inputs, panels, false, s, rows_of(b, tiles, to, outputs));
    }

    template <class Take>
    void lay_out(Take take, std::vector<Scratch>& scratch) const {
        for (Scratch& s : scratch) {
            s.weights = take(WEIGHT_FLOATS);
            s.tile = take(tile_floats(blocks_.most_panels));
            s.x = take(blocks_.most_panels * std::max(I, O) * PANEL);
            s.wide = take(gradient_floats(std::max(I, O)));
        }
    }

    static void pack(const Block& b, const S* rows, int64_t features, float* to) {
        for (int p = 0; p < b.panels(); p++) {
            const S* from[PANEL];
            for (int i = 0; i < b.lanes(p); i++) from[i] = rows + (b.row + p * PANEL + i) * features;
            rows_to_panel(from, b.lanes(p), features, to + p * features * PANEL);
        }
    }

    template <class Source>
    static auto rows_of(const Block& b, const Source& tiles, S* to, int64_t features) {
        return [&b, &tiles, to, features](int64_t t, int p, const float* tile) {
            S* rows[PANEL];
            for (int i = 0; i < b.lanes(p); i++) rows[i] = to + (b.row + p * PANEL + i) * features + tiles.first(t);
            panel_to_rows(tile, b.lanes(p), tiles.rows(t), rows);
        };
    }

    const GroupedCall& c;
    const int64_t I, O;
    const Blocks blocks_;
};

}  // namespace TIER
