// A tier for bfloat16 alone, whose operands are pairs: other dtypes go to AVX-512. Its unit is included before.
#include "matrix_causal.h"
#include "matrix_grouped.h"
#include "matrix_moe.h"
#include "token_experts.h"

#define NAMED(tier, what) NAMED_AGAIN(tier, what)
#define NAMED_AGAIN(tier, what) workbench_##tier##_##what

namespace {

template <class Work>
int run(Work&& work, int is_backward) {
    return int(is_backward ? work.backward() : work.forward());
}

}  // namespace

extern "C" {

int NAMED(TIER, moe)(const MoECall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    return call->is_mixed ? run(TIER::MatrixLayer<float>(*call), is_backward)
                          : run(TIER::MatrixLayer<TIER::BFloat16>(*call), is_backward);
}

int NAMED(TIER, grouped)(const GroupedCall* call, int is_backward) {
    using B = TIER::BFloat16;
    if (call->dtype != 1) return 0;
    if (!call->has_wide_weight)
        return call->has_wide_rows ? 0 : run(TIER::MatrixGrouped<B, B>(*call), is_backward);
    return call->has_wide_rows ? run(TIER::MatrixGrouped<float, float>(*call), is_backward)
                               : run(TIER::MatrixGrouped<B, float>(*call), is_backward);
}

int NAMED(TIER, causal)(const CausalCall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    return run(TIER::Causal<TIER::Narrow>(*call), is_backward);
}

// A single row never meets a tile, but its activation must be that of the layer.
int NAMED(TIER, experts)(const ExpertsCall* call, workbench::Session& team) {
    return call->dtype == 1 && TIER::TokenExperts<TIER::BFloat16>(*call).run(team);
}
}
