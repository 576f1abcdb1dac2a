// Kernels of a device, for CUDA and for ROCm: operations that libtorch does not have, or not with a fixed order of sums.
//
// Compiled when a worker first needs them, once for each element type E of weights and activations (ELEMENT_BF16 or f32), without
// contraction of multiplications and additions. The order of every sum depends on the shape of one row, block or shard
// only: not on the number of rows, the layout, the alignment of memory or the number of multiprocessors. Each function
// has a reference in model/ops/aten.rs. Shape letters: see `model`.

typedef long long i64;

#ifdef __HIP_DEVICE_COMPILE__
#define SHUFFLE(value, mask) __shfl_xor(value, mask, 32)
#else
#define SHUFFLE(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#endif

// Lanes that work on one row together; warps of 64 hold two groups.
#define GROUP 32
#define INFINITE __uint_as_float(0x7f800000u)
#define MAX_PARTS 16
// Rows of a block of a norm's backward pass.
#define NORM_ROWS 32

struct bf16 {
  unsigned short bits;
};

__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ float to_float(bf16 value) {
  return __uint_as_float((unsigned int)value.bits << 16);
}
template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
// To nearest, ties to even.
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
  unsigned int bits = __float_as_uint(value);
  bf16 result;
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    result.bits = (unsigned short)((bits >> 16) | 0x40u);
    return result;
  }
  result.bits = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  return result;
}

// With bf16 results the short forms of exponential and division are exact enough; both repeat their bits.
#ifdef ELEMENT_BF16
typedef bf16 E;
#define EXP __expf
#define DIVIDE __fdividef
#else
typedef float E;
#define EXP expf
#define DIVIDE(a, b) ((a) / (b))
#endif

// Four neighbouring elements. `count` of them exist; the others are 0 and are not written.
struct Four {
  float v[4];
};

template <class T>
struct alignas(4 * sizeof(T)) Packed {
  T v[4];
};

template <class T>
__device__ __forceinline__ bool is_aligned(const T* p) {
  return ((unsigned long long)p & (4 * sizeof(T) - 1)) == 0;
}

template <class T>
__device__ __forceinline__ Four load4(const T* p, i64 count) {
  Four four;
  if (count >= 4 && is_aligned(p)) {
    Packed<T> packed = *(const Packed<T>*)p;
    for (int k = 0; k < 4; ++k) four.v[k] = to_float(packed.v[k]);
  } else {
    for (int k = 0; k < 4; ++k) four.v[k] = k < count ? to_float(p[k]) : 0.0f;
  }
  return four;
}

template <class T>
__device__ __forceinline__ void store4(T* p, i64 count, const Four& four) {
  if (count >= 4 && is_aligned(p)) {
    Packed<T> packed;
    for (int k = 0; k < 4; ++k) packed.v[k] = from_float<T>(four.v[k]);
    *(Packed<T>*)p = packed;
  } else {
    for (int k = 0; k < 4; ++k)
      if (k < count) p[k] = from_float<T>(four.v[k]);
  }
}

// Eight neighbouring elements, of which `count` exist: one access of 16 bytes for bf16.
struct Eight {
  Four half[2];
};

template <class T>
__device__ __forceinline__ Eight load8(const T* p, i64 count) {
  Eight eight;
  if (sizeof(T) == 2 && count >= 8 && ((unsigned long long)p & 15) == 0) {
    struct alignas(16) Wide {
      T v[8];
    };
    const Wide wide = *(const Wide*)p;
    for (int k = 0; k < 8; ++k) eight.half[k / 4].v[k % 4] = to_float(wide.v[k]);
  } else {
    eight.half[0] = load4(p, count);
    eight.half[1] = load4(p + 4, count - 4);
  }
  return eight;
}

template <class T>
__device__ __forceinline__ void store8(T* p, i64 count, const Eight& eight) {
  if (sizeof(T) == 2 && count >= 8 && ((unsigned long long)p & 15) == 0) {
    struct alignas(16) Wide {
      T v[8];
    };
    Wide wide;
    for (int k = 0; k < 8; ++k) wide.v[k] = from_float<T>(eight.half[k / 4].v[k % 4]);
    *(Wide*)p = wide;
  } else {
    store4(p, count, eight.half[0]);
    store4(p + 4, count - 4, eight.half[1]);
  }
}

