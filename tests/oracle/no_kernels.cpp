// The kernels of flash-attn, which do nothing on a null GPU: with them its own binding (csrc/flash_attn/flash_api.cpp),
// which allocates what they would need, is built in a minute instead of an hour.
#include "namespace_config.h"

#include <cuda_runtime.h>
#include <cutlass/numeric_types.h>

#include "flash.h"

namespace FLASH_NAMESPACE {

template <typename T, int Headdim, bool Is_causal>
void run_mha_fwd_(Flash_fwd_params &, cudaStream_t) {}
template <typename T, int Headdim, bool Is_causal>
void run_mha_fwd_splitkv_dispatch(Flash_fwd_params &, cudaStream_t) {}
template <typename T, int Headdim, bool Is_causal>
void run_mha_bwd_(Flash_bwd_params &, cudaStream_t) {}

#define INSTANTIATE(T, DIM, CAUSAL)                                                    \
    template void run_mha_fwd_<T, DIM, CAUSAL>(Flash_fwd_params &, cudaStream_t);      \
    template void run_mha_fwd_splitkv_dispatch<T, DIM, CAUSAL>(Flash_fwd_params &, cudaStream_t); \
    template void run_mha_bwd_<T, DIM, CAUSAL>(Flash_bwd_params &, cudaStream_t);
#define FOR_DIM(DIM)                                                                   \
    INSTANTIATE(cutlass::half_t, DIM, false) INSTANTIATE(cutlass::half_t, DIM, true)   \
    INSTANTIATE(cutlass::bfloat16_t, DIM, false) INSTANTIATE(cutlass::bfloat16_t, DIM, true)

FOR_DIM(32) FOR_DIM(64) FOR_DIM(96) FOR_DIM(128) FOR_DIM(192) FOR_DIM(256)

}  // namespace FLASH_NAMESPACE
