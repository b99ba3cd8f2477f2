// A tier for bfloat16 alone, whose operands are pairs: other dtypes go to AVX-512. Its unit is included before.
#include "matrix_causal.h"
#include "matrix_grouped.h"
#include "matrix_moe.h"
#include "token_experts.h"

#define NAMED(tier, what) NAMED_AGAIN(tier, what)
#define NAMED_AGAIN(tier, what) workbench_##tier##_##what

extern "C" {

int NAMED(TIER, moe)(const MoECall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    TIER::MatrixLayer layer(*call);
    return int(is_backward ? layer.backward() : layer.forward());
}

int NAMED(TIER, grouped)(const GroupedCall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    TIER::MatrixGrouped work(*call);
    return int(is_backward ? work.backward() : work.forward());
}

int NAMED(TIER, causal)(const CausalCall* call, int is_backward) {
    if (call->dtype != 1) return 0;
    TIER::Causal<TIER::Narrow> work(*call);
    return int(is_backward ? work.backward() : work.forward());
}

// A single row never meets a tile, but its activation must be that of the layer.
int NAMED(TIER, experts)(const ExpertsCall* call, workbench::Session& team) {
    return call->dtype == 1 && TIER::TokenExperts<TIER::BFloat16>(*call).run(team);
}
}
