// Every group of rows times its own matrix, and its gradients, in bfloat16. R and W, the types of rows and weights, may
// be wider than the products.
#pragma once

#include "matrix_gradient.h"
#include "call.h"
#include "parallel.h"

namespace TIER {

template <class R, class W>
class MatrixGrouped {
public:
    explicit MatrixGrouped(const GroupedCall& call)
        : c(call), I(call.inputs), O(call.outputs),
          blocks_(call.offsets, call.experts, (std::max(call.inputs, call.outputs) + 1) / 2) {}

    bool forward() {
        std::vector<Scratch> scratch(c.threads);
        if (!workbench::arena().lay_out([&](auto take) { lay_out(take, scratch, 0); })) return false;
        workbench::for_items(c.threads, int64_t(blocks_.all.size()), [&](int worker, int64_t i) {
            const Unit unit;
            const Block& b = blocks_.all[i];
            const Scratch& s = scratch[worker];
            pack(b, static_cast<const R*>(c.rows), I, s.panels);
            multiply_rows(b, !c.is_turned, I, O, s, static_cast<BFloat16*>(c.out));
        });
        return true;
    }

    bool backward() {
        std::vector<Scratch> scratch(c.threads);
        const int64_t strips = steps_of(left_features());
        int64_t most = 0;
        for (int64_t e = 0; e < c.experts; e++) most = std::max(most, blocks_.panels(e));
        const bool is_ready = workbench::arena().lay_out([&](auto take) {
            left_ = reinterpret_cast<BFloat16*>(take(blocks_.panels() * strips * PIECE / 2));
            lay_out(take, scratch, gradient_floats(strips, most));
        });
        if (!is_ready) return false;
        workbench::for_items(c.threads, int64_t(blocks_.all.size()),
                             [&](int worker, int64_t i) { block_gradient(blocks_.all[i], scratch[worker]); });
        if (c.dweight == nullptr) return true;
        const int64_t sweeps = ((c.is_turned ? O : I) + GRADIENT_COLUMNS - 1) / GRADIENT_COLUMNS;
        workbench::for_items(c.threads, c.experts * sweeps, [&](int worker, int64_t i) {
            weight_gradient(i / sweeps, i % sweeps * GRADIENT_COLUMNS, scratch[worker].wide);
        });
        return true;
    }

private:
    struct Scratch {
        BFloat16 *weights, *panels;
        float *sums, *wide;
    };

    template <class T>
    struct Rows {
        const Block& b;
        T* to;
        int64_t features;
        void operator()(int64_t n, int m, int p, const float* sums, int unit) const {
            store_rows(sums, unit, b.lanes(p), m, [&](int lane) { return to + (b.row + p * PANEL + lane) * features + n; });
        }
    };

    const W* matrix(int64_t e) const { return static_cast<const W*>(c.weight) + e * O * I; }
    // Rows of a weight gradient.
    int64_t left_features() const { return c.is_turned ? I : O; }

    // From `inputs` to `outputs` features of the rows of a block, whose panels lie in the scratch.
    template <class T>
    void multiply_rows(const Block& b, bool are_rows, int64_t inputs, int64_t outputs, const Scratch& s, T* to) const {
        const Rows<T> rows{b, to, outputs};
        const W* own = matrix(b.expert);
        if (are_rows) multiply_block(b, RowWeights<32, W>{own, inputs, 16}, 0, outputs, s.panels, s.weights, s.sums, rows);
        else multiply_block(b, ColumnWeights<W>{own, outputs, inputs, 1}, 0, outputs, s.panels, s.weights, s.sums, rows);
    }

    template <class Take>
    void lay_out(Take take, std::vector<Scratch>& scratch, int64_t wide) const {
        const int64_t p = blocks_.most_panels;
        for (Scratch& s : scratch) {
            s.weights = reinterpret_cast<BFloat16*>(take(DEPTH * PIECE / 2));
            s.panels = reinterpret_cast<BFloat16*>(take(p * std::max(steps_of(I), steps_of(O)) * PIECE / 2));
            s.sums = take(p * SUMS);
            s.wide = take(wide);
        }
    }

    template <class T>
    static void pack(const Block& b, const T* rows, int64_t features, BFloat16* to) {
        for (int p = 0; p < b.panels(); p++) {
            const T* from[PANEL];
            for (int i = 0; i < b.lanes(p); i++) from[i] = rows + (b.row + p * PANEL + i) * features;
            rows_to_pieces(from, b.lanes(p), features, to + p * steps_of(features) * PIECE);
        }
    }

    // Gradients of the rows of a block, and the left side of the weights' gradient as operand A, in strips.
    void block_gradient(const Block& b, const Scratch& s) {
        const Unit unit;
        const int64_t strips = steps_of(left_features()), first = blocks_.first_panel[b.expert];
        const int64_t panels = blocks_.panels(b.expert);
        const R* rows = static_cast<const R*>(c.rows);
        const BFloat16* grad = static_cast<const BFloat16*>(c.grad);
        if (c.is_turned) pack(b, rows, I, s.panels);
        else pack(b, grad, O, s.panels);
        for (int p = 0; p < b.panels(); p++)
            for (int64_t strip = 0; strip < strips; strip++)
                piece_to_features(s.panels + (p * strips + strip) * PIECE,
                                  left_ + (first * strips + strip * panels + b.panel - first + p) * PIECE);
        if (c.drows == nullptr) return;
        if (c.is_turned) pack(b, grad, O, s.panels);
        multiply_rows(b, c.is_turned, O, I, s, static_cast<R*>(c.drows));
    }

    void weight_gradient(int64_t e, int64_t n0, float* wide) {
        const Unit unit;
        const int64_t features = left_features(), width = c.is_turned ? O : I;
        const int64_t strips = steps_of(features), panels = blocks_.panels(e);
        const int columns = int(std::min<int64_t>(GRADIENT_COLUMNS, width - n0));
        const auto row_of = [&](int64_t feature) -> W* {
            return feature < features ? static_cast<W*>(c.dweight) + (e * features + feature) * width + n0 : nullptr;
        };
        if (panels == 0) return clear_columns(strips, columns, false, row_of);
        const auto right_of = [&](const auto* all, int group, int64_t p, BFloat16* to) {
            const int64_t row = c.offsets[e] + p * PANEL, n = n0 + group * PANEL;
            const auto* from = all + row * width + n;
            rows_to_pairs([&](int t) { return from + t * width; }, int(std::min<int64_t>(PANEL, c.offsets[e + 1] - row)),
                          int(std::min<int64_t>(PANEL, width - n)), to);
        };
        const auto right = [&](int group, int64_t p, BFloat16* to) {
            if (c.is_turned) right_of(static_cast<const BFloat16*>(c.grad), group, p, to);
            else right_of(static_cast<const R*>(c.rows), group, p, to);
        };
        const bool streams = c.experts * O * I * int64_t(sizeof(W)) > PAST_CACHE_BYTES;
        gradient_columns(left_ + blocks_.first_panel[e] * strips * PIECE, strips, panels, right, columns, wide,
                         {false, streams}, row_of);
    }

    const GroupedCall& c;
    const int64_t I, O;
    const Blocks blocks_;
    BFloat16* left_ = nullptr;
};

}  // namespace TIER