// A tensor of either element type: kind 1 is f32, 2 is bf16.
__device__ __forceinline__ Four load4_of(const void* p, int kind, i64 at, i64 count) {
  return kind == 1 ? load4((const float*)p + at, count) : load4((const bf16*)p + at, count);
}
__device__ __forceinline__ void store4_of(void* p, int kind, i64 at, i64 count, const Four& four) {
  if (kind == 1)
    store4((float*)p + at, count, four);
  else
    store4((bf16*)p + at, count, four);
}

struct Parts {
  const void* p[MAX_PARTS];
};

// The tree sum of N parts, a power of two.
template <int N>
__device__ __forceinline__ Four tree(const void* const* p, int kind, i64 at, i64 count) {
  Four left = tree<N / 2>(p, kind, at, count);
  const Four right = tree<N / 2>(p + N / 2, kind, at, count);
  for (int k = 0; k < 4; ++k) left.v[k] += right.v[k];
  return left;
}
template <>
__device__ __forceinline__ Four tree<1>(const void* const* p, int kind, i64 at, i64 count) {
  return load4_of(p[0], kind, at, count);
}
__device__ __forceinline__ Four tree_of(const Parts& parts, int n, int kind, i64 at, i64 count) {
  switch (n) {
    case 1: return tree<1>(parts.p, kind, at, count);
    case 2: return tree<2>(parts.p, kind, at, count);
    case 4: return tree<4>(parts.p, kind, at, count);
    case 8: return tree<8>(parts.p, kind, at, count);
    default: return tree<16>(parts.p, kind, at, count);
  }
}

// The sum over the lanes of a group, on every lane.
__device__ __forceinline__ float group_sum(float value) {
  for (int mask = GROUP / 2; mask > 0; mask /= 2) value += SHUFFLE(value, mask);
  return value;
}

// The sum over the 256 threads of a block: pairs at a distance of 128, 64, …, 1.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  const int thread = threadIdx.x;
  shared[thread] = value;
  __syncthreads();
  for (int distance = 128; distance > 0; distance /= 2) {
    if (thread < distance) shared[thread] += shared[thread + distance];
    __syncthreads();
  }
  const T sum = shared[0];
  __syncthreads();
  return sum;
}
__device__ __forceinline__ float block_max(float value, float* shared) {
  const int thread = threadIdx.x;
  shared[thread] = value;
  __syncthreads();
  for (int distance = 128; distance > 0; distance /= 2) {
    if (thread < distance) shared[thread] = fmaxf(shared[thread], shared[thread + distance]);
    __syncthreads();
  }
  const float largest = shared[0];
  __syncthreads();
  return largest;
}

#define THREAD ((i64)blockIdx.x * blockDim.x + threadIdx.x)
#define ROW_OF_GROUP (THREAD / GROUP)
#define LANE (threadIdx.x % GROUP)

// Rotates `count` pairs, at most four, whose second elements are `half` after the first ones.
__device__ __forceinline__ void rotate4(
    const E* from, E* to, i64 half, i64 count, const float* cosines, const float* sines, float sign) {
  Four low = load4(from, count), high = load4(from + half, count);
  const Four c = load4(cosines, count), s = load4(sines, count);
  for (int k = 0; k < 4; ++k) {
    const float a = low.v[k], b = high.v[k], sine = sign * s.v[k];
    low.v[k] = a * c.v[k] - b * sine;
    high.v[k] = b * c.v[k] + a * sine;
  }
  store4(to, count, low);
  store4(to + half, count, high);
}

// A group's row of a norm.
__device__ __forceinline__ void norm_row(
    const float* x, i64 h, const E* weight, const E* bias, float centre, float scale, E* out) {
  for (i64 i = LANE * 4; i < h; i += GROUP * 4) {
    Four four = load4(x + i, h - i);
    const Four w = load4(weight + i, h - i);
    for (int k = 0; k < 4; ++k) four.v[k] = (four.v[k] - centre) * scale * w.v[k];
    if (bias) {
      const Four b = load4(bias + i, h - i);
      for (int k = 0; k < 4; ++k) four.v[k] += b.v[k];
    }
    store4(out + i, h - i, four);
  }
}

