// ExLlamaV2's own unpacking (exllamav2_ext/cuda/quant/qdq_*.cuh) for the CPU: what it needs of CUDA, and one function.
#include <cstdint>

#define __forceinline__ inline
#define __device__

struct half {
    _Float16 value;
    half() = default;
    explicit half(float from) : value((_Float16) from) {}
};
struct half2 { half x, y; };

static half __float2half_rn(float a) { return half(a); }
static half __int2half_rn(int a) { return half((float) a); }
static half2 __halves2half2(half a, half b) { return {a, b}; }
static half2 __half2half2(half a) { return {a, a}; }
// Exact in float: the products of two halves, and the sums of those that occur here.
static half __hadd(half a, half b) { return half((float) a.value + (float) b.value); }
static half __hsub(half a, half b) { return half((float) a.value - (float) b.value); }
static half __hmul(half a, half b) { return half((float) a.value * (float) b.value); }
static half2 __hadd2(half2 a, half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
static half2 __hmul2(half2 a, half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
static half fma(half a, half b, half c) { return half((float) a.value * (float) b.value + (float) c.value); }
static half2 __hfma2(half2 a, half2 b, half2 c) { return {fma(a.x, b.x, c.x), fma(a.y, b.y, c.y)}; }
static uint32_t __funnelshift_rc(uint32_t low, uint32_t high, int shift)
{
    return shift >= 32 ? high : (uint32_t) ((((uint64_t) high << 32) | low) >> shift);
}

#include "exllamav2_ext/cuda/quant/qdq_2.cuh"
#include "exllamav2_ext/cuda/quant/qdq_3.cuh"
#include "exllamav2_ext/cuda/quant/qdq_4.cuh"
#include "exllamav2_ext/cuda/quant/qdq_5.cuh"
#include "exllamav2_ext/cuda/quant/qdq_6.cuh"
#include "exllamav2_ext/cuda/quant/qdq_8.cuh"

template <int pairs> static void store(float*& out, half2 (&from)[pairs])
{
    for (half2 pair : from) { *out++ = (float) pair.x.value; *out++ = (float) pair.y.value; }
}

// 32 values of one column from their `bits` words, shuffled and unpacked as shuffle_kernel and reconstruct_kernel do it
// (cuda/q_matrix.cu). Changes `q`.
extern "C" void unpack(int bits, uint32_t* q, float* out)
{
    half2 a[4], b[8], c[16];
    for (int p = 0; bits == 8 && p < 8; p += 2)
    {
        shuffle_8bit_4(q + p, 1); shuffle_8bit_4(q + p + 1, 1);
        dequant_8bit_8(q[p], q[p + 1], a, 1); store(out, a);
    }
    for (int p = 0; bits == 6 && p < 6; p += 3)
    {
        shuffle_6bit_16(q + p, 1); dequant_6bit_16(q[p], q[p + 1], q[p + 2], b, 1); store(out, b);
    }
    if (bits == 5)
    {
        shuffle_5bit_32(q, 1); dequant_5bit_32(q[0], q[1], q[2], q[3], q[4], c, 1); store(out, c);
    }
    for (int p = 0; bits == 4 && p < 4; p++)
    {
        shuffle_4bit_8(q + p, 1); dequant_4bit_8(q[p], a, 1); store(out, a);
    }
    if (bits == 3)
    {
        shuffle_3bit_32(q, 1); dequant_3bit_32(q[0], q[1], q[2], c, 1); store(out, c);
    }
    for (int p = 0; bits == 2 && p < 2; p++)
    {
        shuffle_2bit_16(q + p, 1); dequant_2bit_16(q[p], b, 1); store(out, b);
    }
}
