/* A GPU that does nothing: a CUDA runtime whose memory is counted and never touched, whose kernels are accepted and
 * ignored. Preloaded (LD_PRELOAD), it answers in place of libcudart, cuBLAS, the driver and NVML, so that PyTorch's own
 * CUDA allocator and operators, ExLlamaV2's own extension and flash-attn's own binding run on a machine without a GPU
 * and ask for exactly the memory that they would ask a real card for. It is a test instrument.
 *
 * What is true here and on a card: every cudaMalloc and cudaFree, their sizes, their order and their streams, and the
 * refusal when the card is full. What is not: values (device memory reads as zeros, but for small tables that the host
 * wrote), time, and whatever lives outside of cudaMalloc (the context, loaded modules); of the latter a fixed amount is
 * taken away (NULL_GPU_CONTEXT_BYTES), and more with the first kernel (NULL_GPU_MODULES_BYTES). Processes with the same
 * NULL_GPU_SHARED, a file, share the cards: each sees what the others hold, and their contexts.
 *
 * NULL_GPU_CARDS says how many there are, for the life of a process, and NULL_GPU_PEER_ACCESS whether they reach each
 * other's memory. A setting of a card may be a list, with commas; its last number is that of all further cards. Of them
 * CUDA counts those that CUDA_VISIBLE_DEVICES names, by number or UUID, in its order; NVML counts all.
 *
 * How to read it: 1. the cards, 2. their memory, 3. copies, 4. kernels, 5. streams and events, 6. facts about a card,
 * 7. cuBLAS, 8. the driver (its virtual memory: null_gpu_pages.h), 9. NVML. A function that PyTorch never calls here is
 * not answered: the program ends with "undefined symbol" or an error of the real library, not with a wrong number.
 *
 * Build: cc -shared -fPIC -O2 -I<CUDA 13 headers> -Wl,-soname,libcuda.so.1 -o libcuda.so.1 null_gpu.c
 * The soname is that of the driver: whoever opens libcuda.so.1 by name finds this library already there.
 */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

/* 1. The cards. Their sizes may be changed while nothing is allocated, so that one process can be many cards in turn. */

#define CARDS 8
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct card {
    size_t total, context, modules, used;
    int major, minor, multiprocessors, shared_kib, binary_version;
    char name[128];
} cards[CARDS];
static int num_cards = 1, peer_access;
static int visible[CARDS], num_visible; /* by CUDA's numbers */
static __thread int device_of_thread; /* CUDA's number of the card that it is on: the first, until it says otherwise */
static int current(void) { return visible[device_of_thread]; }
#define UUID "GPU-6e756c6c-2d67-7075-2d30-3030303030%02x" /* null-gpu-0000000 in hexadecimal, of the first card */

/* The number of a card in a setting. */
static size_t number(const char *name, int index, size_t otherwise) {
    const char *text = getenv(name), *next;
    if (!text) return otherwise;
    while (index-- && (next = strchr(text, ','))) text = next + 1;
    return strtoull(text, NULL, 10);
}

API void null_gpu_resize(int index, size_t total, size_t context) {
    if (index < 0 || index >= num_cards) abort();
    cards[index].total = total;
    cards[index].context = context;
}

API void null_gpu_set(int index, size_t total, size_t context, int major, int minor, int multiprocessors) {
    null_gpu_resize(index, total, context);
    struct card *card = &cards[index];
    card->major = major;
    card->minor = minor;
    card->multiprocessors = multiprocessors;
    /* The largest shared memory of a block, and which of the wheel's binaries the real runtime would pick: the newest
     * that is not newer than the card. CUB chooses its algorithms by both. */
    card->shared_kib = major == 7 ? 64 : major == 8 ? (minor == 0 ? 163 : 99) : major == 12 ? 99 : 227;
    static const int compiled[] = {75, 80, 86, 90, 100, 120};
    for (size_t i = 0; i < sizeof compiled / sizeof *compiled; i++)
        if (compiled[i] <= 10 * major + minor) card->binary_version = compiled[i];
}

