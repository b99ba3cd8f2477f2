// How work is cut: blocks of rows of one expert, a few panels each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vector.h"

namespace TIER {

constexpr int MOST_PANELS = 12;               // of a block
constexpr int64_t CACHED_FLOATS = 128 * 1024;  // of what a block visits again and again: second-level cache

struct Block {
    int expert;
    int64_t row, panel;  // first row, and index of the first panel among all
    int count;
    int panels() const { return (count + PANEL - 1) / PANEL; }
    int lanes(int p) const { return std::min(PANEL, count - p * PANEL); }
};

struct Blocks {
    std::vector<Block> all;
    std::vector<int64_t> first_panel;  // of each expert, and their total
    int most_panels = 1;               // of a block

    Blocks(const int32_t* offsets, int64_t experts, int64_t features) {
        const int64_t aim = std::clamp<int64_t>(CACHED_FLOATS / (features * PANEL), 1, MOST_PANELS * 2 / 3);
        int64_t panel = 0;
        for (int64_t e = 0; e < experts; e++) {
            first_panel.push_back(panel);
            // even parts: a small last block would copy all weights for a few rows.
            const int64_t panels = (offsets[e + 1] - offsets[e] + PANEL - 1) / PANEL;
            const int64_t parts = std::max<int64_t>(1, (panels + aim / 2) / aim);
            for (int64_t i = 0; i < parts && panels > 0; i++) {
                const int64_t first = panels * i / parts, end = panels * (i + 1) / parts;
                const int64_t row = offsets[e] + first * PANEL;
                const int count = int(std::min<int64_t>(offsets[e + 1] - row, (end - first) * PANEL));
                if (count > 0) all.push_back({int(e), row, panel + first, count});
                most_panels = std::max(most_panels, int(end - first));
            }
            panel += panels;
        }
        first_panel.push_back(panel);
    }

    int64_t panels() const { return first_panel.back(); }
    int64_t panels(int64_t e) const { return first_panel[e + 1] - first_panel[e]; }
};

}  // namespace TIER
