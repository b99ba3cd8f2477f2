// Compiled once for every instruction set, with TIER naming the copy.
#include "causal_wide.h"
#include "grouped.h"
#include "moe.h"

#define NAMED(tier, what) NAMED_AGAIN(tier, what)
#define NAMED_AGAIN(tier, what) workbench_##tier##_##what

namespace {

template <class S>
using WideCausal = TIER::Causal<TIER::Wide<S>>;

template <template <class> class Work, class Call>
int run(const Call& call, int is_backward) {
    const auto once = [is_backward](auto&& work) { return int(is_backward ? work.backward() : work.forward()); };
    switch (call.dtype) {
        case 0: return once(Work<float>(call));
        case 1: return once(Work<TIER::BFloat16>(call));
        case 2: return once(Work<TIER::Float16>(call));
    }
    return 0;
}

}  // namespace

extern "C" {
// Only units for bfloat16 read wider numbers than they multiply.
int NAMED(TIER, moe)(const MoECall* call, int is_backward) {
    return call->is_mixed ? 0 : run<TIER::Layer>(*call, is_backward);
}

int NAMED(TIER, grouped)(const GroupedCall* call, int is_backward) {
    return call->has_wide_rows || call->has_wide_weight ? 0 : run<TIER::Grouped>(*call, is_backward);
}

int NAMED(TIER, causal)(const CausalCall* call, int is_backward) { return run<WideCausal>(*call, is_backward); }
}