/* What CUDA_VISIBLE_DEVICES names, up to the first that is not there; all cards without it. */
static void look(void) {
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    for (int i = 0; !text && i < num_cards; i++) visible[num_visible++] = i;
    while (text && *text && num_visible < num_cards) {
        unsigned card;
        if (sscanf(text, UUID, &card) == 1) card -= '0';
        else if (sscanf(text, "%u", &card) != 1) return;
        if (card >= (unsigned)num_cards) return;
        visible[num_visible++] = (int)card;
        if ((text = strchr(text, ','))) text++;
    }
}

/* PyTorch asks each pair of cards once in a process. */
API void null_gpu_peer_access(int yes) { peer_access = yes; }

__attribute__((constructor)) static void start(void) {
    num_cards = (int)number("NULL_GPU_CARDS", 0, 1);
    if (num_cards < 1 || num_cards > CARDS) abort();
    null_gpu_peer_access((int)number("NULL_GPU_PEER_ACCESS", 0, 0));
    for (int i = 0; i < num_cards; i++) {
        size_t capability = number("NULL_GPU_COMPUTE_CAPABILITY", i, 86); /* 86 for 8.6 */
        null_gpu_set(i, number("NULL_GPU_TOTAL_BYTES", i, 24ull << 30), number("NULL_GPU_CONTEXT_BYTES", i, 0),
                     (int)capability / 10, (int)capability % 10, (int)number("NULL_GPU_MULTIPROCESSORS", i, 82));
        cards[i].modules = number("NULL_GPU_MODULES_BYTES", i, 0);
        snprintf(cards[i].name, sizeof cards[i].name, "Null GPU (sm_%zu)", capability);
    }
    look();
}

/* 2. Memory: addresses out of a range that is reserved and never backed, always upwards; so no two allocations of a
 * process ever have the same address, and ties of the allocator's best fit break by age. */

#define RANGE (1ull << 46)
#define ALIGNMENT (2ull << 20)
static char *range, *next;
static struct allocation { char *address; size_t bytes; int card; } *allocations;
static size_t num_allocations, max_allocations;

static int on_card(const void *pointer) {
    return range && (const char *)pointer >= range && (const char *)pointer < range + RANGE;
}

static void forget(const char *address, size_t bytes);

static __thread cudaError_t last_error;
static cudaError_t fail(cudaError_t error) { return last_error = error; }

/* What each process holds of each card, context included, in a file that they share; a process that has ended holds nothing. Two that
 * ask for the last of the card at the same moment may both get it: a test has one of them wait for the other. */

#define PROCESSES 64
static struct holding { volatile pid_t pid; volatile size_t bytes[CARDS]; } *holdings;

static struct holding *shared(void) {
    const char *path = getenv("NULL_GPU_SHARED");
    if (holdings || !path) return holdings;
    int file = open(path, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, PROCESSES * sizeof *holdings)) abort();
    holdings = mmap(NULL, PROCESSES * sizeof *holdings, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (holdings == MAP_FAILED) abort();
    close(file);
    return holdings;
}

static int alive(const struct holding *h) { return h->pid && !kill(h->pid, 0); }

static size_t held_by_others(int card) {
    size_t bytes = 0;
    for (struct holding *h = shared(); h && h < holdings + PROCESSES; h++)
        if (h->pid != getpid() && alive(h)) bytes += h->bytes[card];
    return bytes;
}

static struct holding *held_by_me(void) {
    for (struct holding *h = shared(); h && h < holdings + PROCESSES; h++)
        if (h->pid == getpid()) return h;
    return NULL;
}

/* What is left of a card for this process. */
static size_t left_on(int card) {
    size_t taken = cards[card].used + cards[card].context + held_by_others(card);
    return taken < cards[card].total ? cards[card].total - taken : 0;
}

static void tell_others(void) {
    struct holding *mine = held_by_me();
    for (struct holding *h = shared(); h && !mine && h < holdings + PROCESSES; h++) {
        pid_t gone = h->pid;
        if (!alive(h) && __sync_bool_compare_and_swap(&h->pid, gone, getpid())) mine = h;
    }
    for (int i = 0; mine && i < num_cards; i++) mine->bytes[i] = cards[i].used + cards[i].context;
    if (!mine && holdings) abort(); /* more processes than there is room for */
}

static void need_range(void) {
    if (range) return;
    range = next = mmap(NULL, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) abort();
}

