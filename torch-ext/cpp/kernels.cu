// What transformers do between matrix products, in bf16, with as few passes over memory as there can be. Compiled when it is
// first needed, by NVRTC: no compiler for GPUs is needed to build this program, and no header of CUDA here.
//
// Everything between loading and storing is in fp32, so that results are rounded at most as often as those of libtorch's
// operations. No atomic operations: equal inputs give equal bits.
//
// Rows are aligned to 16 bytes, and their width is a multiple of 256 = 32 lanes · 8 numbers.

typedef unsigned int u32;
typedef long long i64;

// Eight numbers in bf16.
struct __align__(16) Pack {
  u32 pairs[4];
};

#define LANES 32
#define PER_PACK 8
#define WARPS 8
#define THREADS (LANES * WARPS)

__device__ __forceinline__ void unpack(const Pack& pack, float* values) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(pack.pairs[i] << 16);
    values[2 * i + 1] = __uint_as_float(pack.pairs[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ Pack round_to_bf16(const float* values) {
  Pack pack;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pack.pairs[i]) : "f"(values[2 * i + 1]), "f"(values[2 * i]));
  }
  return pack;
}

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (int distance = LANES / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// Adds up what the warps of a block have found for the same columns, and writes it down; `shared` has a number a column.
template <int NUM>
__device__ __forceinline__ void write_sums(const float (&sums)[NUM][PER_PACK], float* shared, float* sums_of_block) {
  const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  for (int turn = 0; turn < WARPS; ++turn) {
    if (warp == turn) {
#pragma unroll
      for (int v = 0; v < NUM; ++v) {
#pragma unroll
        for (int i = 0; i < PER_PACK; ++i) {
          const int column = (v * LANES + lane) * PER_PACK + i;
          shared[column] = turn == 0 ? sums[v][i] : shared[column] + sums[v][i];
        }
      }
    }
    __syncthreads();
  }
  for (int column = threadIdx.x; column < NUM * LANES * PER_PACK; column += THREADS) {
    sums_of_block[column] = shared[column];
  }
  __syncthreads();
}

#ifdef WIDTH
// --- Rows of one width: a warp has a row at a time. -----------------------------------------------------------------

#define PACKS (WIDTH / (LANES * PER_PACK))

__device__ __forceinline__ void load_row(const Pack* rows, i64 row, Pack (&packs)[PACKS]) {
  const Pack* begin = rows + row * (WIDTH / PER_PACK) + threadIdx.x % LANES;
#pragma unroll
  for (int v = 0; v < PACKS; ++v) {
    packs[v] = begin[v * LANES];
  }
}

__device__ __forceinline__ void unpack_row(const Pack (&packs)[PACKS], float (&values)[PACKS][PER_PACK]) {
#pragma unroll
  for (int v = 0; v < PACKS; ++v) {
    unpack(packs[v], values[v]);
  }
}

__device__ __forceinline__ void store_row(Pack* rows, i64 row, const Pack (&packs)[PACKS]) {
  Pack* begin = rows + row * (WIDTH / PER_PACK) + threadIdx.x % LANES;
#pragma unroll
  for (int v = 0; v < PACKS; ++v) {
    begin[v * LANES] = packs[v];
  }
}

// sum = x + added; normed = (sum − mean)·rstd·weight + bias
extern "C" __global__ void __launch_bounds__(THREADS)
    add_norm(const Pack* x, const Pack* added, const Pack* weight, const Pack* bias, Pack* sum, Pack* normed,
             float* mean, float* rstd, i64 num_rows, float eps) {
  const int lane = threadIdx.x % LANES;
  Pack weight_packs[PACKS], bias_packs[PACKS];
  load_row(weight, 0, weight_packs);
  load_row(bias, 0, bias_packs);
  const i64 stride = (i64)gridDim.x * WARPS;
  for (i64 row = (i64)blockIdx.x * WARPS + threadIdx.x / LANES; row < num_rows; row += stride) {
    Pack packs[PACKS], added_packs[PACKS];
    load_row(x, row, packs);
    load_row(added, row, added_packs);
    float values[PACKS][PER_PACK], others[PACKS][PER_PACK];
    unpack_row(packs, values);
    unpack_row(added_packs, others);
    float total = 0;
#pragma unroll
    for (int v = 0; v < PACKS; ++v) {
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        values[v][i] += others[v][i];
      }
      packs[v] = round_to_bf16(values[v]);
      unpack(packs[v], values[v]);
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        total += values[v][i];
      }
    }
    store_row(sum, row, packs);
    const float row_mean = sum_of_warp(total) * (1.0f / WIDTH);
    float squares = 0;
#pragma unroll
    for (int v = 0; v < PACKS; ++v) {
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        values[v][i] -= row_mean;
        squares += values[v][i] * values[v][i];
      }
    }
    const float row_rstd = rsqrtf(sum_of_warp(squares) * (1.0f / WIDTH) + eps);
    if (lane == 0) {
      mean[row] = row_mean;
      rstd[row] = row_rstd;
    }
