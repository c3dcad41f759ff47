/* Part of null_gpu.c: the driver's virtual memory, which PyTorch's expandable segments are made of. Ranges of addresses
 * are reserved, physical memory is created and counted, and the one is mapped into the other.
 *
 * As the driver's documentation has it: sizes and addresses are multiples of 2 MiB, a mapping lies within one
 * reservation and overlaps no other, an unmapping names whole mappings, and memory goes back to its card when its handle
 * is released and it is mapped nowhere. */

#define GRANULARITY (2ull << 20)
enum { CU_OK = 0, CU_INVALID = 1, CU_FULL = 2, CU_NOT_SUPPORTED = 801 };

static struct reservation { char *address; size_t bytes; } reservations[4096];
static size_t num_reservations;
static struct physical { size_t bytes; int card; unsigned handles, mappings; } *physicals; /* a handle is its place + 1 */
static size_t num_physicals, max_physicals;
static struct mapping { char *address; size_t bytes, physical; } *mappings; /* by address */
static size_t num_mappings, max_mappings;

/* Room for one more in a list of `count`. */
static void *grown(void *list, size_t count, size_t *room, size_t size) {
    if (count < *room) return list;
    *room = *room ? 2 * *room : 1024;
    list = realloc(list, *room * size);
    if (!list) abort();
    return list;
}

/* The place of the first mapping that is not below an address. */
static size_t first_mapping(const char *address) {
    size_t low = 0, high = num_mappings;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mappings[middle].address < address) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int unlocked(int error) {
    pthread_mutex_unlock(&lock);
    return error;
}

API int cuMemGetAllocationGranularity(size_t *granularity, const void *properties, int option) {
    *granularity = GRANULARITY;
    return CU_OK;
}

API int cuMemAddressReserve(uintptr_t *out, size_t bytes, size_t alignment, uintptr_t wanted, unsigned long long flags) {
    pthread_mutex_lock(&lock);
    if (!bytes || bytes % GRANULARITY) return unlocked(CU_INVALID);
    need_range();
    if (next + bytes > range + RANGE) return unlocked(CU_FULL);
    if (num_reservations == sizeof reservations / sizeof *reservations) abort();
    reservations[num_reservations++] = (struct reservation){next, bytes};
    *out = (uintptr_t)next;
    next += bytes;
    return unlocked(CU_OK);
}

API int cuMemAddressFree(uintptr_t pointer, size_t bytes) {
    char *address = (char *)pointer;
    pthread_mutex_lock(&lock);
    size_t at = first_mapping(address);
    if (at < num_mappings && mappings[at].address < address + bytes) return unlocked(CU_INVALID);
    for (size_t i = 0; i < num_reservations; i++)
        if (reservations[i].address == address && reservations[i].bytes == bytes) {
            reservations[i] = reservations[--num_reservations];
            return unlocked(CU_OK);
        }
    return unlocked(CU_INVALID);
}

/* `properties` is a CUmemAllocationProp: its type and handle types, then the type of its location and the card's number. */
API int cuMemCreate(unsigned long long *out, size_t bytes, const int *properties, unsigned long long flags) {
    pthread_mutex_lock(&lock);
    if (!bytes || bytes % GRANULARITY || properties[3] < 0 || properties[3] >= num_visible) return unlocked(CU_INVALID);
    int card = visible[properties[3]];
    if (bytes > left_on(card)) return unlocked(CU_FULL);
    size_t place = 0;
    while (place < num_physicals && physicals[place].bytes) place++; /* of one that is gone */
    if (place == num_physicals) {
        physicals = grown(physicals, num_physicals, &max_physicals, sizeof *physicals);
        num_physicals++;
    }
    physicals[place] = (struct physical){bytes, card, 1, 0};
    cards[card].used += bytes;
    tell_others();
    *out = place + 1;
    return unlocked(CU_OK);
}

static struct physical *physical_of(unsigned long long handle) {
    struct physical *found = handle && handle <= num_physicals ? &physicals[handle - 1] : NULL;
    return found && found->handles ? found : NULL;
}

static void give_back(struct physical *physical) {
    if (physical->handles || physical->mappings) return;
    cards[physical->card].used -= physical->bytes;
    physical->bytes = 0;
    tell_others();
}

API int cuMemRelease(unsigned long long handle) {
    pthread_mutex_lock(&lock);
    struct physical *physical = physical_of(handle);
    if (!physical) return unlocked(CU_INVALID);
    physical->handles--;
    give_back(physical);
    return unlocked(CU_OK);
}

API int cuMemMap(uintptr_t pointer, size_t bytes, size_t offset, unsigned long long handle, unsigned long long flags) {
    char *address = (char *)pointer;
    pthread_mutex_lock(&lock);
    struct physical *physical = physical_of(handle);
    int inside = 0;
    for (size_t i = 0; i < num_reservations; i++)
        inside |= address >= reservations[i].address &&
                  address + bytes <= reservations[i].address + reservations[i].bytes;
    size_t at = first_mapping(address);
    if (at && mappings[at - 1].address + mappings[at - 1].bytes > address) inside = 0;
    if (at < num_mappings && mappings[at].address < address + bytes) inside = 0;
    if (!physical || !inside || offset || physical->bytes != bytes) return unlocked(CU_INVALID);
    mappings = grown(mappings, num_mappings, &max_mappings, sizeof *mappings);
    memmove(mappings + at + 1, mappings + at, (num_mappings++ - at) * sizeof *mappings);
    mappings[at] = (struct mapping){address, bytes, handle - 1};
    physical->mappings++;
    return unlocked(CU_OK);
}

/* The mappings that lie in a range, from the first to before `*end`, and how much they are. */
static size_t mapped_in(const char *address, size_t bytes, size_t *first, size_t *end) {
    size_t found = 0;
    *first = *end = first_mapping(address);
    while (*end < num_mappings && mappings[*end].address + mappings[*end].bytes <= address + bytes)
        found += mappings[(*end)++].bytes;
    return found;
}

API int cuMemUnmap(uintptr_t pointer, size_t bytes) {
    char *address = (char *)pointer;
    size_t first, end;
    pthread_mutex_lock(&lock);
    if (!bytes || mapped_in(address, bytes, &first, &end) != bytes) return unlocked(CU_INVALID);
    for (size_t i = first; i < end; i++) {
        struct physical *physical = &physicals[mappings[i].physical];
        physical->mappings--;
        give_back(physical);
    }
    forget(address, bytes);
    memmove(mappings + first, mappings + end, (num_mappings - end) * sizeof *mappings);
    num_mappings -= end - first;
    return unlocked(CU_OK);
}

API int cuMemSetAccess(uintptr_t pointer, size_t bytes, const void *descriptions, size_t count) {
    size_t first, end;
    pthread_mutex_lock(&lock);
    return unlocked(mapped_in((char *)pointer, bytes, &first, &end) == bytes ? CU_OK : CU_INVALID);
}

API int cuMemExportToShareableHandle(void *out, unsigned long long handle, int type, unsigned long long flags) {
    if (type != 1) return CU_NOT_SUPPORTED; /* a file descriptor, nothing else */
    *(int *)out = open("/dev/null", O_RDONLY);
    return CU_OK;
}
API int cuMemImportFromShareableHandle(unsigned long long *out, void *handle, int type) { return CU_NOT_SUPPORTED; }

API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 102 || attribute == 103; /* virtual memory, and its handles as file descriptors */
    return CU_OK;
}