API cudaError_t cudaMalloc(void **out, size_t bytes) {
    pthread_mutex_lock(&lock);
    need_range();
    if (bytes > left_on(current())) {
        pthread_mutex_unlock(&lock);
        return fail(cudaErrorMemoryAllocation);
    }
    if (num_allocations == max_allocations) {
        max_allocations = max_allocations ? 2 * max_allocations : 256;
        allocations = realloc(allocations, max_allocations * sizeof *allocations);
    }
    allocations[num_allocations++] = (struct allocation){next, bytes, current()};
    cards[current()].used += bytes;
    tell_others();
    *out = next;
    next += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

API cudaError_t cudaFree(void *pointer) {
    if (!pointer) return cudaSuccess;
    pthread_mutex_lock(&lock);
    for (size_t i = num_allocations; i--;)
        if (allocations[i].address == pointer) {
            cards[allocations[i].card].used -= allocations[i].bytes;
            tell_others();
            forget(allocations[i].address, allocations[i].bytes);
            allocations[i] = allocations[--num_allocations];
            pthread_mutex_unlock(&lock);
            return cudaSuccess;
        }
    pthread_mutex_unlock(&lock);
    return fail(cudaErrorInvalidValue);
}

API cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    tell_others(); /* whoever asks has a context by now */
    *total = cards[current()].total;
    *free_bytes = left_on(current());
    return cudaSuccess;
}

API size_t null_gpu_used(int index) { return cards[index].used; }

/* Host memory is real. */
API cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    *out = calloc(1, bytes ? bytes : 1);
    return *out ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}
API cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }
API cudaError_t cudaFreeHost(void *pointer) { free(pointer); return cudaSuccess; }
API cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void *pointer) { return cudaSuccess; }

API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = on_card(pointer) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    if (!on_card(pointer)) return cudaSuccess;
    attributes->devicePointer = (void *)pointer;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < num_allocations; i++)
        if ((const char *)pointer >= allocations[i].address &&
            (const char *)pointer < allocations[i].address + allocations[i].bytes)
            while (visible[attributes->device] != allocations[i].card) attributes->device++;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* 3. Copies. The engine reads small tables back that it has written (group sizes, RoPE frequencies), and works with
 * their numbers: what the host writes in up to SHADOW bytes is kept beside, by address. All else reads as zeros, unless
 * the test has said what the next read of that many bytes will find (null_gpu_answer). */

#define SHADOW (32u << 10)
#define BUCKETS (1u << 16)
static struct shadow { struct shadow *next; const char *address; size_t bytes; char data[]; } *shadows[BUCKETS];
static struct { size_t bytes; int64_t value; } answers[64];
static size_t num_answers;

static struct shadow **shadow_at(const char *address) {
    struct shadow **place = &shadows[(uintptr_t)address / 512 % BUCKETS];
    while (*place && (*place)->address != address) place = &(*place)->next;
    return place;
}

static void drop(struct shadow **place) {
    struct shadow *gone = *place;
    if (!gone) return;
    *place = gone->next;
    free(gone);
}

static void forget(const char *address, size_t bytes) {
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct shadow **place = &shadows[i]; *place;)
            if ((*place)->address >= address && (*place)->address < address + bytes) drop(place);
            else place = &(*place)->next;
}

static void keep(const char *address, const void *data, size_t bytes) {
    drop(shadow_at(address));
    if (bytes > SHADOW) return;
    struct shadow **place = shadow_at(address), *kept = malloc(sizeof *kept + bytes);
    *kept = (struct shadow){NULL, address, bytes};
    memcpy(kept->data, data, bytes);
    *place = kept;
}

/* The next read of `bytes` from the card finds `value`: how many elements a mask selects, say. First in, first out. */
API void null_gpu_answer(size_t bytes, int64_t value) {
    if (num_answers == sizeof answers / sizeof *answers) abort();
    answers[num_answers].bytes = bytes;
    answers[num_answers++].value = value;
}

static int answered(void *to, size_t bytes) {
    if (!num_answers || answers[0].bytes != bytes || bytes > sizeof answers[0].value) return 0;
    memcpy(to, &answers[0].value, bytes);
    memmove(answers, answers + 1, --num_answers * sizeof *answers);
    return 1;
}

