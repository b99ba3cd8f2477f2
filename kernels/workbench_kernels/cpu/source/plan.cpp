// The routing plan: a stable counting sort, one pass to count and one to place.
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

template <class Id>
int64_t make_plan(const Id* expert, int64_t tokens, int64_t slots, int64_t experts, int32_t* rows, int32_t* row_of,
                  int32_t* offsets) {
    std::vector<int32_t> place(experts + 1, 0);
    const int64_t total = tokens * slots;
    for (int64_t i = 0; i < total; i++)
        if (expert[i] >= 0 && expert[i] < experts) place[expert[i] + 1]++;
    for (int64_t e = 0; e < experts; e++) place[e + 1] += place[e];
    std::memcpy(offsets, place.data(), (experts + 1) * sizeof(int32_t));
    for (int64_t t = 0, i = 0; t < tokens; t++)
        for (int64_t k = 0; k < slots; k++, i++) {
            const bool is_routed = expert[i] >= 0 && expert[i] < experts;
            row_of[i] = is_routed ? place[expert[i]]++ : -1;
            if (is_routed) rows[row_of[i]] = int32_t(t);
        }
    const int64_t used = offsets[experts];
    std::memset(rows + used, 0, (total - used) * sizeof(int32_t));
    return used;
}

}  // namespace

extern "C" int64_t workbench_plan(const void* expert, int is_long, int64_t tokens, int64_t slots, int64_t experts,
                                  int32_t* rows, int32_t* row_of, int32_t* offsets) {
    return is_long ? make_plan(static_cast<const int64_t*>(expert), tokens, slots, experts, rows, row_of, offsets)
                   : make_plan(static_cast<const int32_t*>(expert), tokens, slots, experts, rows, row_of, offsets);
}
