// Compiled once for every instruction set, with TIER naming the copy.
#include "rows.h"

#define NAMED(tier, what) NAMED_AGAIN(tier, what)
#define NAMED_AGAIN(tier, what) workbench_##tier##_##what
#define BY_DTYPE(function)                                  \
    call->dtype == 0   ? TIER::function<float>(*call)          \
    : call->dtype == 1 ? TIER::function<TIER::BFloat16>(*call) \
    : call->dtype == 2 ? TIER::function<TIER::Float16>(*call)  \
                       : false

extern "C" {
int NAMED(TIER, norm)(const NormCall* call, int is_backward) {
    return is_backward ? BY_DTYPE(norm_backward) : (BY_DTYPE(norm_forward));
}
int NAMED(TIER, entropy)(const EntropyCall* call, int is_backward) {
    return is_backward ? BY_DTYPE(entropy_backward) : (BY_DTYPE(entropy_forward));
}
}