static cudaError_t copy(void *to, const void *from, size_t bytes) {
    if (!bytes) return cudaSuccess;
    pthread_mutex_lock(&lock);
    if (on_card(to) && !on_card(from)) {
        keep(to, from, bytes);
    } else if (on_card(to)) {
        struct shadow *known = *shadow_at(from);
        if (known && known->bytes >= bytes) keep(to, known->data, bytes);
        else drop(shadow_at(to));
    } else if (on_card(from)) {
        struct shadow *known = *shadow_at(from);
        if (answered(to, bytes)) {
        } else if (known && known->bytes >= bytes) memcpy(to, known->data, bytes);
        else memset(to, 0, bytes);
    } else {
        memcpy(to, from, bytes);
    }
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

API cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    return copy(to, from, bytes);
}
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t s) {
    return copy(to, from, bytes);
}
/* Columns of hidden states, gathered from several cards: nobody computed them. */
API cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                  size_t rows, enum cudaMemcpyKind kind, cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaMemcpyPeerAsync(void *to, int device, const void *from, int source, size_t bytes, cudaStream_t s) {
    return copy(to, from, bytes);
}
API cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
    pthread_mutex_lock(&lock);
    drop(shadow_at(to));
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}
API cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, NULL); }
API cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset,
                                   enum cudaMemcpyKind kind) { return cudaSuccess; }
API cudaError_t cudaGetSymbolAddress(void **out, const void *symbol) { *out = (void *)symbol; return cudaSuccess; }

/* 4. Kernels: registered, asked about, launched; nothing happens, but that their code takes room with the first launch. */

static cudaError_t launch(void) {
    cudaError_t error = cudaSuccess;
    pthread_mutex_lock(&lock);
    struct card *card = &cards[current()];
    if (card->modules > left_on(current())) {
        error = fail(cudaErrorMemoryAllocation);
    } else if (card->modules) {
        card->context += card->modules;
        card->modules = 0;
        tell_others();
    }
    pthread_mutex_unlock(&lock);
    return error;
}

static char something; /* a handle that is not null */
static __thread struct { dim3 grid, block; size_t shared; cudaStream_t stream; } pushed;

API void **__cudaRegisterFatBinary(void *binary) { return (void **)&something; }
API void __cudaRegisterFatBinaryEnd(void **handle) {}
API void __cudaUnregisterFatBinary(void **handle) {}
API void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *a,
                                void *b, void *c, void *d, int *e) {}
API void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size,
                           int constant, int global) {}
API cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
    return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *(cudaStream_t *)stream = pushed.stream;
    return cudaSuccess;
}
API cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) {
    return launch();
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t s) {
    return launch();
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **args) {
    return launch();
}
API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *f) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->maxDynamicSharedSizeBytes = 48 << 10;
    attributes->ptxVersion = attributes->binaryVersion = cards[current()].binary_version;
    return cudaSuccess;
}
API cudaError_t cudaFuncSetAttribute(const void *f, enum cudaFuncAttribute attribute, int value) { return cudaSuccess; }
API cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t f, enum cudaFuncAttribute a, int value, int device) {
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int threads,
                                                                       size_t shared, unsigned flags) {
    *blocks = threads > 0 ? 2048 / threads : 1; /* as if neither registers nor shared memory stood in the way */
    if (*blocks > 32) *blocks = 32;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *f, int threads, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, shared, 0);
}

/* 5. Streams and events: names without anything behind them; everything is done at once. */

static uintptr_t handles = 0x1000;
static void *handle(void) { return (void *)__sync_add_and_fetch(&handles, 16); }

API cudaError_t cudaStreamCreate(cudaStream_t *s) { *s = handle(); return cudaSuccess; }
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return cudaStreamCreate(s); }
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int priority) { return cudaStreamCreate(s); }
API cudaError_t cudaStreamDestroy(cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaStreamSynchronize(cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaStreamQuery(cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int *priority) { *priority = 0; return cudaSuccess; }
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                         cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                         const cudaGraphEdgeData **edges, size_t *count) {
    if (id) *id = 0;
    return cudaStreamIsCapturing(s, status);
}
API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t call, void *data, unsigned flags) {
    call(s, cudaSuccess, data);
    return cudaSuccess;
}
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t call, void *data) { call(data); return cudaSuccess; }
API cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = handle(); return cudaSuccess; }
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return cudaEventCreate(e); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) { return cudaSuccess; }
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cudaSuccess; }
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) { return cudaSuccess; }
API cudaError_t cudaEventQuery(cudaEvent_t e) { return cudaSuccess; }
API cudaError_t cudaEventSynchronize(cudaEvent_t e) { return cudaSuccess; }
API cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) { *ms = 0; return cudaSuccess; }

