// Compiled once for every instruction set, with TIER naming the copy.
#include "choice.h"
#include "token.h"
#include "token_experts.h"
#include "topk.h"

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
int NAMED(TIER, topk)(const TopKCall* call, int is_backward) {
    const auto once = [is_backward](auto&& work) { return int(is_backward ? work.backward() : work.forward()); };
    return call->dtype == 0   ? once(TIER::TopKGate<float>(*call))
           : call->dtype == 1 ? once(TIER::TopKGate<TIER::BFloat16>(*call))
           : call->dtype == 2 ? once(TIER::TopKGate<TIER::Float16>(*call))
                              : 0;
}
int NAMED(TIER, attention)(const AttentionCall* call, workbench::Session& team) {
    return call->dtype == 0   ? TIER::TokenAttention<float>(*call).run(team)
           : call->dtype == 1 ? TIER::TokenAttention<TIER::BFloat16>(*call).run(team)
           : call->dtype == 2 ? TIER::TokenAttention<TIER::Float16>(*call).run(team)
                              : false;
}
int NAMED(TIER, choice)(const ChoiceCall* call, workbench::Session&) {
    return call->dtype == 0   ? TIER::Choice<float>(*call).run()
           : call->dtype == 1 ? TIER::Choice<TIER::BFloat16>(*call).run()
           : call->dtype == 2 ? TIER::Choice<TIER::Float16>(*call).run()
                              : false;
}
int NAMED(TIER, experts)(const ExpertsCall* call, workbench::Session& team) {
    return call->dtype == 0   ? TIER::TokenExperts<float>(*call).run(team)
           : call->dtype == 1 ? TIER::TokenExperts<TIER::BFloat16>(*call).run(team)
           : call->dtype == 2 ? TIER::TokenExperts<TIER::Float16>(*call).run(team)
                              : false;
}
int NAMED(TIER, linear)(const LinearCall* call, workbench::Session& team) {
    return call->dtype == 0   ? TIER::token_linear<float>(*call, team)
           : call->dtype == 1 ? TIER::token_linear<TIER::BFloat16>(*call, team)
           : call->dtype == 2 ? TIER::token_linear<TIER::Float16>(*call, team)
                              : false;
}
}