extern "C" {

// out[t, h] = word[id] (+ position[t mod sequence]); rows whose id is in no shard get 0 for the word.
__global__ void embed(
    const i64* ids, i64 rows, i64 sequence, i64 first, Parts word, i64 shard_rows, int shards, const E* position,
    float* out, i64 h) {
  const i64 row = ROW_OF_GROUP;
  if (row >= rows) return;
  const i64 at = ids[row] - first;
  const bool held = at >= 0 && at < shard_rows * shards;
  const E* from = held ? (const E*)word.p[at / shard_rows] + at % shard_rows * h : 0;
  for (i64 i = LANE * 4; i < h; i += GROUP * 4) {
    Four four = held ? load4(from + i, h - i) : Four{};
    if (position) {
      const Four p = load4(position + row % sequence * h + i, h - i);
      for (int k = 0; k < 4; ++k) four.v[k] += p.v[k];
    }
    store4(out + row * h + i, h - i, four);
  }
}

// For each id: adds the rows of dx with this id, in the order of tokens, to its row of the gradient. `sorted` are the ids
// in ascending order, equal ones in the order of tokens, and `order` their rows.
__global__ void embed_backward(
    const i64* sorted, const i64* order, i64 rows, i64 first, const float* dx, Parts dword, i64 shard_rows, int shards,
    i64 h) {
  const i64 start = blockIdx.x;
  const i64 id = sorted[start];
  const i64 at = id - first;
  if ((start > 0 && sorted[start - 1] == id) || at < 0 || at >= shard_rows * shards) return;
  float* to = (float*)dword.p[at / shard_rows] + at % shard_rows * h;
  for (i64 i = threadIdx.x * 4; i < h; i += blockDim.x * 4) {
    Four sum = load4(to + i, h - i);
    for (i64 j = start; j < rows && sorted[j] == id; ++j) {
      const Four d = load4(dx + order[j] * h + i, h - i);
      for (int k = 0; k < 4; ++k) sum.v[k] += d.v[k];
    }
    store4(to + i, h - i, sum);
  }
}

// dposition[s, h] += Σ over sequences of dx, in order.
__global__ void position_backward(const float* dx, i64 sequences, i64 sequence, i64 h, float* dposition) {
  const i64 at = THREAD * 4, count = sequence * h;
  if (at >= count) return;
  Four sum = {};
  for (i64 b = 0; b < sequences; ++b) {
    const Four d = load4(dx + b * count + at, count - at);
    for (int k = 0; k < 4; ++k) sum.v[k] += d.v[k];
  }
  Four old = load4(dposition + at, count - at);
  for (int k = 0; k < 4; ++k) old.v[k] += sum.v[k];
  store4(dposition + at, count - at, old);
}

// out = (x − mean) · rstd · weight (+ bias), and the statistics of each row; without `bias` those of a root-mean-square
// norm, which has no mean.
__global__ void norm_forward(
    const float* x, i64 rows, i64 h, float epsilon, const E* weight, const E* bias, float* mean, float* rstd, E* out) {
  const i64 row = ROW_OF_GROUP;
  if (row >= rows) return;
  x += row * h;
  float centre = 0.0f;
  if (bias) {
    float sum = 0.0f;
    for (i64 i = LANE * 4; i < h; i += GROUP * 4) {
      const Four four = load4(x + i, h - i);
      sum += (four.v[0] + four.v[1]) + (four.v[2] + four.v[3]);
    }
    centre = group_sum(sum) / (float)h;
  }
  float sum = 0.0f;
  for (i64 i = LANE * 4; i < h; i += GROUP * 4) {
    const Four four = load4(x + i, h - i);
    float square[4];
    for (int k = 0; k < 4; ++k) {
      const float d = i + k < h ? four.v[k] - centre : 0.0f;
      square[k] = d * d;
    }
    sum += (square[0] + square[1]) + (square[2] + square[3]);
  }
  const float scale = 1.0f / sqrtf(group_sum(sum) / (float)h + epsilon);
  if (LANE == 0) {
    if (bias) mean[row] = centre;
    rstd[row] = scale;
  }
  norm_row(x, h, weight, bias, centre, scale, out + row * h);
}

// out = (x − mean) · rstd · weight (+ bias)
__global__ void norm_apply(
    const float* x, i64 rows, i64 h, const E* weight, const E* bias, const float* mean, const float* rstd, E* out) {
  const i64 row = ROW_OF_GROUP;
  if (row >= rows) return;
  norm_row(x + row * h, h, weight, bias, bias ? mean[row] : 0.0f, rstd[row], out + row * h);
}

// dx += the gradient of a norm's input. Also the sums over a block's NORM_ROWS rows of dy · normalized x, and of dy if
// there is a mean: `partials` and `bias_partials`, [blocks, h].
__global__ void norm_backward(
    const void* dy, int kind, const float* x, i64 rows, i64 h, const E* weight, const float* mean, const float* rstd,
    float* dx, float* partials, float* bias_partials) {
  __shared__ float sums[NORM_ROWS], products[NORM_ROWS];
  const i64 first = (i64)blockIdx.x * NORM_ROWS, end = first + NORM_ROWS < rows ? first + NORM_ROWS : rows;
  for (i64 row = first + threadIdx.x / GROUP; row < end; row += blockDim.x / GROUP) {
    const float centre = mean ? mean[row] : 0.0f, scale = rstd[row];
    float sum = 0.0f, product = 0.0f;
    for (i64 i = LANE * 4; i < h; i += GROUP * 4) {
      const Four d = load4_of(dy, kind, row * h + i, h - i), w = load4(weight + i, h - i), v = load4(x + row * h + i, h - i);
      float g[4], p[4];
      for (int k = 0; k < 4; ++k) {
        g[k] = d.v[k] * w.v[k];
        p[k] = g[k] * ((v.v[k] - centre) * scale);
      }
      sum += (g[0] + g[1]) + (g[2] + g[3]);
      product += (p[0] + p[1]) + (p[2] + p[3]);
    }
    sum = group_sum(sum);
    product = group_sum(product);
    if (LANE == 0) {
      sums[row - first] = mean ? sum / (float)h : 0.0f;
      products[row - first] = product / (float)h;
    }
  }
  __syncthreads();
  for (i64 i = threadIdx.x * 4; i < h; i += blockDim.x * 4) {
    const Four w = load4(weight + i, h - i);
    Four weights = {}, biases = {};
    for (i64 row = first; row < end; ++row) {
      const float centre = mean ? mean[row] : 0.0f, scale = rstd[row];
      const float sum = sums[row - first], product = products[row - first];
      const Four d = load4_of(dy, kind, row * h + i, h - i), v = load4(x + row * h + i, h - i);
      Four old = load4(dx + row * h + i, h - i);
      for (int k = 0; k < 4; ++k) {
        const float normal = (v.v[k] - centre) * scale;
        old.v[k] += scale * (d.v[k] * w.v[k] - sum - normal * product);
        weights.v[k] += d.v[k] * normal;
        biases.v[k] += d.v[k];
      }
      store4(dx + row * h + i, h - i, old);
    }
    store4(partials + blockIdx.x * h + i, h - i, weights);
    if (bias_partials) store4(bias_partials + blockIdx.x * h + i, h - i, biases);
  }
}

// partials[chunk, h] = Σ over the rows of a chunk of the values. One thread for four columns.
__global__ void column_partials(const void* values, int kind, i64 rows, i64 h, i64 chunk_rows, float* partials) {
  const i64 i = THREAD * 4;
  if (i >= h) return;
  const i64 first = blockIdx.y * chunk_rows, end = first + chunk_rows < rows ? first + chunk_rows : rows;
  Four sum = {};
  for (i64 row = first; row < end; ++row) {
    const Four d = load4_of(values, kind, row * h + i, h - i);
    for (int k = 0; k < 4; ++k) sum.v[k] += d.v[k];
  }
  store4(partials + blockIdx.y * h + i, h - i, sum);
}

// gradient += Σ over chunks of the partials: every 32nd chunk in order, then these 32 sums as a tree. A block has 32
// columns of 32 threads.
__global__ void add_columns(const float* partials, i64 chunks, i64 h, float* gradient) {
  __shared__ float shared[32][33];
  const int column = threadIdx.x % 32, part = threadIdx.x / 32;
  const i64 i = (i64)blockIdx.x * 32 + column;
  float sum = 0.0f;
  if (i < h)
    for (i64 chunk = part; chunk < chunks; chunk += 32) sum += partials[chunk * h + i];
  shared[part][column] = sum;
  __syncthreads();
  for (int distance = 16; distance > 0; distance /= 2) {
    if (part < distance) shared[part][column] += shared[part + distance][column];
    __syncthreads();
  }
  if (part == 0 && i < h) gradient[i] += shared[0][column];
}

__device__ __forceinline__ void gelu_erf(float x, float* value, float* slope) {
  const float phi = 0.5f * erfcf(-x * 0.70710678f);
  *value = x * phi;
  *slope = phi + x * expf(-0.5f * x * x) * 0.3989423f;
}
__device__ __forceinline__ void gelu_tanh(float x, float* value, float* slope) {
  const float square = x * x;
  const float twice = (2.0f * 0.7978846f) * x * (1.0f + 0.044715f * square);
  const float logistic = 1.0f / (1.0f + expf(-twice));
  const float inner = (2.0f * 0.7978846f) * (1.0f + 3.0f * 0.044715f * square);
  *value = x * logistic;
  *slope = logistic + x * logistic * (1.0f - logistic) * inner;
}
__device__ __forceinline__ void gelu(int form, float x, float* value, float* slope) {
  if (form == 0)
    gelu_erf(x, value, slope);
  else
    gelu_tanh(x, value, slope);
}

// z += bias in place; out = gelu(z).
__global__ void gelu_forward(int form, E* z, i64 count, i64 width, const E* bias, E* out) {
  const i64 at = THREAD * 4;
  if (at >= count) return;
  const i64 column = at % width;
  Four four = load4(z + at, width - column);
  const Four b = load4(bias + column, width - column);
  Four value;
  for (int k = 0; k < 4; ++k) {
    four.v[k] = to_float(from_float<E>(four.v[k] + b.v[k]));
    float slope;
    gelu(form, four.v[k], &value.v[k], &slope);
  }
  store4(z + at, width - column, four);
  store4(out + at, width - column, value);
}

// gradient *= gelu'(z) in place; out = gelu(z).
__global__ void gelu_backward(int form, const E* z, i64 count, E* gradient, E* out) {
  const i64 at = THREAD * 4;
  if (at >= count) return;
  const Four four = load4(z + at, count - at);
  Four d = load4(gradient + at, count - at), value;
  for (int k = 0; k < 4; ++k) {
    float slope;
    gelu(form, four.v[k], &value.v[k], &slope);
    d.v[k] *= slope;
  }
  store4(gradient + at, count - at, d);
  store4(out + at, count - at, value);
}

// out = silu(gate) · up; each row of z has `width` gates, then `width` ups. One thread for eight columns of a row.
__global__ void swiglu_forward(const E* z, i64 rows, i64 width, E* out) {
  const i64 each = (width + 7) / 8, row = THREAD / each, i = THREAD % each * 8, rest = width - i;
  if (row >= rows) return;
  const Eight g = load8(z + row * 2 * width + i, rest), u = load8(z + row * 2 * width + width + i, rest);
  Eight value;
  for (int k = 0; k < 8; ++k) {
    const float gate = g.half[k / 4].v[k % 4];
    value.half[k / 4].v[k % 4] = DIVIDE(gate, 1.0f + EXP(-gate)) * u.half[k / 4].v[k % 4];
  }
  store8(out + row * width + i, rest, value);
}

__global__ void swiglu_backward(const E* z, const E* gradient, i64 rows, i64 width, E* dz, E* out) {
  const i64 each = (width + 7) / 8, row = THREAD / each, i = THREAD % each * 8, rest = width - i;
  if (row >= rows) return;
  const i64 gates = row * 2 * width + i, ups = gates + width;
  const Eight g = load8(z + gates, rest), u = load8(z + ups, rest), d = load8(gradient + row * width + i, rest);
  Eight value, dg, du;
  for (int k = 0; k < 8; ++k) {
    const int h = k / 4, l = k % 4;
    const float gate = g.half[h].v[l], logistic = DIVIDE(1.0f, 1.0f + EXP(-gate)), silu = gate * logistic;
    value.half[h].v[l] = DIVIDE(gate, 1.0f + EXP(-gate)) * u.half[h].v[l];
    du.half[h].v[l] = d.half[h].v[l] * silu;
    dg.half[h].v[l] = d.half[h].v[l] * u.half[h].v[l] * (logistic * (1.0f + gate * (1.0f - logistic)));
  }
  store8(out + row * width + i, rest, value);
  store8(dz + gates, rest, dg);
  store8(dz + ups, rest, du);
}

// Rotates heads in place; `sign` is −1 to rotate back. One thread for four pairs of elements.
__global__ void rotate(
    E* rows, i64 stride, i64 count, i64 heads, i64 half, i64 sequence, const float* cosines, const float* sines,
    float sign) {
  const i64 each = (half + 3) / 4, at = THREAD, i = at % each * 4, head = at / each % heads, row = at / each / heads;
  if (row >= count) return;
  E* low = rows + row * stride + head * 2 * half + i;
  rotate4(low, low, half, half - i, cosines + row % sequence * half + i, sines + row % sequence * half + i, sign);
}

// Where the heads of a kind are in a row of a projection.
struct Place {
  i64 first, step;
};

// Writes the gradients of heads, [rows, heads, d], to their places in rows of a projection, queries and keys rotated back
// if there are tables. One thread for four pairs of elements.
__global__ void pack_heads(
    const E* dq, const E* dk, const E* dv, i64 rows, i64 n, i64 g, i64 half, i64 sequence, const float* cosines,
    const float* sines, Place q, Place k, Place v, E* to, i64 stride) {
  const i64 each = (half + 3) / 4, at = THREAD, i = at % each * 4, all = n + 2 * g;
  const i64 number = at / each % all, row = at / each / all;
  if (row >= rows) return;
  const bool is_query = number < n, is_value = number >= n + g;
  const i64 head = is_query ? number : is_value ? number - n - g : number - n;
  const E* from = (is_query ? dq + row * n * 2 * half : (is_value ? dv : dk) + row * g * 2 * half) + head * 2 * half + i;
  const Place place = is_query ? q : is_value ? v : k;
  E* low = to + row * stride + place.first + head * place.step + i;
  if (cosines && !is_value) {
    const i64 line = row % sequence * half + i;
    rotate4(from, low, half, half - i, cosines + line, sines + line, -1.0f);
  } else {
    store4(low, half - i, load4(from, half - i));
    store4(low + half, half - i, load4(from + half, half - i));
  }
}

// out = residual + (tree sum of the partials (+ bias)); all tensors [rows, h].
__global__ void add_residual(
    Parts parts, int n, int kind, const void* bias, int bias_kind, i64 count, i64 h, const float* residual, float* out) {
  const i64 at = THREAD * 4;
  if (at >= count) return;
  const i64 column = at % h, rest = h - column;
  Four sum = tree_of(parts, n, kind, at, rest);
  if (bias) {
    const Four b = load4_of(bias, bias_kind, column, rest);
    for (int k = 0; k < 4; ++k) sum.v[k] += b.v[k];
  }
  const Four r = load4(residual + at, rest);
  for (int k = 0; k < 4; ++k) sum.v[k] += r.v[k];
  store4(out + at, rest, sum);
}

// out = (out if `add` +) (tree sum of the partials (+ extra)).
__global__ void sum_parts(
    Parts parts, int n, int kind, const void* extra, int extra_kind, i64 count, int add, float* out) {
  const i64 at = THREAD * 4;
  if (at >= count) return;
  Four sum = tree_of(parts, n, kind, at, count - at);
  if (extra) {
    const Four e = load4_of(extra, extra_kind, at, count - at);
    for (int k = 0; k < 4; ++k) sum.v[k] += e.v[k];
  }
  if (add) {
    const Four old = load4(out + at, count - at);
    for (int k = 0; k < 4; ++k) sum.v[k] = old.v[k] + sum.v[k];
  }
  store4(out + at, count - at, sum);
}

// Converts between element types.
__global__ void cast(const void* from, int from_kind, void* to, int to_kind, i64 count) {
  const i64 at = THREAD * 4;
  if (at >= count) return;
  store4_of(to, to_kind, at, count - at, load4_of(from, from_kind, at, count - at));
}

// out[t, 0..d] and out[t, d..2d] = Σ over heads of dk and dv, in order.
__global__ void fold_heads(const E* dk, const E* dv, i64 rows, i64 heads, i64 d, float* out) {
  const i64 at = THREAD;
  if (at >= rows * 2 * d) return;
  const i64 row = at / (2 * d), i = at % (2 * d);
  const E* from = i < d ? dk : dv;
  float sum = 0.0f;
  for (i64 head = 0; head < heads; ++head) sum += to_float(from[(row * heads + head) * d + i % d]);
  out[at] = sum;
}

// The largest logit of each row; one block for a row. `raise` keeps a larger value that is there.
__global__ void row_maxima(const E* logits, i64 v, float* maxima, int raise) {
  __shared__ float shared[256];
  const i64 row = blockIdx.x;
  float largest = -INFINITE;
  for (i64 i = threadIdx.x * 4; i < v; i += 256 * 4) {
    const Four four = load4(logits + row * v + i, v - i);
    for (int k = 0; k < 4; ++k)
      if (i + k < v) largest = fmaxf(largest, four.v[k]);
  }
  largest = block_max(largest, shared);
  if (threadIdx.x == 0) maxima[row] = raise ? fmaxf(maxima[row], largest) : largest;
}

// Σ exp(logit − maximum) of each row, and the target's logit if the target is in this shard.
__global__ void row_sums(
    const E* logits, i64 v, const i64* targets, i64 first, const float* maxima, float* sums, float* target_logits,
    int is_first) {
  __shared__ float shared[256];
  const i64 row = blockIdx.x;
  const float maximum = maxima[row];
  float sum = 0.0f;
  for (i64 i = threadIdx.x * 4; i < v; i += 256 * 4) {
    const Four four = load4(logits + row * v + i, v - i);
    float e[4];
    for (int k = 0; k < 4; ++k) e[k] = i + k < v ? EXP(four.v[k] - maximum) : 0.0f;
    sum += (e[0] + e[1]) + (e[2] + e[3]);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) {
    sums[row] = sum;
    const i64 target = targets[row] - first;
    if (target >= 0 && target < v)
      target_logits[row] = to_float(logits[row * v + target]);
    else if (is_first)
      target_logits[row] = -INFINITE;
  }
}

// −ln p of each row's target, 0 for a target below zero.
__global__ void row_losses(
    const float* maxima, const float* sums, const float* target_logits, const i64* targets, i64 rows, double* losses) {
  const i64 row = THREAD;
  if (row >= rows) return;
  losses[row] = targets[row] < 0 ? 0.0 : log((double)sums[row]) + (double)maxima[row] - (double)target_logits[row];
}

// The gradient of the losses replaces the logits.
__global__ void loss_gradient(
    E* logits, i64 v, const i64* targets, i64 first, const float* maxima, const float* sums) {
  const i64 row = blockIdx.x, target = targets[row] - first;
  const float maximum = maxima[row], scale = 1.0f / sums[row];
  const bool counts = targets[row] >= 0;
  for (i64 i = threadIdx.x * 4; i < v; i += 256 * 4) {
    Four four = load4(logits + row * v + i, v - i);
    for (int k = 0; k < 4; ++k) {
      float g = EXP(four.v[k] - maximum) * scale;
      if (i + k == target) g -= 1.0f;
      four.v[k] = counts ? g : 0.0f;
    }
    store4(logits + row * v + i, v - i, four);
  }
}

// All of these at once, for a vocabulary that is not divided: reads the logits once from memory and once from the cache.
__global__ void row_loss(E* logits, i64 v, const i64* targets, double* losses, int gradient) {
  __shared__ float shared[256];
  const i64 row = blockIdx.x, target = targets[row];
  logits += row * v;
  const float target_logit = target >= 0 ? to_float(logits[target]) : 0.0f;
  float largest = -INFINITE, sum = 0.0f;
  for (i64 i = threadIdx.x * 4; i < v; i += 256 * 4) {
    const Four four = load4(logits + i, v - i);
    float raised = largest;
    for (int k = 0; k < 4; ++k)
      if (i + k < v) raised = fmaxf(raised, four.v[k]);
    float e[4];
    for (int k = 0; k < 4; ++k) e[k] = i + k < v ? EXP(four.v[k] - raised) : 0.0f;
    sum = (largest == raised ? sum : sum * EXP(largest - raised)) + ((e[0] + e[1]) + (e[2] + e[3]));
    largest = raised;
  }
  const float maximum = block_max(largest, shared);
  sum = block_sum(largest == maximum ? sum : sum * EXP(largest - maximum), shared);
  if (threadIdx.x == 0)
    losses[row] = target < 0 ? 0.0 : log((double)sum) + (double)maximum - (double)target_logit;
  if (!gradient) return;
  const float scale = 1.0f / sum;
  for (i64 i = threadIdx.x * 4; i < v; i += 256 * 4) {
    Four four = load4(logits + i, v - i);
    for (int k = 0; k < 4; ++k) {
      float g = EXP(four.v[k] - maximum) * scale;
      if (i + k == target) g -= 1.0f;
      four.v[k] = target >= 0 ? g : 0.0f;
    }
    store4(logits + i, v - i, four);
  }
}

// What an update does to one chunk: places in the four buffers, length, and whether its weights decay.
struct Chunk {
  i64 weights, master, moments, length, decays;
};

// One AdamW update; blockIdx.y is the chunk. `compute` gets the rounded weights unless it is `theta` itself.
__global__ void adamw(
    const Chunk* chunks, float scale, float beta1, float beta2, float rest1, float rest2, float epsilon, float alpha,
    float root_correction, float decay, float* theta, const float* gradient, float* m, float* v, E* compute) {
  const Chunk chunk = chunks[blockIdx.y];
  const i64 at = THREAD * 4, rest = chunk.length - at;
  if (rest <= 0) return;
  const float kept = chunk.decays ? decay : 1.0f;
  theta += chunk.master + at;
  m += chunk.moments + at;
  v += chunk.moments + at;
  const Four g = load4(gradient + chunk.weights + at, rest);
  Four first = load4(m, rest), second = load4(v, rest), weight = load4(theta, rest);
  for (int k = 0; k < 4; ++k) {
    const float d = g.v[k] * scale;
    first.v[k] = first.v[k] * beta1 + d * rest1;
    second.v[k] = second.v[k] * beta2 + d * d * rest2;
    const float root = sqrtf(second.v[k]) / root_correction;
    weight.v[k] = weight.v[k] * kept - first.v[k] / (root + epsilon) * alpha;
  }
  store4(m, rest, first);
  store4(v, rest, second);
  store4(theta, rest, weight);
  if ((const void*)compute != (const void*)(theta - chunk.master - at))
    store4(compute + chunk.weights + at, rest, weight);
}

// Σ of the squares of each chunk of a buffer, given start and length; one block for a chunk.
__global__ void sum_squares(const float* buffer, const i64* starts, const i64* lengths, double* sums) {
  __shared__ double shared[256];
  const float* from = buffer + starts[blockIdx.x];
  const i64 length = lengths[blockIdx.x];
  double sum = 0.0;
  for (i64 i = threadIdx.x * 4; i < length; i += 256 * 4) {
    const Four four = load4(from + i, length - i);
    for (int k = 0; k < 4; ++k) sum += (double)four.v[k] * (double)four.v[k];
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

} // extern "C"