/* 6. Facts about a card. */

API cudaError_t cudaGetDeviceCount(int *count) {
    *count = num_visible;
    return num_visible ? cudaSuccess : fail(cudaErrorNoDevice);
}
API cudaError_t cudaGetDevice(int *device) { *device = device_of_thread; return cudaSuccess; }
API cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= num_visible) return fail(cudaErrorInvalidDevice);
    device_of_thread = device;
    return cudaSuccess;
}
API cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
API cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = peer_access && device != peer;
    return cudaSuccess;
}
API cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    return peer_access && peer != device_of_thread ? cudaSuccess : fail(cudaErrorPeerAccessUnsupported);
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, (size_t)length, "0000:%02x:00.0", (unsigned)visible[device]);
    return cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
API cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
API cudaError_t cudaPeekAtLastError(void) { return last_error; }
API const char *cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : error ? "cudaError" : "cudaSuccess";
}
API const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : error ? "an error of the null GPU" : "no error";
}

API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    if (device < 0 || device >= num_visible) return fail(cudaErrorInvalidDevice);
    const struct card *card = &cards[visible[device]];
    memset(p, 0, sizeof *p);
    memcpy(p->name, card->name, sizeof card->name);
    memcpy(p->uuid.bytes, "null-gpu-0000000", 16);
    p->uuid.bytes[15] = (char)('0' + visible[device]);
    p->pciBusID = visible[device];
    p->totalGlobalMem = card->total;
    p->major = card->major, p->minor = card->minor;
    p->multiProcessorCount = card->multiprocessors;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = (size_t)card->shared_kib << 10;
    p->sharedMemPerMultiprocessor = ((size_t)card->shared_kib + 1) << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = card->major == 8 && card->minor ? 1536 : 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->l2CacheSize = 6 << 20;
    return cudaSuccess;
}

API cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, device)) return last_error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    default: *value = 0;
    }
    return cudaSuccess;
}

/* 7. cuBLAS: handles, settings, and products that are not computed. Its own workspace does not exist: PyTorch gives it
 * one from its own allocator, which is counted like everything else. */

#define DONE(name) API int name(void) { return 0; }
API int cublasCreate_v2(void **out) { *out = handle(); return 0; }
API int cublasGetMathMode(void *h, int *mode) { *mode = 0; return 0; }
API int cublasGetPointerMode_v2(void *h, int *mode) { *mode = 0; return 0; }
API int cublasLtCreate(void **out) { *out = handle(); return 0; }
API size_t cublasLtGetVersion(void) { return 130000; }
API int cublasLtMatmulDescCreate(void **out, int compute, int scale) { *out = handle(); return 0; }
API int cublasLtMatmulPreferenceCreate(void **out) { *out = handle(); return 0; }
API int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    *out = handle();
    return 0;
}
API int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *preference,
                                       int requested, void *results, int *found) {
    memset(results, 0, 96 * (size_t)requested); /* sizeof(cublasLtMatmulHeuristicResult_t): success, no workspace */
    *found = requested;
    return 0;
}
DONE(cublasDestroy_v2) DONE(cublasSetStream_v2) DONE(cublasSetWorkspace_v2) DONE(cublasSetMathMode)
DONE(cublasSetPointerMode_v2) DONE(cublasSetSmCountTarget) DONE(cublasGemmEx) DONE(cublasGemmStridedBatchedEx)
DONE(cublasSgemm_v2) DONE(cublasDgemm_v2) DONE(cublasHgemm) DONE(cublasSgemmEx) DONE(cublasSgemmStridedBatched)
DONE(cublasDgemmStridedBatched) DONE(cublasHgemmStridedBatched) DONE(cublasSgemv_v2) DONE(cublasSdot_v2)
DONE(cublasDotEx) DONE(cublasLtMatmul) DONE(cublasLtMatmulDescDestroy) DONE(cublasLtMatmulDescSetAttribute)
DONE(cublasLtMatmulPreferenceDestroy) DONE(cublasLtMatmulPreferenceSetAttribute) DONE(cublasLtMatrixLayoutDestroy)
DONE(cublasLtMatrixLayoutSetAttribute)