#pragma unroll
    for (int v = 0; v < PACKS; ++v) {
      float scale[PER_PACK], shift[PER_PACK];
      unpack(weight_packs[v], scale);
      unpack(bias_packs[v], shift);
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        values[v][i] = values[v][i] * row_rstd * scale[i] + shift[i];
      }
      packs[v] = round_to_bf16(values[v]);
    }
    store_row(normed, row, packs);
  }
}

// The derivative of `add_norm` with respect to x and to added, which is the same. Beside it sums over rows,
// [blocks, 3, WIDTH]: the derivatives of weight and bias, and of what is added to all rows of `added`.
extern "C" __global__ void __launch_bounds__(THREADS)
    add_norm_backward(const Pack* dnormed, const Pack* dsum, const Pack* sum, const float* mean, const float* rstd,
                      const Pack* weight, Pack* dx, float* sums, i64 num_rows) {
  __shared__ float shared[WIDTH];
  Pack weight_packs[PACKS];
  load_row(weight, 0, weight_packs);
  float dweight[PACKS][PER_PACK] = {}, dbias[PACKS][PER_PACK] = {}, dadded[PACKS][PER_PACK] = {};
  const i64 stride = (i64)gridDim.x * WARPS;
  for (i64 row = (i64)blockIdx.x * WARPS + threadIdx.x / LANES; row < num_rows; row += stride) {
    Pack dnormed_packs[PACKS], sum_packs[PACKS], dsum_packs[PACKS];
    load_row(dnormed, row, dnormed_packs);
    load_row(sum, row, sum_packs);
    load_row(dsum, row, dsum_packs);
    const float row_mean = mean[row], row_rstd = rstd[row];
    float xhat[PACKS][PER_PACK], scaled[PACKS][PER_PACK];
    float total = 0, along = 0;
#pragma unroll
    for (int v = 0; v < PACKS; ++v) {
      float scale[PER_PACK];
      unpack(weight_packs[v], scale);
      unpack(sum_packs[v], xhat[v]);
      unpack(dnormed_packs[v], scaled[v]);
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        xhat[v][i] = (xhat[v][i] - row_mean) * row_rstd;
        dbias[v][i] += scaled[v][i];
        dweight[v][i] += scaled[v][i] * xhat[v][i];
        scaled[v][i] *= scale[i];
        total += scaled[v][i];
        along += scaled[v][i] * xhat[v][i];
      }
    }
    total = sum_of_warp(total) * (1.0f / WIDTH);
    along = sum_of_warp(along) * (1.0f / WIDTH);
#pragma unroll
    for (int v = 0; v < PACKS; ++v) {
      float back[PER_PACK];
      unpack(dsum_packs[v], back);
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        back[i] += row_rstd * (scaled[v][i] - total - xhat[v][i] * along);
      }
      dsum_packs[v] = round_to_bf16(back);
      unpack(dsum_packs[v], back);
#pragma unroll
      for (int i = 0; i < PER_PACK; ++i) {
        dadded[v][i] += back[i];
      }
    }
    store_row(dx, row, dsum_packs);
  }
  float* sums_of_block = sums + (i64)blockIdx.x * 3 * WIDTH;
  write_sums(dweight, shared, sums_of_block);
  write_sums(dbias, shared, sums_of_block + WIDTH);
  write_sums(dadded, shared, sums_of_block + 2 * WIDTH);
}

#else
// --- Columns of any width: a block has 256 of them, its warps rows in turn. -----------------------------------------

// Rows that a warp has on their way at a time.
#define ROWS 4