/* 8. The driver, as far as PyTorch asks for it by name: nothing of it is needed without expandable segments. */

static int not_supported(void) { return 801; }
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0, *active = 1; return 0; }
API int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &something; return 0; }
API int cuInit(unsigned flags) { return 0; }
API int cuDriverGetVersion(int *version) { *version = CUDART_VERSION; return 0; }
API int cuDeviceGetCount(int *count) { *count = num_visible; return 0; }
API int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
API int cuCtxGetCurrent(void **context) { *context = &something; return 0; }
API int cuCtxSetCurrent(void *context) { return 0; }
API int cuGetErrorString(int error, const char **text) { *text = "an error of the null GPU"; return 0; }

#include "null_gpu_pages.h"

API cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                                 unsigned long long flags,
                                                 enum cudaDriverEntryPointQueryResult *result) {
    *function = dlsym(RTLD_DEFAULT, name);
    if (!*function) *function = (void *)not_supported;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* 9. NVML: the cards, by their addresses, and on each this process and those that share it. */

struct nvml_memory { unsigned long long total, free, used; };
struct nvml_memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
struct nvml_process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };

static int index_of(const void *device) { return (int)((const struct card *)device - cards); }

/* Alone on a card, whoever asks is taken to have its context already. */
static size_t used_of(const void *device) {
    int card = index_of(device);
    if (!shared()) return cards[card].used + cards[card].context;
    return held_by_others(card) + (held_by_me() ? held_by_me()->bytes[card] : 0);
}


DONE(nvmlInit_v2) DONE(nvmlInitWithFlags) DONE(nvmlShutdown)
API const char *nvmlErrorString(int error) { return "an error of the null GPU"; }
API int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "null"); return 0; }
API int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = CUDART_VERSION; return 0; }
static int found(void **device, int index) {
    if (index < 0 || index >= num_cards) return 6; /* not found */
    *device = &cards[index];
    return 0;
}
API int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)num_cards; return 0; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { return found(device, (int)index); }
API int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    unsigned last;
    return sscanf(uuid, UUID, &last) == 1 ? found(device, (int)last - '0') : 6;
}
API int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device) {
    unsigned bus;
    return sscanf(id, "%*x:%x", &bus) == 1 ? found(device, (int)bus) : 6;
}
API int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    snprintf(text, length, "%s", ((struct card *)device)->name);
    return 0;
}
API int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, UUID, '0' + (unsigned)index_of(device));
    return 0;
}
API int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    const struct card *card = device;
    *major = card->major, *minor = card->minor;
    return 0;
}
API int nvmlDeviceGetMemoryInfo(void *device, struct nvml_memory *memory) {
    memory->total = ((struct card *)device)->total, memory->used = used_of(device);
    memory->free = memory->total - memory->used;
    return 0;
}
API int nvmlDeviceGetMemoryInfo_v2(void *device, struct nvml_memory_v2 *memory) {
    memory->total = ((struct card *)device)->total, memory->reserved = 0, memory->used = used_of(device);
    memory->free = memory->total - memory->used;
    return 0;
}
API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct nvml_process *processes) {
    if (!processes || *count < PROCESSES) return *count = PROCESSES, 7; /* insufficient size */
    *count = 0;
    if (!shared()) processes[(*count)++] = (struct nvml_process){(unsigned)getpid(), used_of(device), 0, 0};
    for (struct holding *h = holdings; h && h < holdings + PROCESSES; h++)
        if (alive(h))
            processes[(*count)++] = (struct nvml_process){(unsigned)h->pid, h->bytes[index_of(device)], 0, 0};
    return 0;
}
/* PyTorch looks these up together with what it needs, and asks them about NVLink only. */
API int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *type) { return 3; }
API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, void *pci) { return 3; }
/* No fabric: its state, after version, cluster, status and clique, is "not supported". */
API int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) { ((unsigned char *)info)[28] = 0; return 0; }
API int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, struct nvml_process *processes) {
    return *count = 0;
}