// Φ(x), and the density e^(−x²/2)/√(2π) beside it, which share the exponential. By Abramowitz and Stegun, 7.1.26: off by
// 1.5e-7 at most, where bf16 is by 2e-3.
__device__ __forceinline__ void normal(float x, float* below, float* density) {
  const float exponential = __expf(-0.5f * x * x);
  const float t = __fdividef(1.0f, 1.0f + 0.3275911f * 0.70710678f * fabsf(x));
  const float tail =
      0.5f * exponential * t *
      (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  *below = x < 0 ? tail : 1.0f - tail;
  *density = exponential * 0.39894228f;
}

// dx = dy·(Φ(x) + x·φ(x)), for y = x·Φ(x). Beside it sums of dx over rows, [gridDim.y, width].
extern "C" __global__ void __launch_bounds__(THREADS)
    gelu_backward(const Pack* dy, const Pack* x, Pack* dx, float* sums, i64 num_rows, int width) {
  __shared__ float shared[LANES * PER_PACK];
  const int lane = threadIdx.x % LANES;
  const i64 packs_of_row = width / PER_PACK;
  const i64 column = (i64)blockIdx.x * LANES + lane;
  float found[1][PER_PACK] = {};
  const i64 stride = (i64)gridDim.y * WARPS;
  for (i64 first = (i64)blockIdx.y * WARPS + threadIdx.x / LANES; first < num_rows; first += stride * ROWS) {
    Pack dy_packs[ROWS], x_packs[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const i64 row = first + r * stride;
      if (row < num_rows) {
        dy_packs[r] = dy[row * packs_of_row + column];
        x_packs[r] = x[row * packs_of_row + column];
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const i64 row = first + r * stride;
      if (row < num_rows) {
        float gradient[PER_PACK], values[PER_PACK];
        unpack(dy_packs[r], gradient);
        unpack(x_packs[r], values);
#pragma unroll
        for (int i = 0; i < PER_PACK; ++i) {
          float below, density;
          normal(values[i], &below, &density);
          gradient[i] *= below + values[i] * density;
        }
        const Pack rounded = round_to_bf16(gradient);
        dx[row * packs_of_row + column] = rounded;
        unpack(rounded, gradient);
#pragma unroll
        for (int i = 0; i < PER_PACK; ++i) {
          found[0][i] += gradient[i];
        }
      }
    }
  }
  write_sums(found, shared, sums + (i64)blockIdx.y * width + (i64)blockIdx.x * LANES * PER_PACK);
}

// Puts rows of three tensors beside each other, each `width` wide. Beside it sums over rows, [gridDim.y, 3·width].
extern "C" __global__ void __launch_bounds__(THREADS)
    join_three(const Pack* first_part, const Pack* second_part, const Pack* third_part, Pack* joined, float* sums,
               i64 num_rows, int width) {
  __shared__ float shared[LANES * PER_PACK];
  const int lane = threadIdx.x % LANES;
  const i64 packs_of_part = width / PER_PACK;
  const int blocks_of_part = width / (LANES * PER_PACK);
  const int part = blockIdx.x / blocks_of_part;
  const Pack* from = part == 0 ? first_part : part == 1 ? second_part : third_part;
  const i64 column = (i64)(blockIdx.x % blocks_of_part) * LANES + lane;
  const i64 joined_column = (i64)blockIdx.x * LANES + lane;
  float found[1][PER_PACK] = {};
  const i64 stride = (i64)gridDim.y * WARPS;
  for (i64 first = (i64)blockIdx.y * WARPS + threadIdx.x / LANES; first < num_rows; first += stride * ROWS) {
    Pack packs[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const i64 row = first + r * stride;
      if (row < num_rows) {
        packs[r] = from[row * packs_of_part + column];
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const i64 row = first + r * stride;
      if (row < num_rows) {
        joined[row * 3 * packs_of_part + joined_column] = packs[r];
        float values[PER_PACK];
        unpack(packs[r], values);
#pragma unroll
        for (int i = 0; i < PER_PACK; ++i) {
          found[0][i] += values[i];
        }
      }
    }
  }
  write_sums(found, shared, sums + (i64)blockIdx.y * 3 * width + (i64)blockIdx.x * LANES * PER_PACK);
}

// Adds up sums of blocks, [num_blocks, num_columns], and rounds them: a lane has two columns, a warp blocks in turn.
extern "C" __global__ void __launch_bounds__(THREADS)
    fold_sums(const float2* sums, u32* folded, int num_blocks, int num_columns) {
  __shared__ float2 shared[WARPS][LANES];
  const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  const int pair = blockIdx.x * LANES + lane;
  float2 found = {0, 0};
#pragma unroll 8
  for (int block = warp; block < num_blocks; block += WARPS) {
    const float2 both = sums[(i64)block * (num_columns / 2) + pair];
    found.x += both.x;
    found.y += both.y;
  }
  shared[warp][lane] = found;
  __syncthreads();
  if (warp == 0) {
#pragma unroll
    for (int other = 1; other < WARPS; ++other) {
      found.x += shared[other][lane].x;
      found.y += shared[other][lane].y;
    }
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(found.y), "f"(found.x));
    folded[pair] = packed;
  }
}
#endif
